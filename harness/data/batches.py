"""Batches: the same for every backend, in the same order, drawn from (seed, epoch) by numpy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import PluginError
from harness.interfaces import Batch, Split

if TYPE_CHECKING:
    from harness.interfaces.data import Augment


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Whole batches in an epoch; one batch of everything where there are fewer examples than `batch_size`."""
    return max(1, examples // batch_size)


def training_batches(
    split: Split, batch_size: int, seed: int, epoch: int, augment: Augment | None = None
) -> Iterator[Batch]:
    """One epoch in an order drawn from (seed, epoch), each batch changed by `augment` with numbers drawn from them too.

    All batches have one size, so that no backend compiles twice: the examples that do not fill the last batch wait
    for another epoch's order. Raises `harness.PluginError` where `augment` changes a shape or dtype.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(split))
    chance = np.random.default_rng([seed, epoch, 1])
    size = min(batch_size, len(split))
    for step in range(steps_per_epoch(len(split), batch_size)):
        index = order[step * size : (step + 1) * size]
        inputs = {name: np.ascontiguousarray(array[index]) for name, array in split.inputs.items()}
        if augment is not None:
            inputs = _augmented(inputs, augment, chance)
        yield Batch(inputs, np.ascontiguousarray(split.targets[index]))


def _augmented(
    inputs: dict[str, NDArray[Any]], augment: Augment, chance: np.random.Generator
) -> dict[str, NDArray[Any]]:
    forms = {name: (array.shape, array.dtype) for name, array in inputs.items()}
    changed = {name: np.ascontiguousarray(array) for name, array in augment(inputs, chance).items()}
    found = {name: (array.shape, array.dtype) for name, array in changed.items()}
    if found != forms:
        raise PluginError(f"the task's augment made {found} of {forms}; shapes and dtypes must stay")
    return changed


def output_shape(targets: NDArray[Any], examples: int, outputs: int) -> tuple[int, ...]:
    """Of predictions for so many examples of data with such targets: ``[examples, outputs]``, or with classes for each
    of L positions, targets being int64 ``[N, L]``, ``[examples, L, outputs]``."""
    positions = targets.shape[1:] if targets.dtype.kind == "i" else ()
    return (examples, *positions, outputs)


def inference_batches(split: Split, batch_size: int) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
    """The split in its own order, as (inputs, valid): each of `batch_size` examples, of which the first `valid`
    count; the last batch is filled up by repeating its last example."""
    whole = len(split) // batch_size * batch_size
    for start in range(0, whole, batch_size):
        end = start + batch_size
        yield {name: np.ascontiguousarray(array[start:end]) for name, array in split.inputs.items()}, batch_size
    valid = len(split) - whole
    if valid:
        rest = {name: np.asarray(array[whole:]) for name, array in split.inputs.items()}
        filler = {name: np.repeat(array[-1:], batch_size - valid, axis=0) for name, array in rest.items()}
        yield {name: np.concatenate([array, filler[name]]) for name, array in rest.items()}, valid
