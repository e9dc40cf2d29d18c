"""Metrics for tagged sentences, computed over whole entities (by seqeval) and over words.

Tags are converted to entities as in ``conlleval`` (Tjong Kim Sang and De Meulder 2003, section 2.3) and in seqeval's
default mode. An entity starts at a ``B-`` tag, or at an ``I-`` tag that does not continue an entity of the same type.
Every sequence of tags is therefore valid. An entity is correct if its type, its start and its end are correct.
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
    """Return the true and the predicted tags of each sentence.

    `targets` is an int64 array ``[N, L]``, with `IGNORED` at positions where no word starts. `outputs` contains logits
    ``[N, L, C]``, and `names` contains the tags of the C classes.
    """
    words = targets != IGNORED
    true, predicted = (
        [[names[number] for number in row[kept]] for row, kept in zip(numbers, words, strict=True)]
        for numbers in (targets, outputs.argmax(axis=-1))
    )
    return true, predicted


def entity_f1(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """Return the F1 score over entities, or None if there are neither true nor predicted entities."""
    return _score("f1_score", targets, outputs, info)


def entity_precision(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """Return the precision over entities.

    The precision is 0 if there are true entities but no predicted entities, and None if there are no entities at all.
    """
    return _score("precision_score", targets, outputs, info)


def entity_recall(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """Return the recall over entities, or None if there are no true entities."""
    true, _ = tags(targets, outputs, info.label_names)
    return _score("recall_score", targets, outputs, info) if _any(true) else None


def token_accuracy(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Return the fraction of words with the correct tag."""
    words = targets != IGNORED
    return float((outputs.argmax(axis=-1) == targets)[words].mean())


def _score(name: str, targets: Array, outputs: Array, info: DataInfo) -> float | None:
    from seqeval import metrics

    true, predicted = tags(targets, outputs, info.label_names)
    if not (_any(true) or _any(predicted)):
        return None
    return float(getattr(metrics, name)(true, predicted, zero_division=0))


def _any(sentences: Tags) -> bool:
    """Return True if any sentence contains an entity."""
    return any(tag != "O" for sentence in sentences for tag in sentence)
