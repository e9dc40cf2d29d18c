"""Checks of prepared data for content that is valid but makes scores misleading."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.interfaces import PreparedData, Split

Digests = NDArray[np.uint64]


def suspicions(data: PreparedData) -> list[str]:
    """Return a sentence about each suspicious property of the prepared data."""
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    digests = {name: row_digests(split) for name, split in splits.items()}
    found = _shared(digests)
    if data.info.objective == "classification":
        found += _contradictory(digests, {name: split.targets for name, split in splits.items()})
    return found


def row_digests(split: Split) -> Digests:
    """Return a digest of the inputs of each example, uint64 ``[N]``."""
    arrays = [np.ascontiguousarray(split.inputs[name]) for name in sorted(split.inputs)]
    return np.array([_digest(arrays, row) for row in range(len(split))], np.uint64)


def _digest(arrays: list[NDArray[Any]], row: int) -> int:
    total = hashlib.blake2b(digest_size=8)
    for array in arrays:
        total.update(array[row : row + 1].tobytes())
    return int.from_bytes(total.digest())


def _shared(digests: dict[str, Digests]) -> list[str]:
    """Return a sentence about each evaluation split with examples that also occur in the training split."""
    found = []
    for name in ("validation", "test"):
        shared = int(np.isin(digests[name], digests["training"]).sum())
        if shared:
            found.append(
                f"{shared:,} of {len(digests[name]):,} {name} examples also occur in the training split after "
                "preparation, so that the score rewards memorizing them"
            )
    return found


def _contradictory(digests: dict[str, Digests], targets: dict[str, NDArray[Any]]) -> list[str]:
    """Return a sentence if there are examples with equal inputs and different classes."""
    inputs, classes = np.concatenate(list(digests.values())), np.concatenate(list(targets.values()))
    _, number = np.unique(inputs, return_inverse=True)
    low, high = np.full(number.max() + 1, np.iinfo(np.int64).max), np.full(number.max() + 1, -1)
    np.minimum.at(low, number, classes)
    np.maximum.at(high, number, classes)
    count = int((low < high)[number].sum())
    if not count:
        return []
    return [f"{count:,} of {len(inputs):,} examples are equal to an example of another class after preparation"]
