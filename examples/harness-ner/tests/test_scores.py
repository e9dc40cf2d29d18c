"""Scores of tagged sentences, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from harness_ner.scores import entity_f1, entity_precision, entity_recall, tags, token_accuracy

from harness import IGNORED, DataInfo

NAMES = ("O", "B-x", "I-x", "B-y-z", "I-y-z")
INFO = DataInfo(kind="tagged-tokens", inputs={}, objective="token_classification", outputs=5, label_names=NAMES)
Array = np.ndarray


def numbers(*sentences: str) -> Array:
    """Class numbers of sentences, filled up with `IGNORED`."""
    rows = [[NAMES.index(tag) for tag in sentence.split()] for sentence in sentences]
    longest = max(map(len, rows))
    return np.array([row + [IGNORED] * (longest - len(row)) for row in rows])


def scores(true: Array, said: Array) -> tuple[float | None, float | None, float | None]:
    logits = np.eye(5)[np.maximum(said, 0)]
    return tuple(score(true, logits, INFO) for score in (entity_precision, entity_recall, entity_f1))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("true", "said", "right", "predicted", "there"),
    [
        ("B-x I-x O B-x", "B-x I-x O B-x", 2, 2, 2),
        ("B-x I-x I-x", "B-x I-x O", 0, 1, 1),  # a wrong end
        ("B-x I-x O", "B-y-z I-y-z O", 0, 1, 1),  # a wrong kind, which may hold a hyphen
        ("B-x B-x O", "B-x I-x O", 0, 1, 2),  # two that touch are not one
        ("O B-x I-x", "O I-x I-x", 1, 1, 1),  # conlleval: an I- after O begins one
        ("B-x B-y-z O", "B-x I-y-z O", 2, 2, 2),  # and so does one of another kind
        ("B-x O B-x", "B-x O O", 1, 1, 2),
        ("B-x O O", "B-x O B-x", 1, 2, 1),
    ],
)
def test_what_is_right(true: str, said: str, right: int, predicted: int, there: int) -> None:
    precision, recall, f1 = scores(numbers(true), numbers(said))
    assert precision == pytest.approx(right / predicted)
    assert recall == pytest.approx(right / there)
    assert f1 == pytest.approx(2 * right / (predicted + there))


def test_sentences_are_counted_apart_and_pooled() -> None:
    """What ends one sentence and begins the next are two entities, also where their words would go together."""
    true = numbers("O B-x", "I-x", "B-x O O B-y-z")
    said = numbers("O B-x", "I-x", "O O O B-x")
    assert scores(true, said) == pytest.approx((2 / 3, 2 / 4, 4 / 7))


def test_positions_that_are_ignored_are_no_words() -> None:
    true = np.array([[IGNORED, 1, IGNORED, 2, 0, IGNORED]])
    said = np.array([[3, 1, 3, 2, 0, 3]])
    assert tags(true, np.eye(5)[said], NAMES)[1] == [["B-x", "I-x", "O"]]
    assert scores(true, said) == (1, 1, 1)
    assert token_accuracy(true, np.eye(5)[said], INFO) == 1


def test_where_there_is_nothing() -> None:
    nothing, something = numbers("O O"), numbers("B-x O")
    assert scores(nothing, nothing) == (None, None, None)
    assert scores(something, nothing) == (0, 0, 0)
    assert scores(nothing, something) == (0, None, 0)
