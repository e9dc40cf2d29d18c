"""Metrics that are computed batch by batch, so that the outputs of a whole split are never held in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from harness.measure.quality.call import (
    PerExample,
    Stream,
    check_info,
    check_mean,
    checked,
    named_failures,
    values_of,
)
from harness.records import DataInfo, MetricInfo, SliceScore
from harness.records.arrays import read_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

StreamFactory = Callable[[DataInfo], Stream]


@dataclass(frozen=True)
class Streamed:
    """Scores of a split whose outputs were not kept in memory."""

    values: dict[str, float | None]
    """Value of each metric, keyed by metric name."""
    slices: list[SliceScore]
    per_example: dict[str, Array]
    """Per-example values, float64 ``[N]``, keyed by metric name. Only metrics with `harness.Metric.per_example` are
    included."""


class StreamedMetric:
    """A streaming metric of one split or slice."""

    def __init__(
        self,
        name: str,
        factory: StreamFactory,
        declared: MetricInfo,
        info: DataInfo,
        announce: Callable[[str], None],
        per_example: PerExample | None = None,
    ) -> None:
        self._name, self._declared, self._info = name, declared, info
        self._announce, self._per_example = announce, per_example
        self._values: list[Array] = []
        with self._called():
            self._stream = factory(info)

    @contextmanager
    def _called(self) -> Iterator[None]:
        """Report the metric to `announce`, and raise `harness.PluginError` if it fails or changes the description of
        the data."""
        before = msgspec.json.encode(self._info)
        self._announce(self._name)
        with named_failures(f"the metric {self._name!r}"):
            yield
        check_info(self._name, self._info, before)
        self._announce("")

    def update(self, targets: Array, outputs: Array) -> None:
        """Add a batch. The metric receives read-only arrays. Raises `harness.PluginError` if the metric fails."""
        with self._called():
            self._stream.update(read_only(targets), read_only(outputs))
            if self._per_example is not None:
                bounds = self._declared.bounds
                self._values.append(values_of(self._name, self._per_example, bounds, targets, outputs, self._info))

    def compute(self) -> float | None:
        """Return the value for all batches, after the same checks as for other metrics."""
        with self._called():
            value = self._stream.compute()
        return checked(self._name, value, self._declared.bounds)

    def values(self, mean: float | None) -> Array | None:
        """Return the values of all examples, or None if the values are not known. `mean` is the value of the metric."""
        import numpy as np

        if mean is None or not self._values:
            return None
        values = np.concatenate(self._values)
        check_mean(self._name, values, self._declared.bounds, mean)
        return values


class SlicedMetric:
    """The primary metric, computed for each slice of a split."""

    def __init__(self, groups: Mapping[str, Array], new: Callable[[], StreamedMetric]) -> None:
        from harness.measure.quality.slices import slices

        self._parts = [(one, new()) for one in slices(groups)]
        self._start = 0

    def update(self, targets: Array, outputs: Array) -> None:
        """Add the examples of a batch to their slices. Batches contain consecutive examples."""
        end = self._start + len(targets)
        for one, metric in self._parts:
            members = one.members[self._start : end]
            if members.any():
                metric.update(targets[members], outputs[members])
        self._start = end

    def scores(self) -> list[SliceScore]:
        """Return the score of each slice."""
        return [
            SliceScore(group=one.group, value=one.value, support=int(one.members.sum()), score=metric.compute())
            for one, metric in self._parts
        ]


def streamed(metrics: Mapping[str, StreamedMetric], parts: SlicedMetric | None) -> Streamed:
    """Return the scores after the last batch."""
    values = {name: metric.compute() for name, metric in metrics.items()}
    each = {name: metric.values(values[name]) for name, metric in metrics.items()}
    known = {name: found for name, found in each.items() if found is not None}
    return Streamed(values, [] if parts is None else parts.scores(), known)


def update_all(receivers: Sequence[StreamedMetric | SlicedMetric], targets: Array, outputs: Array) -> None:
    """Pass a batch to each receiver."""
    for receiver in receivers:
        receiver.update(targets, outputs)
