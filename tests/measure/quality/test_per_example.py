"""Plugin metrics with a value for each example: intervals, and errors that name the metric."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from harness.errors import BadResultError, PluginError
from harness.interfaces import Metric
from harness.measure.quality.call import values_of
from harness.measure.quality.intervals import of_mean, proportion
from harness.measure.quality.scorer import scorer
from harness.records import DataInfo, Scores

INFO = DataInfo(kind="points", inputs={}, objective="classification", outputs=3)
RNG = np.random.default_rng(0)
TARGETS = RNG.integers(0, 3, 200)
OUTPUTS = RNG.normal(size=(200, 3)).astype(np.float32) + 2 * np.eye(3, dtype=np.float32)[TARGETS]


def hits(targets: Any, outputs: Any, info: DataInfo) -> Any:
    return outputs.argmax(axis=1) == targets


def rate(targets: Any, outputs: Any, info: DataInfo) -> float:
    return float(hits(targets, outputs, info).mean())


def margins(targets: Any, outputs: Any, info: DataInfo) -> Any:
    return outputs.max(axis=1) - outputs.min(axis=1)


def margin(targets: Any, outputs: Any, info: DataInfo) -> float:
    return float(margins(targets, outputs, info).mean())


def shorter(targets: Any, outputs: Any, info: DataInfo) -> Any:
    return hits(targets, outputs, info)[1:]


def not_finite(targets: Any, outputs: Any, info: DataInfo) -> Any:
    return np.where(np.arange(len(targets)) > 0, hits(targets, outputs, info), np.nan)


def two_columns(targets: Any, outputs: Any, info: DataInfo) -> Any:
    return outputs[:, :2]


def raising(targets: Any, outputs: Any, info: DataInfo) -> Any:
    raise KeyError("margin")


def undefined(targets: Any, outputs: Any, info: DataInfo) -> None:
    return None


def own(function: str, per_example: str, bounds: tuple[float | None, float | None]) -> Metric:
    return Metric(
        name="own",
        objective="classification",
        function=f"{__name__}:{function}",
        per_example=per_example and f"{__name__}:{per_example}",
        higher_is_better=True,
        summary="a plugin's metric",
        bounds=bounds,
    )


def scores(
    function: str, per_example: str, bounds: tuple[float | None, float | None], targets: Any = TARGETS
) -> Scores:
    metric = own(function, per_example, bounds)
    split = targets, OUTPUTS[: len(targets)]
    return scorer(INFO, "own", [metric]).scores(split, split, None, {})


def test_metric_whose_values_are_hits_has_the_interval_of_a_proportion() -> None:
    found = scores("rate", "hits", (0.0, 1.0))
    value = found.test["own"]
    assert value is not None
    assert found.intervals["own"] == pytest.approx(proportion(value, len(TARGETS)), rel=0.02)
    assert found.no_interval == {}


def test_metric_without_bounds_has_the_interval_of_student() -> None:
    from scipy.stats import t

    found = scores("margin", "margins", (None, None))
    each = margins(TARGETS, OUTPUTS, INFO).astype(np.float64)
    expected = t.interval(0.95, len(each) - 1, each.mean(), each.std(ddof=1) / np.sqrt(len(each)))
    assert found.intervals["own"] == pytest.approx(expected, rel=1e-4)


def test_metric_without_values_per_example_has_no_interval() -> None:
    found = scores("rate", "", (0.0, 1.0))
    assert found.intervals == {}
    assert found.no_interval == {"own": "the metric does not define per_example, the values of the examples"}


@pytest.mark.parametrize(
    ("objective", "function", "per_example", "reason"),
    [
        ("classification", "undefined", "", "the metric does not define per_example, the values of the examples"),
        ("classification", "undefined", "hits", "the metric is undefined for the test split"),
        ("token_classification", "undefined", "", "the positions of an example are not independent of each other"),
        ("token_classification", "rate", "", "the positions of an example are not independent of each other"),
    ],
)
def test_reason_for_no_interval_is_the_same_as_in_older_records(
    objective: Any, function: str, per_example: str, reason: str
) -> None:
    metric = own(function, per_example, (0.0, 1.0))
    info = msgspec.structs.replace(INFO, objective=objective)
    judge = scorer(info, "own", [metric])
    assert judge._intervals(judge.score(TARGETS, OUTPUTS), TARGETS, OUTPUTS) == ({}, {"own": reason})


def test_metric_with_few_examples_has_no_interval() -> None:
    assert "20" in scores("rate", "hits", (0.0, 1.0), TARGETS[:19]).no_interval["own"]


@pytest.mark.parametrize(
    ("per_example", "error", "message"),
    [
        ("shorter", PluginError, r"metric 'own' returned an array of shape \(199,\), expected \(200,\)"),
        ("two_columns", PluginError, r"metric 'own' returned an array of shape \(200, 2\), expected \(200,\)"),
        ("not_finite", PluginError, "metric 'own' returned values that are not finite"),
        ("raising", PluginError, "per_example of the metric 'own' failed: .*KeyError"),
        ("margins", BadResultError, "the metric 'own' is .* outside its declared bounds 0 to 1"),
    ],
)
def test_values_that_are_not_valid_raise(per_example: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scores("rate", per_example, (0.0, 1.0))


def test_values_whose_mean_is_not_the_metric_raise() -> None:
    with pytest.raises(PluginError, match=r"values with the mean .* but the metric is"):
        scores("rate", "margins", (None, None))


@pytest.mark.parametrize(
    ("values", "bounds", "mean", "accepted"),
    [
        ([9e-5], (0.0, None), 2e-5, False),
        ([9e-5], (None, None), 9.0005e-5, True),
        ([9e-5], (0.0, 1.0), 2e-5, False),
        ([0.0], (0.0, 1.0), 6e-8, True),  # such as 1 - error in float32
        ([0.0], (0.0, None), 0.0, True),
        ([0.0], (0.0, None), 1e-9, False),
        ([1.0, -1.0], (None, None), 1e-6, True),
        ([1e6, 2e6], (0.0, None), 1.50001e6, True),
        ([1e6, 2e6], (0.0, None), 1.6e6, False),
    ],
)
def test_tolerance_of_the_mean_depends_on_the_size_of_the_values(
    values: list[float], bounds: tuple[float | None, float | None], mean: float, accepted: bool
) -> None:
    each = np.array(values)
    arguments = "own", lambda targets, outputs, info: each, bounds, each, each, INFO
    if accepted:
        assert values_of(*arguments, mean=mean).tolist() == values
    else:
        with pytest.raises(PluginError, match="but the metric is"):
            values_of(*arguments, mean=mean)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 3.0), (0.0, None), (None, 1.0)])
def test_interval_contains_the_mean_and_stays_within_the_bounds(bounds: tuple[float | None, float | None]) -> None:
    ends = of_mean(RNG.uniform(0, 1, 30), bounds)
    assert not isinstance(ends, str)
    assert bounds[0] is None or bounds[0] <= ends[0]
    assert bounds[1] is None or ends[1] <= bounds[1]


def test_interval_of_perfect_values_is_that_of_a_perfect_proportion() -> None:
    assert of_mean(np.ones(50), (0.0, 1.0)) == proportion(1.0, 50)
    assert of_mean(np.ones(50), (None, None)) == "the values of the test examples do not vary"


def test_rounding_errors_of_equal_values_are_not_variance() -> None:
    equal = np.full(89, 0.1)
    assert equal.var() > 0
    assert of_mean(equal, (None, None)) == "the values of the test examples do not vary"
    assert of_mean(equal, (0.0, 1.0)) == pytest.approx(proportion(0.1, 89))
