"""Group of processes that train a model together, as seen by the process that measures the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Group:
    """A group that consists of a single process.

    Subclasses add more processes. Each process computes a part of every batch.
    """

    rank = 0
    """Rank of this process, counted from 0."""
    size = 1
    """Number of processes."""

    def step(self, epoch: int, index: int, learning_rate: float) -> None:
        """Make the other processes execute the training step on batch `index` of epoch `epoch`.

        Batches are numbered from 0, and epochs from 1.
        """

    def check(self, weights: Mapping[str, Any]) -> None:
        """Raise `harness.BadResultError` if the weights of another process differ from `weights`.

        `weights` contains the weights of this process after training.
        """
