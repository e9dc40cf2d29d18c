"""Calls to metric functions with read-only arrays, and checks of the returned values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from harness.errors import BadResultError, HarnessError, PluginError
from harness.interfaces import Metric
from harness.plugins import resolve
from harness.plugins.failures import described_with_place
from harness.records import DataInfo, MetricInfo
from harness.records.arrays import read_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Function = Callable[["Array", "Array", DataInfo], "float | None"]
PerExample = Callable[["Array", "Array", DataInfo], "Array"]

MEAN_TOLERANCE = 1e-4
"""Maximum difference between a metric and the mean of its per-example values due to rounding in float32, relative to
the mean absolute value."""
ROUNDING = 1e-6
"""Amount by which the value of a metric may exceed its bounds because of rounding errors in float32."""


class Stream(Protocol):
    """The object that computes a streaming metric."""

    def update(self, targets: Array, outputs: Array) -> None:
        """Add a batch of examples."""

    def compute(self) -> float | None:
        """Return the value for all batches, or None if the metric is undefined."""


def located(metric: Metric, reference: str) -> Callable[..., Any]:
    """Import and return a function of a metric. Raises `harness.PluginError` with the name of the metric if the
    function cannot be imported."""
    try:
        return resolve(reference)
    except PluginError as error:
        raise PluginError(f"the metric {metric.name!r}: {error}") from error


def function_of(metric: Metric) -> Function:
    """Return the function of a metric. For a streaming metric, the function adds all examples as a single batch.

    Raises `harness.PluginError` if the function cannot be imported.
    """
    function = located(metric, metric.function)
    if not metric.streaming:
        return function

    def whole(targets: Array, outputs: Array, info: DataInfo) -> float | None:
        stream: Stream = function(info)
        stream.update(targets, outputs)
        return stream.compute()

    return whole


@contextmanager
def named_failures(subject: str) -> Iterator[None]:
    """Raise `harness.PluginError` if the function of a metric raises an exception. `subject` names the metric."""
    try:
        yield
    except (HarnessError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        advice = "; copy the arrays before changing them" if "read-only" in str(error) else ""
        raise PluginError(f"{subject} failed: {described_with_place(error)}{advice}") from error


def check_info(name: str, info: DataInfo, before: bytes) -> None:
    """Raise `harness.PluginError` if a metric changed `info`, whose JSON encoding was `before`."""
    if msgspec.json.encode(info) != before:
        raise PluginError(f"the metric {name!r} changed the description of the data, which is stored in records")


def call(
    name: str, function: Function, declared: MetricInfo, targets: Array, outputs: Array, data: DataInfo
) -> float | None:
    """Call a metric function with read-only arrays, and return its value as a float.

    Return None if the metric is undefined.

    Raises `harness.PluginError` if the function raises an exception or returns anything other than a number or None.
    Raises `harness.BadResultError` if the number is not finite or is outside the bounds of the metric.
    """
    with named_failures(f"the metric {name!r}"):
        value = function(read_only(targets), read_only(outputs), data)
    return checked(name, value, declared.bounds)


def values_of(
    name: str,
    function: PerExample,
    bounds: tuple[float | None, float | None],
    targets: Array,
    outputs: Array,
    data: DataInfo,
    *,
    mean: float | None = None,
) -> Array:
    """Call the function of `Metric.per_example` with read-only arrays, and return its values as float64 ``[N]``.

    Raises `harness.PluginError` if the function raises an exception, or if it does not return one finite number within
    `bounds` for each example. The error is also raised if the mean of the returned values differs from the metric's
    value (`mean`).
    """
    import numpy as np

    subject = f"the function per_example of the metric {name!r}"
    with named_failures(subject):
        values = np.asarray(function(read_only(targets), read_only(outputs), data), np.float64)
    if values.shape != (len(targets),):
        raise PluginError(f"{subject} returned an array of shape {values.shape}, expected ({len(targets)},)")
    if not np.isfinite(values).all():
        raise PluginError(f"{subject} returned values that are not finite")
    checked(name, float(values.min()), bounds)
    checked(name, float(values.max()), bounds)
    if mean is not None:
        check_mean(name, values, bounds, mean)
    return values


def check_mean(name: str, values: Array, bounds: tuple[float | None, float | None], mean: float) -> None:
    """Raise `harness.PluginError` if the mean of the per-example values differs from `mean`, the value of the
    metric."""
    average = float(values.mean())
    if abs(average - mean) > _mean_tolerance(values, bounds):
        raise PluginError(
            f"the function per_example of the metric {name!r} returned values with the mean {average:.6g}, but the "
            f"metric is {mean:.6g}; return values whose mean equals the metric, or omit per_example"
        )


def _mean_tolerance(values: Array, bounds: tuple[float | None, float | None]) -> float:
    """Return the largest difference that rounding can cause between a metric and the mean of its per-example values."""
    low, high = bounds
    # A function may compute the metric from numbers as large as its range, such as 1 - error.
    in_range = 0.0 if low is None or high is None else ROUNDING * (high - low)
    return max(MEAN_TOLERANCE * float(abs(values).mean()), in_range)


def checked(
    name: str, value: Any, bounds: tuple[float | None, float | None], rounding: float = ROUNDING
) -> float | None:
    """Return the value of a metric as a float, or None if the metric is undefined. Raises the same errors as `call`."""
    import numpy as np

    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise PluginError(
            f"the metric {name!r} returned a value of type {type(value).__name__}; it must return a float, or None if "
            f"it is undefined"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except Exception as error:  # a subclass of int or float may define its own conversion
        raise PluginError(f"the value of the metric {name!r} is not a number: {described_with_place(error)}") from error
    if not math.isfinite(number):
        raise BadResultError(f"the metric {name!r} is {number}; an undefined metric must return None")
    low, high = bounds
    if (low is not None and number < low - rounding) or (high is not None and number > high + rounding):
        raise BadResultError(
            f"the metric {name!r} is {number:.6g}, outside its declared bounds {shown_bounds(bounds)}; fix the metric "
            "or its bounds"
        )
    return number


def shown_bounds(bounds: tuple[float | None, float | None]) -> str:
    """Format bounds as text, such as ``0 to 1`` or ``at least 0``."""
    low, high = bounds
    if high is None:
        return "none" if low is None else f"at least {low:g}"
    return f"at most {high:g}" if low is None else f"{low:g} to {high:g}"
