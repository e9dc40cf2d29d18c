"""Functions shared by the datasets of tagged sentences."""

from __future__ import annotations

from collections.abc import Sequence

from harness import IGNORED, DataError, RawInput, Split

INPUTS = {"words": RawInput(shape=(None,), dtype="str")}

Sentence = Sequence[tuple[str, str]]
"""Words with their tags: ``B-type`` for the first word of an entity, ``I-type`` for its remaining words, and ``O`` for
all other words."""


def label_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes for the given entity types: ``O``, followed by ``B-type`` and ``I-type`` for each
    type."""
    return ("O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI"))


def split(sentences: Sequence[Sentence], names: Sequence[str]) -> Split:
    """Build a split from tagged sentences.

    The input ``words`` is an object array ``[N]`` of tuples of str. The targets are int64 ``[N, W]`` and contain the
    class of each word. Positions after the last word of a sentence are `harness.IGNORED`.

    Raises `harness.DataError` if a tag is not in `names`, or if a sentence has no words.
    """
    import numpy as np

    numbers = {name: number for number, name in enumerate(names)}
    words = np.empty(len(sentences), object)
    targets = np.full((len(sentences), max(map(len, sentences), default=0)), IGNORED, np.int64)
    for row, sentence in enumerate(sentences):
        unknown = sorted({tag for _, tag in sentence} - numbers.keys())
        if unknown or not sentence:
            raise DataError(f"sentence {row} {f'has the unknown tag {unknown[0]!r}' if unknown else 'has no words'}")
        words[row] = tuple(word for word, _ in sentence)
        targets[row, : len(sentence)] = [numbers[tag] for _, tag in sentence]
    return Split(inputs={"words": words}, targets=targets)
