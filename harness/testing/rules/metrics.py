"""Rules for metrics. Metrics are checked with synthetic predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from harness.errors import BadResultError, PluginError
from harness.interfaces import Metric
from harness.measure.quality.call import Stream, checked, function_of, values_of
from harness.plugins import resolve
from harness.records import IGNORED, DataInfo
from harness.testing.rule import Broken, Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def info_for(metric: Metric, outputs: int = 3) -> DataInfo:
    """Return the `DataInfo` for the synthetic predictions."""
    names: tuple[str, ...] = ()
    if metric.objective == "token_classification":  # Span metrics parse label names in the BIO scheme.
        names = ("O", *(f"{place}-{kind}" for kind in range(outputs) for place in "BI"))[:outputs]
    return DataInfo(kind="", inputs={}, objective=metric.objective, outputs=outputs, label_names=names)


def synthetic(metric: Metric) -> Iterator[tuple[str, Array, Array]]:
    """Yield (description, targets, outputs), with perfect predictions first."""
    import numpy as np

    rng = np.random.default_rng(0)
    cases: dict[str, Array]
    if metric.objective == "regression":
        targets = rng.normal(10, 5, (60, 3))
        cases = {"perfect": targets, "near": targets + rng.normal(0, 1, targets.shape), "wrong": -3 * targets}
    elif metric.objective == "token_classification":
        # 20 examples with eight positions each. In every second example, the last three positions are ignored.
        targets = np.tile(np.array([0, 1, 2, 2, 0, 1, 1, 2]), (20, 1))
        targets[::2, 5:] = IGNORED
        right = np.eye(3, dtype=np.float32)[np.maximum(targets, 0)] * 9
        cases = {"perfect": right, "random": rng.normal(size=right.shape), "wrong": np.roll(right, 1, axis=-1)}
        cases["single-class"] = np.tile(np.array([5, 0, 0], np.float32), (20, 8, 1))
    else:
        targets = np.repeat(np.arange(3), 20)
        right = np.eye(3, dtype=np.float32)[targets] * 9
        cases = {"perfect": right, "random": rng.normal(size=right.shape), "wrong": np.roll(right, 1, axis=1)}
        cases["single-class"] = np.tile(np.array([5, 0, 0], np.float32), (60, 1))
    for name, outputs in cases.items():
        yield name, targets, outputs


def _value(metric: Metric, name: str, targets: Array, outputs: Array) -> float | None:
    """Return the value of the metric for the predictions called `name`.

    The metric is computed on copies of the arrays, so that a metric that modifies its arguments does not also violate
    other rules. Raises `Broken` if the metric does not return a number or None. All rules use the same message, so that
    the error is reported only once.
    """
    value = function_of(metric)(targets.copy(), outputs.copy(), info_for(metric))
    try:
        return checked(metric.name, value, (None, None))
    except (PluginError, BadResultError) as error:  # In a run, these exceptions are recorded as failures.
        raise Broken(f"for {name} predictions: {error}") from None


def _resolves(metric: Metric) -> None:
    if not callable(resolve(metric.function)):
        raise Broken(f"{metric.function} is not a function")


def _returns_numbers(metric: Metric) -> None:
    for name, targets, outputs in synthetic(metric):
        _value(metric, name, targets, outputs)


def _stays_within_bounds(metric: Metric) -> None:
    for name, targets, outputs in synthetic(metric):
        try:
            checked(metric.name, _value(metric, name, targets, outputs), metric.bounds, rounding=1e-9)
        except BadResultError as error:
            raise Broken(f"for {name} predictions: {error}") from None


def _prefers_correct_predictions(metric: Metric) -> None:
    values = {name: _value(metric, name, t, o) for name, t, o in synthetic(metric)}
    perfect, wrong = values["perfect"], values["wrong"]
    if perfect is None or wrong is None:
        raise Broken("the metric is undefined for perfect or wrong predictions, although the classes are balanced")
    if (perfect < wrong) if metric.higher_is_better else (perfect > wrong):
        better = "higher" if metric.higher_is_better else "lower"
        raise Broken(
            f"{better} values are declared to be better, but the value is {perfect:.6g} for perfect predictions "
            f"and {wrong:.6g} for wrong predictions"
        )


def _ignores_the_order(metric: Metric) -> None:
    import numpy as np

    for name, targets, outputs in synthetic(metric):
        order = np.random.default_rng(1).permutation(len(targets))
        one, other = (_value(metric, name, t, o) for t, o in ((targets, outputs), (targets[order], outputs[order])))
        if one != other and (one is None or other is None or abs(one - other) > 1e-9 * max(1, abs(one))):
            raise Broken(f"reordering the {name} predictions and their targets changes the value from {one} to {other}")


def _modifies_nothing(metric: Metric) -> None:
    import numpy as np

    function = function_of(metric)
    for name, targets, outputs in synthetic(metric):
        before = targets.copy(), outputs.copy()
        function(targets, outputs, info_for(metric))
        if not (np.array_equal(before[0], targets) and np.array_equal(before[1], outputs)):
            raise Broken(f"the function modified its arguments when called with {name} predictions")


def _adds_up_batches(metric: Metric) -> None:
    if not metric.streaming:
        return
    factory: Callable[[DataInfo], Stream] = resolve(metric.function)
    for name, targets, outputs in synthetic(metric):
        whole = _value(metric, name, targets, outputs)
        stream = factory(info_for(metric))
        for batch in (slice(0, 7), slice(7, 8), slice(8, None)):
            stream.update(targets[batch].copy(), outputs[batch].copy())
        value = stream.compute()
        if value != whole and (value is None or whole is None or abs(value - whole) > 1e-6 * max(1, abs(whole))):
            raise Broken(f"the value for {name} predictions is {whole} in one batch and {value} in three batches")


def _is_the_mean_of_its_values(metric: Metric) -> None:
    if not metric.per_example:
        return
    function = resolve(metric.per_example)
    for name, targets, outputs in synthetic(metric):
        value = _value(metric, name, targets, outputs)
        try:
            values_of(metric.name, function, metric.bounds, targets, outputs, info_for(metric), mean=value)
        except (PluginError, BadResultError) as error:
            raise Broken(f"for {name} predictions: {error}") from None


METRIC_RULES: tuple[Rule[Metric], ...] = (
    Rule("metric-resolves", "The function can be imported.", 'set function to "module:callable"', _resolves),
    Rule(
        "metric-returns-numbers",
        "The function returns one number, or None if the metric is undefined.",
        "return float(...) or None, never NaN, an array or a bool",
        _returns_numbers,
    ),
    Rule(
        "metric-stays-within-bounds",
        "The values are within Metric.bounds.",
        "correct Metric.bounds or the function; note that outputs are logits, not probabilities",
        _stays_within_bounds,
    ),
    Rule(
        "metric-prefers-correct-predictions",
        "Perfect predictions are not worse than wrong ones.",
        "negate higher_is_better, or fix the function",
        _prefers_correct_predictions,
    ),
    Rule(
        "metric-ignores-the-order",
        "The value does not depend on the order of the examples.",
        "compare each output only with the target at the same index",
        _ignores_the_order,
    ),
    Rule(
        "metric-modifies-nothing",
        "The function does not modify its arguments.",
        "copy the arrays before sorting or normalizing them in place",
        _modifies_nothing,
    ),
    Rule(
        "metric-adds-up-batches",
        "If Metric.streaming is set, the value does not depend on how the examples are divided into batches.",
        "add sums and counts in update, and divide them in compute",
        _adds_up_batches,
    ),
    Rule(
        "metric-is-the-mean-of-its-values",
        "If Metric.per_example is set, its function returns one value per example, and the metric is their mean.",
        "return a float array [N] whose mean is the metric, or omit per_example",
        _is_the_mean_of_its_values,
    ),
)
