"""Prediction of the moving average of the weights, as defined by `harness.Recipe`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.checks.parity.distance import Sample
from harness.interfaces import Session
from harness.measure.selection import average_weight
from harness.records import Recipe

Array = NDArray[np.float64]


class MovingAverage:
    """Moving average of a session's weights in float64, for comparison with the session's own average.

    Instead of being updated recursively, the average is computed as the weighted mean over the steps t = 1, ..., T,
    with the weights ``(1 - d) d^(T - t) / (1 - d^T)``.
    """

    def __init__(self, session: Session, recipe: Recipe, sample: Sample) -> None:
        assert recipe.ema_decay is not None
        self._session, self._decay, self._sample = session, recipe.ema_decay, sample
        self._sums: dict[str, Array] = {}
        self._steps = 0

    def update(self) -> None:
        """Update the session's average as in a run, and update the predicted average."""
        self._steps += 1
        self._session.update_average(average_weight(self._decay, self._steps))
        for name, weights in self._sample.of(self._session.get_weights()).items():
            self._sums[name] = self._decay * self._sums.get(name, 0.0) + weights

    def arrays(self) -> dict[str, Array]:
        """Return the array ``average``, ``[2, P]``; see `harness.checks.parity.replay.Replay.arrays`."""
        if not self._steps:
            return {}
        total = sum(self._decay**age for age in range(self._steps))
        weights = self._sample.of(self._session.get_weights())
        with self._session.averaged():
            actual = self._sample.of(self._session.get_weights())
        expected = {name: array / total for name, array in self._sums.items()}
        errors = [float(np.linalg.norm(actual[name] - expected[name])) for name in weights]
        sizes = [float(np.linalg.norm(weights[name] - expected[name])) for name in weights]
        return {"average": np.array([errors, sizes])}
