"""Checks for valid but unusual properties of prepared data that can make scores misleading."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.interfaces import PreparedData, Split
from harness.records import IGNORED, DataInfo, SplitInfo

Digests = NDArray[np.uint64]


REPEATED = 0.05
"""Maximum fraction of a split that may consist of duplicates of one example without a warning."""
CONSTANT = 0.01
"""Maximum fraction of a split that may consist of constant examples without a warning."""
CONTRADICTORY = 0.001
"""Maximum fraction of examples that may be identical to an example of another class without a warning. The limit
applies to datasets from plugins. In the user's own data, all identical examples with different classes are reported.
"""
MAJORITY = 0.8
"""Maximum fraction of test examples that may belong to the most frequent class without a warning."""


def described(data: PreparedData, contradictory: float = CONTRADICTORY) -> DataInfo:
    """Return the data description with added statistics for each split, and with a warning about each suspicious
    property.

    Identical examples with different classes are reported if their fraction of all examples exceeds `contradictory`.
    """
    digests = _digests(data)
    warnings = dict.fromkeys((*data.info.warnings, *suspicions(data, digests, contradictory)))
    facts = {
        "train" if name == "training" else name: SplitInfo(
            examples=len(split),
            classes=_class_counts(split.targets, data.info),
            repeated=len(split) - len(np.unique(digests[name])),
            shared=0 if name == "training" else int(np.isin(digests[name], digests["training"]).sum()),
        )
        for name, split in _splits(data).items()
    }
    return msgspec.structs.replace(data.info, warnings=tuple(warnings), splits=facts)


def _splits(data: PreparedData) -> dict[str, Split]:
    return {"training": data.train, "validation": data.validation, "test": data.test}


def _digests(data: PreparedData) -> dict[str, Digests]:
    return {name: row_digests(split) for name, split in _splits(data).items()}


def _class_counts(targets: NDArray[Any], info: DataInfo) -> tuple[int, ...]:
    if info.objective == "regression":
        return ()
    return tuple(np.bincount(targets[targets != IGNORED], minlength=info.outputs).tolist())


def suspicions(
    data: PreparedData, digests: dict[str, Digests] | None = None, contradictory: float = CONTRADICTORY
) -> list[str]:
    """Return a warning about each suspicious property of the prepared data.

    `digests` contains the digest of each example, keyed by split. Identical examples with different classes are
    reported if their fraction of all examples exceeds `contradictory`.
    """
    splits, digests = _splits(data), digests or _digests(data)
    found = _shared(digests)
    for name, split in splits.items():
        found += [*_repeated(name, digests[name], data.info), *_constant(name, split)]
    if data.info.objective == "classification":
        found += _contradictory(digests, {name: split.targets for name, split in splits.items()}, contradictory)
        found += majority(data.test.targets, data.info.label_names)
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
    """Return a warning for each evaluation split that contains examples of the training split."""
    found = []
    for name in ("validation", "test"):
        shared = int(np.isin(digests[name], digests["training"]).sum())
        if shared:
            found.append(
                f"{shared:,} of {len(digests[name]):,} {name} examples also occur in the training split after "
                "preparation, so a model can score well by memorizing them"
            )
    return found


def _contradictory(digests: dict[str, Digests], targets: dict[str, NDArray[Any]], limit: float) -> list[str]:
    """Return a warning if the fraction of examples that are equal to an example of another class exceeds `limit`."""
    inputs, classes = np.concatenate(list(digests.values())), np.concatenate(list(targets.values()))
    _, number = np.unique(inputs, return_inverse=True)
    low, high = np.full(number.max() + 1, np.iinfo(np.int64).max), np.full(number.max() + 1, -1)
    np.minimum.at(low, number, classes)
    np.maximum.at(high, number, classes)
    count = int((low < high)[number].sum())
    if count <= limit * len(inputs):
        return []
    return [f"{count:,} of {len(inputs):,} examples are identical to an example of another class after preparation"]


def _repeated(name: str, digests: Digests, info: DataInfo) -> list[str]:
    """Return a warning if duplicates of one example make up a large part of a split.

    In tables, duplicates are reported only if they form a majority, because examples are often equal when the features
    have few distinct values.
    """
    count = int(np.unique(digests, return_counts=True)[1].max())
    limit = 0.5 if info.kind == "features" else REPEATED
    if count < 3 or count <= limit * len(digests):
        return []
    return [
        f"{count:,} of {len(digests):,} {name} examples ({count / len(digests):.1%}) are identical after preparation"
    ]


def _constant(name: str, split: Split) -> list[str]:
    """Return a warning for each input that is constant in some examples, such as silence or a blank image.

    Only inputs with at least 16 numbers per example are checked, because fewer numbers may be equal by chance. Token
    ids are checked by the task, because their meaning depends on the task.
    """
    found = []
    for key, array in split.inputs.items():
        flat = np.asarray(array).reshape(len(split), -1)
        if flat.shape[1] < 16 or array.dtype.kind not in "fu":
            continue
        count = int((flat.max(axis=1) == flat.min(axis=1)).sum())
        if count > CONSTANT * len(split):
            found.append(
                f"in {count:,} of {len(split):,} {name} examples ({count / len(split):.1%}), all values of the "
                f"input {key!r} are equal, as in a blank image or a silent recording"
            )
    return found


def majority(targets: NDArray[Any], label_names: Sequence[str]) -> list[str]:
    """Return a warning if always predicting the same class would give a high score."""
    counts = np.bincount(targets)
    share = counts.max() / len(targets)
    if share <= MAJORITY:
        return []
    label = label_names[int(counts.argmax())] if label_names else str(int(counts.argmax()))
    return [
        f"{share:.1%} of the test examples belong to the class {label!r}, so always predicting this class "
        f"gives an accuracy of {share:.3f}; also compare f1_macro"
    ]
