"""A session that answers queries for samples of the test split."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.interfaces import Session, Split

WARMUP = 3
MAX_IN_FLIGHT = 16
"""Maximum number of batches to submit before fetching outputs."""


class Service:
    """A service that computes the outputs for samples with given indices, in batches of `batch_size`.

    By default, all batches have the size `batch_size`, so that the model is compiled only once. If `sizes` is given,
    each batch has one of these sizes. Incomplete batches are padded with copies of their last sample.
    """

    def __init__(
        self, session: Session, split: Split, batch_size: int, most_samples: int, sizes: Sequence[int] = ()
    ) -> None:
        self.batch_size, self._sizes = batch_size, sizes or [batch_size]
        self.samples = min(len(split), most_samples)
        self._session = session
        # Load the samples into memory in advance, as LoadGen's sample library requires.
        self._inputs = {name: np.ascontiguousarray(array[: self.samples]) for name, array in split.inputs.items()}
        for size in self._sizes:
            for _ in range(WARMUP):
                self.answer([0] * size)

    def answer(self, samples: Sequence[int]) -> None:
        """Compute the outputs for the samples with these indices, including transfers to and from the host."""
        size = self.batch_size
        in_flight: deque[Any] = deque()
        with self._session.inference():
            for start in range(0, len(samples), size):
                part = np.asarray(samples[start : start + size])
                padded = next(known for known in self._sizes if known >= len(part))
                if len(part) < padded:
                    part = np.concatenate([part, np.repeat(part[-1:], padded - len(part))])
                in_flight.append(self._session.predict({name: array[part] for name, array in self._inputs.items()}))
                if len(in_flight) > MAX_IN_FLIGHT:
                    self._session.fetch(in_flight.popleft())
            while in_flight:
                self._session.fetch(in_flight.popleft())
