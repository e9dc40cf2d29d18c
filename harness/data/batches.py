"""Batches that are identical for every backend. The order of the batches depends only on the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import PluginError
from harness.interfaces import Batch, Split
from harness.records import IGNORED

if TYPE_CHECKING:
    from harness.interfaces.data import Augment


class Part(NamedTuple):
    """One of several contiguous parts of a batch. Each part is processed by the process with the same rank."""

    rank: int
    parts: int

    def rows(self, size: int) -> slice:
        """Return the rows of a batch of `size` examples that belong to this part.

        If `size` is not a multiple of the number of parts, each of the first parts has one more example than the
        remaining parts.
        """
        each, more = divmod(size, self.parts)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def weight(self, targets: NDArray[Any]) -> float:
        """Return the fraction of a batch's targets ``[B, ...]`` that belong to this part. Ignored targets are not
        counted.
        """
        if self.parts == 1:
            return 1.0
        counted = targets != IGNORED if targets.ndim > 1 and targets.dtype.kind == "i" else np.ones(len(targets))
        return float(counted[self.rows(len(targets))].sum() / counted.sum())


WHOLE = Part(0, 1)
"""The whole batch."""


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Return the number of full batches per epoch, or 1 if there are fewer than `batch_size` examples."""
    return max(1, examples // batch_size)


def training_batches(
    split: Split,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: Augment | None = None,
    part: Part = WHOLE,
    validation: Split | None = None,
) -> Iterator[Batch]:
    """Yield the batches of one epoch. Shuffling and augmentation depend only on `seed` and `epoch`.

    Batches have a fixed size, so backends compile the model only once. Remaining examples that do not fill a batch are
    dropped from the epoch. Only the given part of each batch is yielded, together with its `Batch.weight`. Each batch
    contains `validation`. Raises `harness.PluginError` if `augment` changes a shape or dtype.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(split))
    rng = np.random.default_rng([seed, epoch, 1])
    size = min(batch_size, len(split))
    rows = part.rows(size)
    for step in range(steps_per_epoch(len(split), batch_size)):
        index = order[step * size : (step + 1) * size]
        targets = split.targets[index]
        # The whole batch is augmented, because its examples share one stream of random numbers.
        used = index if augment is not None else index[rows]
        inputs = {name: np.ascontiguousarray(array[used]) for name, array in split.inputs.items()}
        if augment is not None:
            inputs = _augmented(inputs, augment, rng)
            if part.parts > 1:
                inputs = {name: np.ascontiguousarray(array[rows]) for name, array in inputs.items()}
        weights = None if split.weights is None else split.weights[index[rows]]
        logits = None if split.teacher_logits is None else np.ascontiguousarray(split.teacher_logits[index[rows]])
        share = part.weight(targets)
        yield Batch(inputs, np.ascontiguousarray(targets[rows]), share, weights, logits, validation)


def _augmented(inputs: dict[str, NDArray[Any]], augment: Augment, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    before = {name: (array.shape, array.dtype) for name, array in inputs.items()}
    changed = {name: np.ascontiguousarray(array) for name, array in augment(inputs, rng).items()}
    after = {name: (array.shape, array.dtype) for name, array in changed.items()}
    if after != before:
        raise PluginError(
            f"the augment method of the task changed {before} to {after}; it must keep all shapes and dtypes"
        )
    return changed


def output_shape(targets: NDArray[Any], examples: int, outputs: int) -> tuple[int, ...]:
    """Return the shape of the predictions: ``[examples, outputs]`` or, for token classification with int64 targets
    ``[N, L]``, ``[examples, L, outputs]``.
    """
    positions = targets.shape[1:] if targets.dtype.kind == "i" else ()
    return (examples, *positions, outputs)


def inference_batches(split: Split, batch_size: int) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
    """Yield (inputs, valid) for each batch of the split, in the order in which the examples are stored.

    Each batch has `batch_size` examples. The last batch is padded by repeating its last example, so use only the first
    `valid` examples of each batch.
    """
    whole = len(split) // batch_size * batch_size
    for start in range(0, whole, batch_size):
        end = start + batch_size
        yield {name: np.ascontiguousarray(array[start:end]) for name, array in split.inputs.items()}, batch_size
    valid = len(split) - whole
    if valid:
        rest = {name: np.asarray(array[whole:]) for name, array in split.inputs.items()}
        filler = {name: np.repeat(array[-1:], batch_size - valid, axis=0) for name, array in rest.items()}
        yield {name: np.concatenate([array, filler[name]]) for name, array in rest.items()}, valid


def batch_sizes(largest: int) -> list[int]:
    """Return the sizes 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on below `largest`, followed by `largest`.

    The sizes are the powers of two and the numbers halfway between them. With these sizes, less than a third of an
    incomplete batch is padding, and frameworks compile the model for only a few sizes.
    """
    powers = [1 << power for power in range(largest.bit_length())]
    return sorted({size for power in powers for size in (power, 3 * power // 2) if size < largest} | {largest})
