"""Comparison of the metrics with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from harness_ner.scores import entity_f1, entity_precision, entity_recall, tags, token_accuracy

from harness import IGNORED, DataInfo

NAMES = ("O", "B-x", "I-x", "B-y-z", "I-y-z")
INFO = DataInfo(kind="tagged-tokens", inputs={}, objective="token_classification", outputs=5, label_names=NAMES)
Array = np.ndarray


def numbers(*sentences: str) -> Array:
    """Return the classes of the sentences, padded with `IGNORED`."""
    rows = [[NAMES.index(tag) for tag in sentence.split()] for sentence in sentences]
    longest = max(map(len, rows))
    return np.array([row + [IGNORED] * (longest - len(row)) for row in rows])


def scores(true: Array, predicted: Array) -> tuple[float | None, float | None, float | None]:
    logits = np.eye(5)[np.maximum(predicted, 0)]
    return tuple(score(true, logits, INFO) for score in (entity_precision, entity_recall, entity_f1))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("true", "predicted", "correct", "predicted_count", "true_count"),
    [
        ("B-x I-x O B-x", "B-x I-x O B-x", 2, 2, 2),
        ("B-x I-x I-x", "B-x I-x O", 0, 1, 1),  # a wrong end
        ("B-x I-x O", "B-y-z I-y-z O", 0, 1, 1),  # a wrong type, which may contain a hyphen
        ("B-x B-x O", "B-x I-x O", 0, 1, 2),  # two adjacent entities do not match one
        ("O B-x I-x", "O I-x I-x", 1, 1, 1),  # conlleval: an I- tag after O starts an entity
        ("B-x B-y-z O", "B-x I-y-z O", 2, 2, 2),  # conlleval: an I- tag of another type starts an entity
        ("B-x O B-x", "B-x O O", 1, 1, 2),
        ("B-x O O", "B-x O B-x", 1, 2, 1),
    ],
)
def test_scores_count_whole_entities(
    true: str, predicted: str, correct: int, predicted_count: int, true_count: int
) -> None:
    precision, recall, f1 = scores(numbers(true), numbers(predicted))
    assert precision == pytest.approx(correct / predicted_count)
    assert recall == pytest.approx(correct / true_count)
    assert f1 == pytest.approx(2 * correct / (predicted_count + true_count))


def test_entities_do_not_cross_sentences_and_are_pooled() -> None:
    """The last word of a sentence and the first word of the next one belong to separate entities."""
    true = numbers("O B-x", "I-x", "B-x O O B-y-z")
    predicted = numbers("O B-x", "I-x", "O O O B-x")
    assert scores(true, predicted) == pytest.approx((2 / 3, 2 / 4, 4 / 7))


def test_ignored_positions_do_not_count() -> None:
    true = np.array([[IGNORED, 1, IGNORED, 2, 0, IGNORED]])
    predicted = np.array([[3, 1, 3, 2, 0, 3]])
    assert tags(true, np.eye(5)[predicted], NAMES)[1] == [["B-x", "I-x", "O"]]
    assert scores(true, predicted) == (1, 1, 1)
    assert token_accuracy(true, np.eye(5)[predicted], INFO) == 1


def test_scores_without_entities_are_none_or_zero() -> None:
    nothing, something = numbers("O O"), numbers("B-x O")
    assert scores(nothing, nothing) == (None, None, None)
    assert scores(something, nothing) == (0, 0, 0)
    assert scores(nothing, something) == (0, None, 0)
