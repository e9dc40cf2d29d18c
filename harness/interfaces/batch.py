"""`Batch`, the examples of one training step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.interfaces.data import Split
from harness.records import IGNORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Batch(NamedTuple):
    """Inputs and targets for one step, in host memory."""

    inputs: dict[str, Array]
    """C-contiguous arrays ``[B, ...]``, keyed by input name."""
    targets: Array
    """Targets. Targets are int64 ``[B]`` for classification, float32 ``[B, T]`` for regression, and int64 ``[B, L]``
    for token classification."""
    weight: float = 1.0
    """Weight of the mean loss of this batch. The weight is 1 except in a session with a `DeviceGroup`. In such a
    session, a `Batch` contains only the part of the whole batch that one process uses. The weight is then the number of
    targets in this part divided by the number of targets in the whole batch. The loss of the whole batch is the sum of
    the weighted losses of its parts."""
    example_weights: Array | None = None
    """Weight of each example ``[B]``, float32, or None. The loss of an example, or of each of its positions, is
    multiplied by the weight of the example before averaging. Only sessions of backends with `Backend.example_weights`
    receive weights."""
    teacher_logits: Array | None = None
    """Logits of the teacher in knowledge distillation (`Recipe.distillation_alpha`), in the order of `targets`. The
    logits are float32 ``[B, C]`` or, for token classification, ``[B, L, C]``. None without distillation."""
    validation: Split | None = None
    """Prepared validation split, for early stopping. The split is passed only to backends that fit the whole training
    split in one call (`Backend.trains_by_steps` is False)."""

    def parts(self, count: int) -> Iterator[tuple[Batch, float]]:
        """Split the batch for gradient accumulation.

        Parameters
        ----------
        count : int
            Number of parts. If `count` exceeds the number of examples, each part has one example.

        Yields
        ------
        part : Batch
            Consecutive examples. The sizes of the parts differ by at most one.
        share : float
            Fraction of the batch's loss terms that belong to this part. The sum of ``share * mean_loss(part)`` is the
            mean loss of the batch. For token classification, only positions with a target have a loss.
        """
        losses = self.targets != IGNORED if self.targets.dtype.kind == "i" and self.targets.ndim == 2 else None
        total = len(self.targets) if losses is None else int(losses.sum())
        for start, end in self.bounds(len(self.targets), count):
            inputs = {name: array[start:end] for name, array in self.inputs.items()}
            number = end - start if losses is None else int(losses[start:end].sum())
            weights = None if self.example_weights is None else self.example_weights[start:end]
            logits = None if self.teacher_logits is None else self.teacher_logits[start:end]
            yield Batch(inputs, self.targets[start:end], self.weight, weights, logits), number / total

    @staticmethod
    def bounds(examples: int, count: int) -> list[tuple[int, int]]:
        """Return the start and end positions of each part; see `parts`.

        Parameters
        ----------
        examples : int
            Number of examples in the batch.
        count : int
            Number of parts. If `count` exceeds the number of examples, each part has one example.

        Returns
        -------
        list of tuple of int
            Start (inclusive) and end (exclusive) of each part.
        """
        count = min(count, examples)
        ends = [(number + 1) * (examples // count) + min(number + 1, examples % count) for number in range(count)]
        return list(zip([0, *ends], ends, strict=False))
