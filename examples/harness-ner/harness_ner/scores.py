"""Scores of tagged sentences: over whole entities, by seqeval, and over words.

The entities that tags stand for are those of ``conlleval`` (Tjong Kim Sang and De Meulder 2003, section 2.3), which
seqeval has as its default mode: an entity begins with ``B-``, and also with an ``I-`` that no entity of its type goes
on with, so that whatever is predicted stands for some entities. An entity is right if its type and both ends are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness import IGNORED, DataInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Tags = list[list[str]]


def tags(targets: Array, outputs: Array, names: Sequence[str]) -> tuple[Tags, Tags]:
    """The true and the predicted tags of each sentence: `targets` int64 ``[N, L]``, `IGNORED` where no word begins;
    `outputs` logits ``[N, L, C]``; `names` the tag of each of the C classes."""
    words = targets != IGNORED
    predicted = outputs.argmax(axis=-1)
    true, said = (
        [[names[number] for number in row[kept]] for row, kept in zip(numbers, words, strict=True)]
        for numbers in (targets, predicted)
    )
    return true, said


def entity_f1(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """None where there are no entities, true or predicted."""
    return _score("f1_score", targets, outputs, info)


def entity_precision(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """0 where entities are there and none is predicted; None where there are none at all."""
    return _score("precision_score", targets, outputs, info)


def entity_recall(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """None where there are no true entities."""
    true, _ = tags(targets, outputs, info.label_names)
    return _score("recall_score", targets, outputs, info) if _any(true) else None


def token_accuracy(targets: Array, outputs: Array, info: DataInfo) -> float:
    words = targets != IGNORED
    return float((outputs.argmax(axis=-1) == targets)[words].mean())


def _score(name: str, targets: Array, outputs: Array, info: DataInfo) -> float | None:
    from seqeval import metrics

    true, said = tags(targets, outputs, info.label_names)
    return float(getattr(metrics, name)(true, said, zero_division=0)) if _any(true) or _any(said) else None


def _any(sentences: Tags) -> bool:
    return any(tag != "O" for sentence in sentences for tag in sentence)
