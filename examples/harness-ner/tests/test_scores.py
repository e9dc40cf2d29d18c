"""Entities that tags stand for, by hand and against seqeval."""

from __future__ import annotations

import numpy as np
import pytest
from harness_ner.scores import count, entities, entity_f1, entity_precision, entity_recall

from harness import IGNORED, DataInfo

NAMES = ("O", "B-x", "I-x", "B-y-z", "I-y-z")
INFO = DataInfo(kind="tagged-tokens", inputs={}, objective="token_classification", outputs=5, label_names=NAMES)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-x I-x O B-x", [("x", 0, 1), ("x", 3, 3)]),
        ("B-x B-x", [("x", 0, 0), ("x", 1, 1)]),  # two that touch
        ("O I-x I-x", [("x", 1, 2)]),  # conlleval: an I- after O begins
        ("B-x I-y-z", [("x", 0, 0), ("y-z", 1, 1)]),  # and so does one of another kind
        ("I-y-z O I-y-z", [("y-z", 0, 0), ("y-z", 2, 2)]),
        ("O B-y-z", [("y-z", 1, 1)]),  # up to the end; a kind may hold a hyphen
    ],
)
def test_entities(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert list(entities(tags.split())) == expected


def test_sentences_are_counted_apart() -> None:
    """What ends one sentence and what begins the next are two entities, also where their words would go together."""
    targets = np.array([[0, 1], [2, IGNORED]])
    logits = np.eye(5)[np.maximum(targets, 0)]
    assert count(targets, logits, NAMES) == (2, 2, 2)


def test_a_wrong_end_or_kind_is_wrong() -> None:
    targets = np.array([[1, 2, 2], [1, 2, 0], [1, 0, 0]])
    predicted = np.array([[1, 2, 0], [3, 4, 0], [1, 0, 0]])
    assert count(targets, np.eye(5)[predicted], NAMES) == (1, 3, 3)


@pytest.mark.parametrize("seed", range(20))
def test_scores_are_those_of_seqeval(seed: int) -> None:
    metrics = pytest.importorskip("seqeval.metrics", reason="seqeval is the reference: pip install seqeval")
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 5, (12, 9))
    logits = np.eye(5)[np.where(rng.random(targets.shape) < 0.5, targets, rng.integers(0, 5, targets.shape))]
    targets[np.arange(9) >= rng.integers(1, 10, (12, 1))] = IGNORED
    pairs = [(t[t != IGNORED], p.argmax(-1)[t != IGNORED]) for t, p in zip(targets, logits, strict=True)]
    true, said = ([[NAMES[number] for number in pair[side]] for pair in pairs] for side in range(2))
    assert entity_f1(targets, logits, INFO) == pytest.approx(metrics.f1_score(true, said))
    assert entity_precision(targets, logits, INFO) == pytest.approx(metrics.precision_score(true, said))
    assert entity_recall(targets, logits, INFO) == pytest.approx(metrics.recall_score(true, said))
