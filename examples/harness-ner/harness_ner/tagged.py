"""What datasets of tagged sentences share."""

from __future__ import annotations

from collections.abc import Sequence

from harness import IGNORED, DataError, RawInput, Split

INPUTS = {"words": RawInput(shape=(None,), dtype="str")}

Sentence = Sequence[tuple[str, str]]
"""Words with their tags: ``O``, or ``B-kind`` or ``I-kind`` for the first and the further words of an entity."""


def label_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """The classes of tagging entities of these kinds: ``O``, then ``B-`` and ``I-`` of each."""
    return ("O", *(f"{place}-{kind}" for kind in kinds for place in "BI"))


def split(sentences: Sequence[Sentence], names: Sequence[str]) -> Split:
    """Input ``words``: object array ``[N]`` of tuples of str. Targets: int64 ``[N, W]``, a class for each word,
    `harness.IGNORED` after a sentence's last.

    Raises `harness.DataError` for a tag that is none of `names`, and for a sentence without words.
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
