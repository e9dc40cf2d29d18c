"""Scores of tagged sentences: over whole entities, as at CoNLL, and over words.

The entities that tags stand for are those of ``conlleval`` (Tjong Kim Sang and De Meulder 2003, section 2.3) and of
seqeval's default mode: an entity begins with ``B-``, and also with an ``I-`` that no entity of its type goes on
with, so that whatever is predicted stands for some entities. An entity is right if its type and both ends are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import IGNORED, DataInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Entity(NamedTuple):
    kind: str
    first: int
    last: int
    """Places of its first and last word in the sentence."""


def entities(tags: Sequence[str]) -> Iterator[Entity]:
    """Of one sentence's tags: ``O``, ``B-kind`` or ``I-kind``."""
    kind, first = "", 0  # of the entity that is open; none where `kind` is empty
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, tagged = tag.partition("-")
        if prefix == "I" and tagged == kind:
            continue
        if kind:
            yield Entity(kind, first, place - 1)
        kind, first = tagged, place


class Counts(NamedTuple):
    right: int
    predicted: int
    true: int


def count(targets: Array, outputs: Array, names: Sequence[str]) -> Counts:
    """Entities in sentences: `targets` int64 ``[N, L]``, `IGNORED` where no word begins; `outputs` logits
    ``[N, L, C]``; `names` the tag of each of the C classes."""
    right = predicted = true = 0
    for wanted, said in zip(targets, outputs.argmax(axis=-1), strict=True):
        words = wanted != IGNORED
        ours = set(entities([names[number] for number in wanted[words]]))
        theirs = set(entities([names[number] for number in said[words]]))
        right, predicted, true = right + len(ours & theirs), predicted + len(theirs), true + len(ours)
    return Counts(right, predicted, true)


def entity_f1(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """None where there are no entities, true or predicted."""
    counts = count(targets, outputs, info.label_names)
    return _share(2 * counts.right, counts.predicted + counts.true)


def entity_precision(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """0 where entities are there and none is predicted, as seqeval has it; None where there are none at all."""
    counts = count(targets, outputs, info.label_names)
    return _share(counts.right, counts.predicted or counts.true)


def entity_recall(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """None where there are no true entities."""
    counts = count(targets, outputs, info.label_names)
    return _share(counts.right, counts.true)


def token_accuracy(targets: Array, outputs: Array, info: DataInfo) -> float:
    words = targets != IGNORED
    return float((outputs.argmax(axis=-1) == targets)[words].mean())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
