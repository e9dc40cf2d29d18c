"""The processes that train a model together, as seen by the process that measures."""

from __future__ import annotations


class Group:
    """A group of one process. A subclass adds other processes, each of which computes a part of every batch."""

    rank = 0
    """Number of this process, from 0."""
    size = 1
    """Number of processes."""

    def step(self, epoch: int, index: int, learning_rate: float) -> None:
        """Make the other processes take the training step on batch number `index`, from 0, of an epoch, from 1."""
