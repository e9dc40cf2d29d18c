"""Tests of the intervals of test scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from harness.measure.quality.builtin import METRICS
from harness.measure.quality.intervals import MIN_ANSWERS, MIN_PER_CLASS, effective, student
from harness.measure.quality.intervals import intervals as with_reasons
from harness.plugins import resolve
from harness.records import DataInfo

RNG = np.random.default_rng
Array = np.ndarray[Any, Any]


def intervals(objective: str, targets: Array, outputs: Array) -> dict[str, tuple[float, float]]:
    """Return the intervals, after checking that every other metric has a reason."""
    found, missing = with_reasons(objective, targets, outputs)  # type: ignore[arg-type]
    assert found.keys().isdisjoint(missing)
    assert found.keys() | missing.keys() == {metric.name for metric in METRICS if metric.objective == objective}
    assert all(missing.values())
    return found


def scores(objective: str, targets: Array, outputs: Array) -> dict[str, float]:
    info = DataInfo(kind="x", inputs={}, objective=objective, outputs=outputs.shape[1])  # type: ignore[arg-type]
    declared = (metric for metric in METRICS if metric.objective == objective)
    values = {metric.name: resolve(metric.function)(targets, outputs, info) for metric in declared}
    return {name: value for name, value in values.items() if value is not None}


def classified(n: int, number: int, right: float, seed: int) -> tuple[Array, Array]:
    rng = RNG(seed)
    targets = rng.integers(0, number, n)
    predicted = np.where(rng.random(n) < right, targets, rng.integers(0, number, n))
    return targets, np.eye(number)[predicted]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_every_interval_of_a_classification_contains_its_score(pairs: list[tuple[int, int]]) -> None:
    """The test splits include some without examples of a class, with one example, and with all predictions in one
    class.
    """
    targets, predicted = (np.array(labels) for labels in zip(*pairs, strict=True))
    outputs = np.eye(5)[predicted]
    found, actual = intervals("classification", targets, outputs), scores("classification", targets, outputs)
    assert {"accuracy", "f1_micro"} <= found.keys()
    bounds = {metric.name: metric.bounds for metric in METRICS}
    for name, (low, high) in found.items():
        least, most = bounds[name]
        assert least <= low <= actual[name] + 1e-12, name
        assert actual[name] - 1e-12 <= high <= (math.inf if most is None else most), name


numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@given(st.integers(20, 60), st.integers(1, 3), st.data())
@settings(max_examples=100, deadline=None)
def test_every_interval_of_a_regression_contains_its_score(n: int, columns: int, data: st.DataObject) -> None:
    size = n * columns
    targets, outputs = (
        np.array(data.draw(st.lists(numbers, min_size=size, max_size=size))).reshape(n, columns) for _ in range(2)
    )
    actual = scores("regression", targets, outputs)
    for name, (low, high) in intervals("regression", targets, outputs).items():
        assert low <= actual[name] * (1 + 1e-9) + 1e-9, name
        assert actual[name] * (1 - 1e-9) - 1e-9 <= high, name
        assert name == "r2" or low >= 0


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (359, 360), (7, 20)])
def test_interval_of_accuracy_is_that_of_clopper_and_pearson(right: int, n: int) -> None:
    targets = np.zeros(n, int)
    predicted = np.array([0] * right + [1] * (n - right))
    exact = binomtest(right, n).proportion_ci(0.95, method="exact")
    found = intervals("classification", targets, np.eye(2)[predicted])
    assert found["accuracy"] == found["f1_micro"] == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_interval_of_perfect_predictions_of_77_classes_is_that_of_accuracy() -> None:
    """Resampling the examples would omit some classes, and give an interval of 0.91 to 0.99 for a score of 1."""
    targets = np.arange(77).repeat(5)
    found = intervals("classification", targets, np.eye(77)[targets])
    exact = binomtest(385, 385).proportion_ci(0.95, method="exact")
    assert found["f1_macro"] == found["recall_macro"] == found["precision_macro"] == (pytest.approx(exact.low), 1.0)


@given(st.lists(st.integers(5, 30), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_intervals_of_perfect_predictions_depend_on_the_number_of_examples(support: list[int]) -> None:
    targets = np.arange(len(support)).repeat(support)
    found = intervals("classification", targets, np.eye(len(support))[targets])
    assert found["f1_weighted"] == pytest.approx(found["accuracy"], abs=1e-9)
    for name in ("f1_macro", "recall_macro", "precision_macro"):
        assert found[name] == pytest.approx((0.025 ** (1 / effective(np.array(support))), 1.0), abs=1e-9), name


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_no_lower_mean_explains_perfect_predictions(sizes: list[int], seed: int) -> None:
    """Every combination of recalls that makes perfect predictions as likely as 2.5% has at least the mean at the lower
    end of the interval, which is attained.
    """
    counts = np.array(sizes)
    lowest = 0.025 ** (1 / effective(counts))
    shares = RNG(seed).dirichlet(np.full(len(sizes), 0.3), size=200)
    assert (0.025 ** (shares / counts)).mean(axis=1).min() >= lowest - 1e-9
    assert effective(counts) == pytest.approx(counts.sum()) if len(set(sizes)) == 1 else effective(counts) <= sum(sizes)


def test_interval_of_macro_recall_with_one_rare_class_allows_for_its_few_examples() -> None:
    """Five right examples of five can occur with a recall of 0.48 (Clopper and Pearson), and the mean is then 0.74."""
    targets = np.array([0] * 95 + [1] * 5)
    low, high = intervals("classification", targets, np.eye(2)[targets])["recall_macro"]
    assert (low, high) == (pytest.approx((1 + 0.025 ** (1 / 5)) / 2), 1.0)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_interval_of_area_contains_the_area(pairs: list[tuple[int, int]]) -> None:
    targets, margins = (np.array(values) for values in zip(*pairs, strict=True))
    outputs = np.stack([np.zeros(len(targets)), margins], axis=1)
    found, actual = intervals("classification", targets, outputs), scores("classification", targets, outputs)
    assert ("roc_auc" in found) == ("roc_auc" in actual)
    if "roc_auc" in found:
        assert found["roc_auc"][0] <= actual["roc_auc"] + 1e-12
        assert actual["roc_auc"] - 1e-12 <= found["roc_auc"][1]


@pytest.mark.parametrize(("first", "second"), [(5, 95), (95, 5), (20, 20)])
def test_interval_of_area_is_that_of_a_proportion_of_the_rarer_class(first: int, second: int) -> None:
    targets = np.array([0] * first + [1] * second)
    found = intervals("classification", targets, np.eye(2)[targets])["roc_auc"]
    exact = binomtest(min(first, second), min(first, second)).proportion_ci(0.95, method="exact")
    assert found == (pytest.approx(exact.low), 1.0)


@given(st.integers(20, 200), st.integers(1, 4), st.floats(0.0, 1.0), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_interval_of_macro_recall_is_at_least_as_wide_as_that_of_accuracy_for_equal_classes(
    each: int, number: int, right: float, seed: int
) -> None:
    targets = np.arange(number).repeat(each)
    predicted = np.where(RNG(seed).random(len(targets)) < right, targets, 0)
    found = intervals("classification", targets, np.eye(number)[predicted])
    (low, high), (least, greatest) = found["recall_macro"], found["accuracy"]
    assert high - low >= (greatest - least) * (1 - 1e-9)


OF_PROBABILITIES = {"roc_auc", "average_precision", "log_loss", "brier", "ece"}


@pytest.mark.parametrize(
    ("support", "answers", "missing"),
    [
        ((9, 9, 0), (9, 9, 0), {"f1_macro", "recall_macro", "balanced_accuracy", "precision_macro", "mcc"}),
        ((9, 9, 9), (27, 0, 0), {"precision_macro", "mcc"}),
        ((9, 9, 9), (19 - MIN_ANSWERS, 9, MIN_ANSWERS - 1), {"precision_macro"}),
        ((9, 9, 9), (18 - MIN_ANSWERS, 9, MIN_ANSWERS), set()),
        ((1, 1, 1), (1, 1, 1), MIN_PER_CLASS.keys()),
        *(((9, 9, n), (9, 9, n), {name for name, least in MIN_PER_CLASS.items() if n < least}) for n in (3, 4, 5)),
    ],
)
def test_scores_with_too_few_examples_have_no_interval(
    support: tuple[int, ...], answers: tuple[int, ...], missing: set[str]
) -> None:
    targets, predicted = (np.arange(3).repeat(counts) for counts in (support, answers))
    found, reasons = with_reasons("classification", targets, np.eye(3)[predicted])
    of_labels = {name: reason for name, reason in reasons.items() if name not in OF_PROBABILITIES}
    assert of_labels.keys() == missing
    assert all("class" in reason for reason in of_labels.values())
    assert "accuracy" in found


@pytest.mark.parametrize(
    ("targets", "errors", "expected"),
    [
        (np.arange(19.0), np.arange(19.0), set()),  # too few examples
        (np.arange(50.0), np.zeros(50), set()),  # no errors
        (np.arange(50.0), np.ones(50), {"r2"}),  # errors that do not vary
        (np.ones(50), np.arange(50.0), {"rmse", "mae"}),  # targets that do not vary
        (np.arange(50.0), np.arange(50.0), {"rmse", "mae", "r2"}),
    ],
)
def test_regression_without_variation_or_with_few_examples_has_no_interval(
    targets: Array, errors: Array, expected: set[str]
) -> None:
    assert intervals("regression", targets[:, None], (targets + errors)[:, None]).keys() == expected


def test_interval_of_rmse_matches_hand_calculation() -> None:
    """Squared errors are 0 and 4 with mean 2, so their standard deviation is 2 sqrt(50 / 49); the standard error of
    log RMSE is half of their relative standard error. t(0.99, 49) = 2.404892."""
    errors = np.array([0.0, 2.0] * 25)
    low, _ = intervals("regression", np.zeros((50, 1)), errors[:, None])["rmse"]
    assert low == pytest.approx(math.sqrt(2) * math.exp(-2.404892 * 0.5 / math.sqrt(49)), rel=1e-6)


@pytest.mark.parametrize("freedom", [19, 20, 49, 1000, 10**6])
@pytest.mark.parametrize("probability", [0.01, 0.5, 0.975, 0.99])
def test_student_matches_scipy(probability: float, freedom: int) -> None:
    assert student(probability, freedom) == pytest.approx(t.ppf(probability, freedom), abs=1e-5)


def test_equal_columns_have_the_interval_of_one_column() -> None:
    targets, outputs = RNG(0).normal(size=(100, 1)), RNG(1).normal(size=(100, 1))
    one = intervals("regression", targets, outputs)
    three = intervals("regression", *(np.repeat(array, 3, axis=1) for array in (targets, outputs)))
    for name, ends in one.items():
        assert three[name] == pytest.approx(ends), name


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_intervals_scale_with_the_unit_of_the_target(scale: float, shift: float, seed: int) -> None:
    rng = RNG(seed)
    targets, outputs = rng.normal(size=(2, 40, 1))
    here = intervals("regression", targets, outputs)
    there = intervals("regression", scale * targets + shift, scale * outputs + shift)
    assume(here.keys() == there.keys())
    for name, ends in here.items():
        factor = 1.0 if name == "r2" else scale
        assert there[name] == pytest.approx([factor * end for end in ends], rel=1e-6), name


def test_more_examples_give_narrower_intervals() -> None:
    widths = []
    for n in (100, 10_000):
        low, high = intervals("classification", *classified(n, 3, 0.7, 1))["f1_macro"]
        widths.append(high - low)
    assert widths[0] == pytest.approx(10 * widths[1], rel=0.25)


def test_interval_of_mcc_of_a_perfect_classifier_follows_from_its_accuracy() -> None:
    """For two classes of equal size, the coefficient is 2 a - 1, where a is the accuracy."""
    targets = np.repeat([0, 1], 20)
    found = intervals("classification", targets, np.eye(2)[targets])
    low, high = found["accuracy"]
    assert found["mcc"] == pytest.approx((2 * low - 1, 2 * high - 1))


def test_mcc_has_no_interval_if_all_predictions_belong_to_one_class() -> None:
    _, missing = with_reasons("classification", np.repeat([0, 1], 20), np.eye(2)[np.zeros(40, int)])
    assert missing["mcc"] == "all predictions belong to one class"


def test_interval_of_log_loss_includes_an_error_that_did_not_occur() -> None:
    """Forty of 40 predictions are right. An error of such a confident prediction would cost log(1 + e^4) nats."""
    targets = np.repeat([0, 1], 20)
    outputs = np.stack([np.where(targets == 0, 4, -4), np.linspace(-0.01, 0.01, 40)], axis=1)
    low, high = intervals("classification", targets, outputs)["log_loss"]
    assert low < 0.02 < 4 / 40 < high


def test_probabilistic_metrics_of_few_examples_have_no_interval() -> None:
    _, missing = with_reasons("classification", *classified(19, 2, 0.8, seed=0))
    assert (
        missing["log_loss"] == missing["brier"] == "the test split has 19 examples, and an interval needs at least 20"
    )
