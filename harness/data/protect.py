"""Protection of arrays against changes by plugins. The splits are read-only, and a check detects changes to the
prepared data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.errors import PluginError
from harness.interfaces import PreparedData, RawData, Split
from harness.records.arrays import digest, read_only


def read_only_split(split: Split) -> Split:
    """Return the split with read-only views of its arrays. The elements of object arrays are not protected."""
    return Split(
        inputs={name: _protected(array) for name, array in split.inputs.items()},
        targets=_protected(split.targets),
        groups={name: _protected(array) for name, array in split.groups.items()},
        rows=split.rows,
        teacher_logits=split.teacher_logits,
        weights=None if split.weights is None else _protected(split.weights),
    )


def read_only_raw(data: RawData) -> RawData:
    """Return the raw data with read-only views of its arrays."""
    train, validation, test = map(read_only_split, (data.train, data.validation, data.test))
    return dataclasses.replace(data, train=train, validation=validation, test=test)


def writable(data: PreparedData) -> PreparedData:
    """Return the prepared data with writable arrays, even if the task returned read-only arrays.

    Backends receive views of the prepared inputs, and some frameworks warn about read-only arrays.
    """

    def restored(split: Split) -> Split:
        inputs = {name: _writable(array) for name, array in split.inputs.items()}
        return dataclasses.replace(split, inputs=inputs, targets=_writable(split.targets))

    train, validation, test = map(restored, (data.train, data.validation, data.test))
    return dataclasses.replace(data, train=train, validation=validation, test=test)


class Unchanged:
    """Digests of the prepared arrays in memory, and of their description. The digests are compared at the end of a run,
    to detect plugins that change the data.
    """

    def __init__(self, data: PreparedData) -> None:
        self._digests = dict(_digests(data))
        self._info = msgspec.json.encode(data.info)

    def check(self, data: PreparedData, backend: str) -> None:
        """Raise `harness.PluginError` if an array or the description has changed."""
        if msgspec.json.encode(data.info) != self._info:
            raise PluginError(
                "the description of the data (DataInfo) changed during the run, so the results are not valid; the "
                f"model, the task and backend {backend!r} must copy the description before changing it"
            )
        for name, current in _digests(data):
            if current != self._digests[name]:
                raise PluginError(
                    f"the {name} changed during the run, so the results are not valid; a session of backend "
                    f"{backend!r} must copy its inputs before changing them"
                )


def _digests(data: PreparedData) -> Iterator[tuple[str, str]]:
    for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        arrays = {f"{name} input {key!r}": array for key, array in split.inputs.items()}
        arrays[f"{name} targets"] = split.targets
        if split.weights is not None:
            arrays[f"{name} weights"] = split.weights
        if split.teacher_logits is not None:
            arrays[f"{name} teacher logits"] = split.teacher_logits
        for described, array in arrays.items():
            if isinstance(array, np.ndarray) and not isinstance(array, np.memmap):  # other arrays are read from files
                yield described, digest({"": array})


def _protected(array: Any) -> Any:
    return read_only(array) if isinstance(array, np.ndarray) else array


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, memoryview) or array.flags.writeable:
        return array
    original = base.obj
    if isinstance(original, np.ndarray) and original.__array_interface__ == _interface(array, original):
        return original
    return array.copy()


def _interface(array: NDArray[Any], original: NDArray[Any]) -> dict[str, Any]:
    """Return the array interface of `array`. The result is writable if `original` is writable."""
    interface = array.__array_interface__
    return interface | {"data": (interface["data"][0], original.__array_interface__["data"][1])}
