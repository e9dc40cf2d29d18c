"""Tests of metrics: values computed by hand, undefined cases, and bounds for arbitrary predictions."""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import predictions

from harness.errors import BadResultError, PluginError
from harness.interfaces import Metric
from harness.measure.quality.builtin import METRICS
from harness.measure.quality.intervals import METHOD
from harness.measure.quality.metrics import averaged_over, probabilities, unit_of
from harness.measure.quality.scorer import scorer
from harness.records import IGNORED, ClassScore, DataInfo, TargetScore

Array = np.ndarray[Any, Any]
CLASSIFICATION = [metric for metric in METRICS if metric.objective == "classification"]
REGRESSION = [metric for metric in METRICS if metric.objective == "regression"]


def classes(outputs: int, *labels: str) -> DataInfo:
    return DataInfo(kind="features", inputs={}, objective="classification", outputs=outputs, label_names=labels)


def numbers(outputs: int, mean: tuple[float, ...] = (), scale: tuple[float, ...] = ()) -> DataInfo:
    return DataInfo(
        kind="features", inputs={}, objective="regression", outputs=outputs, target_mean=mean, target_scale=scale
    )


def test_standardized_targets_are_converted_back_to_their_unit() -> None:
    values = np.array([[0.0, 1.0], [-1.0, 0.5]], np.float32)
    restored = numbers(2, (10.0, 20.0), (2.0, 4.0)).in_target_unit(values)
    assert restored.tolist() == [[10.0, 24.0], [8.0, 22.0]]
    assert numbers(2).in_target_unit(values).tolist() == values.tolist()
    assert restored.dtype == np.float64
    assert classes(2).in_target_unit(values) is values


def logits(predicted: list[int], outputs: int) -> Array:
    return np.eye(outputs, dtype=np.float32)[predicted]


def score(targets: Array, outputs: Array, info: DataInfo) -> dict[str, float | None]:
    metrics = CLASSIFICATION if info.objective == "classification" else REGRESSION
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return scorer(info, metrics[0].name, metrics).score(targets, outputs)


TARGETS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = logits([0, 0, 1, 1, 1, 0], 3)
"""Confusion: 0 -> (2, 1, 0), 1 -> (0, 2, 0), 2 -> (1, 0, 0)."""


def test_classification_metrics_match_values_computed_by_hand() -> None:
    # Precision 2/3, 2/3, 0; recall 2/3, 1, 0; F1 2/3, 4/5, 0; support 3, 2, 1.
    assert score(TARGETS, PREDICTED, classes(3)) == pytest.approx(
        {
            "accuracy": 4 / 6,
            "f1_macro": (2 / 3 + 4 / 5) / 3,
            "f1_micro": 4 / 6,
            "f1_weighted": (3 * 2 / 3 + 2 * 4 / 5) / 6,
            "precision_macro": (2 / 3 + 2 / 3) / 3,
            "recall_macro": (2 / 3 + 1) / 3,
            # Class 0: the positives score high, high, low; the negatives low, low, high: (2 * (2 + 1/2) + 1) / 9.
            # Class 1: both positives high; of the negatives one high, three low: (3 + 1/2) / 4. Class 2: all equal.
            "roc_auc": (6 / 9 + 3.5 / 4 + 1 / 2) / 3,
            # Class 0: precision 2/3 at recall 2/3, then 3/6. Class 1: 2/3 at recall 1. Class 2: 1/6 at recall 1.
            "average_precision": ((2 / 3) * (2 / 3) + (1 / 3) * (3 / 6) + 2 / 3 + 1 / 6) / 3,
            "balanced_accuracy": (2 / 3 + 1) / 3,
            # Predictions: 3, 3, 0. The numerator is 4 * 6 - (3 * 3 + 2 * 3).
            "mcc": (4 * 6 - 15) / math.sqrt((36 - 18) * (36 - 14)),
            "log_loss": (4 * RIGHT + 2 * (RIGHT + 1)) / 6,
            "brier": (4 * ((1 - P) ** 2 + 2 * Q**2) + 2 * (P**2 + (1 - Q) ** 2 + Q**2)) / 6,
            "ece": 4 / 6 - P,
        }
    )


P = math.e / (math.e + 2)
"""Probability of the predicted class, whose logit is 1 while those of two other classes are 0."""
Q = 1 / (math.e + 2)
RIGHT = -math.log(P)
"""Log loss of a right prediction. That of a wrong one is larger by 1."""


def test_scores_include_per_class_scores_and_confusion() -> None:
    task_scorer = scorer(classes(3, "a", "b", "c"), "accuracy", CLASSIFICATION[:1])
    scores = task_scorer.scores((TARGETS, PREDICTED), (TARGETS[:1], PREDICTED[:1]), None, {})
    assert scores.primary == "accuracy"
    assert scores.test == {"accuracy": pytest.approx(2 / 3)}
    assert scores.validation == {"accuracy": 1.0}
    assert scores.reference is None
    assert scores.confusion == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert [(c.label, c.support) for c in scores.per_class] == [("a", 3), ("b", 2), ("c", 1)]
    assert [c.precision for c in scores.per_class] == pytest.approx([2 / 3, 2 / 3, 0])
    assert [c.recall for c in scores.per_class] == pytest.approx([2 / 3, 1, 0])
    assert [c.f1 for c in scores.per_class] == pytest.approx([2 / 3, 4 / 5, 0])
    assert [c.roc_auc for c in scores.per_class] == pytest.approx([6 / 9, 3.5 / 4, 1 / 2])
    assert (scores.intervals.keys(), scores.interval_method) == ({"accuracy"}, METHOD)
    assert scores.no_interval == {}


def test_every_metric_has_an_interval_or_a_reason() -> None:
    task_scorer = scorer(classes(3), "accuracy", CLASSIFICATION)
    scores = task_scorer.scores((TARGETS, PREDICTED), (TARGETS, PREDICTED), None, {})
    assert scores.intervals.keys().isdisjoint(scores.no_interval)
    assert scores.intervals.keys() | scores.no_interval.keys() == scores.test.keys()
    assert "a class has 1 example in the test split" in scores.no_interval["f1_macro"]


def test_confusion_rows_are_true_classes() -> None:
    scores = scorer(classes(2), "accuracy", CLASSIFICATION[:1]).scores(
        (np.array([0, 0]), logits([1, 1], 2)), (np.array([0]), logits([0], 2)), None, {}
    )
    assert scores.confusion == [[0, 2], [0, 0]]
    assert scores.per_class[1] == ClassScore(label="1", precision=0, recall=0, f1=0, roc_auc=None, support=0)


def test_roc_auc_ranks_by_probability() -> None:
    """For two classes, it is the fraction of (positive, negative) pairs in the right order; ties count half."""
    margins = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    outputs = np.stack([np.zeros(4, np.float32), margins], axis=1)
    assert score(np.array([0, 0, 1, 1]), outputs, classes(2))["roc_auc"] == pytest.approx(3 / 4)


def test_roc_auc_of_a_split_without_one_of_the_classes_is_none() -> None:
    assert score(np.array([0, 1, 0]), logits([0, 1, 2], 3), classes(3))["roc_auc"] is None
    assert score(np.array([1, 1]), logits([1, 0], 2), classes(2))["roc_auc"] is None


def test_class_without_examples_counts_in_the_macro_mean() -> None:
    values = score(np.array([0, 1]), logits([0, 1], 4), classes(4))
    assert values["accuracy"] == 1
    assert values["f1_macro"] == pytest.approx(1 / 2)


def right_positions(targets: Array, outputs: Array, info: DataInfo) -> float:
    counted = targets != IGNORED
    return float((outputs.argmax(axis=-1) == targets)[counted].mean())


def test_token_classification_does_not_score_ignored_positions() -> None:
    """One of two positions of the second example is ignored: its logits affect neither the loss nor a score."""
    info = DataInfo(kind="words", inputs={}, objective="token_classification", outputs=2, label_names=("a", "b"))
    metric = Metric(
        name="right",
        objective="token_classification",
        function=f"{__name__}:right_positions",
        higher_is_better=True,
        summary="",
    )
    task_scorer = scorer(info, "right", [metric])
    targets = np.array([[0, 1], [1, IGNORED]])
    logits = np.log(np.array([[[0.5, 0.5], [0.75, 0.25]], [[0.5, 0.5], [0.999, 0.001]]], np.float32))
    assert task_scorer.quick(targets, logits) == {"loss": pytest.approx(2 * math.log(2) * 2 / 3), "right": 1 / 3}
    scores = task_scorer.scores((targets, logits), (targets, logits), None, {"half": np.array([0, 1])})
    assert (scores.test, scores.confusion, scores.per_class, scores.intervals) == ({"right": 1 / 3}, [], [], {})
    assert scores.no_interval == {"right": "the positions of an example are not independent of each other"}
    assert [(each.value, each.score) for each in scores.slices] == [("0", 0.5), ("1", 0.0)]


def test_regression_metrics_match_values_computed_by_hand() -> None:
    targets, outputs = np.array([[1.0], [2.0], [3.0], [6.0]]), np.array([[1.0], [4.0], [3.0], [4.0]])
    values = score(targets.astype(np.float32), outputs.astype(np.float32), numbers(1))
    assert values == pytest.approx({"rmse": math.sqrt(8 / 4), "mae": 1.0, "r2": 1 - 8 / 14})


def test_regression_metrics_are_in_the_unit_of_the_target() -> None:
    """A standardized error of 1 is an error of the size of the target's scale; R² does not change."""
    targets = np.array([[0, 0], [1, 1]], np.float32)
    outputs = np.array([[1, 1], [1, 1]], np.float32)
    values = score(targets, outputs, numbers(2, mean=(100.0, -5.0), scale=(10.0, 2.0)))
    assert values == pytest.approx(
        {"rmse": (10 * math.sqrt(1 / 2) + 2 * math.sqrt(1 / 2)) / 2, "mae": (10 + 2) / 4, "r2": -1.0}
    )


HEIGHT_AND_WEIGHT = (
    np.array([[1.0, 70.0], [2.0, 80.0]], np.float32),
    np.array([[1.5, 70.0], [1.5, 100.0]], np.float32),
)
"""Targets and outputs. The errors are 0.5 and 0.5 for the first target, and 0 and 20 for the second."""


def two_targets(unit: str | None) -> DataInfo:
    details: dict[str, Any] = {} if unit is None else {"target_unit": unit}
    return msgspec.structs.replace(numbers(2), label_names=("height", "weight"), details=details)


def test_several_targets_are_also_scored_one_by_one() -> None:
    info = two_targets("m, kg")
    scores = scorer(info, "rmse", REGRESSION).scores(HEIGHT_AND_WEIGHT, HEIGHT_AND_WEIGHT, None, {})
    assert scores.per_target == [
        TargetScore(label="height", unit="m", scores={"rmse": 0.5, "mae": 0.5, "r2": 0.0}),
        TargetScore(label="weight", unit="kg", scores={"rmse": pytest.approx(200**0.5), "mae": 10.0, "r2": -7.0}),
    ]
    for name, value in scores.test.items():
        parts = [part.scores[name] for part in scores.per_target]
        assert value == pytest.approx(sum(part for part in parts if part is not None) / 2)


def test_single_target_and_classes_have_no_scores_per_target() -> None:
    column = np.array([[1.0], [2.0]], np.float32)
    assert scorer(numbers(1), "rmse", REGRESSION).scores((column, column), (column, column), None, {}).per_target == []
    assert (
        not scorer(classes(3), "accuracy", CLASSIFICATION[:1])
        .scores((TARGETS, PREDICTED), (TARGETS, PREDICTED), None, {})
        .per_target
    )


def test_plugin_metric_is_not_computed_for_single_targets() -> None:
    metric = Metric(name="odd", objective="regression", function=f"{__name__}:gap", higher_is_better=True, summary="")
    found = scorer(two_targets("m, kg"), "odd", [metric]).scores(HEIGHT_AND_WEIGHT, HEIGHT_AND_WEIGHT, None, {})
    assert [part.scores for part in found.per_target] == [{}, {}]


def gap(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Return a value that needs two targets."""
    return float(outputs[0, 1] - outputs[0, 0])


@pytest.mark.parametrize(
    ("info", "unit", "note"),
    [
        (two_targets("m, kg"), "", "mean over 2 targets of different units"),
        (two_targets("m,"), "", "mean over 2 targets of different units"),
        (two_targets(None), "", "mean over 2 targets whose units are not known"),
        (two_targets(""), "", "mean over 2 targets whose units are not known"),
        (two_targets("m, m"), "m", ""),
        (two_targets("m"), "m", ""),
        (msgspec.structs.replace(two_targets("USD, 1990"), outputs=1), "USD, 1990", ""),
        (msgspec.structs.replace(two_targets("USD, 1990"), outputs=3), "USD, 1990", ""),
        (numbers(1), "", ""),
        (None, "", ""),
    ],
)
def test_mean_over_targets_of_different_units_has_a_note(info: DataInfo | None, unit: str, note: str) -> None:
    rmse, r2 = REGRESSION[0], REGRESSION[-1]
    assert (unit_of(rmse, info), averaged_over(rmse, info)) == (unit, note)
    assert (unit_of(r2, info), averaged_over(r2, info)) == ("", "")


def test_scaling_is_done_in_double_precision() -> None:
    info = numbers(1, mean=(1e9,), scale=(1.0,))
    assert score(np.array([[0.0], [1.0]], np.float32), np.array([[0.25], [1.25]], np.float32), info)["rmse"] == 0.25


@pytest.mark.parametrize(
    "constant", [[[0.1]] * 3, [[0.1], [0.1], [0.1], [0.1], [0.1], [0.1], [0.1]], [[1e9]] * 10, [[5.0]]]
)
def test_r2_of_a_constant_target_is_none(constant: list[list[float]]) -> None:
    """Rounding errors of the mean must not count as variance."""
    targets = np.array(constant, np.float32)
    info = numbers(1, mean=(0.7,), scale=(0.3,))
    assert score(targets, targets + np.float32(1), info)["r2"] is None
    two = np.concatenate([targets, np.arange(len(targets), dtype=np.float32)[:, None]], axis=1)
    assert score(two, two, numbers(2))["r2"] is None


def test_quick_returns_the_training_loss_and_the_primary_metric() -> None:
    outputs = np.array([[0.0, math.log(3)], [0.0, 0.0]], np.float32)
    quick = scorer(classes(2), "accuracy", CLASSIFICATION).quick(np.array([1, 1]), outputs)
    assert quick == pytest.approx({"loss": (-math.log(3 / 4) - math.log(1 / 2)) / 2, "accuracy": 0.5})
    standardized = np.array([[1.0], [3.0]], np.float32)
    quick = scorer(numbers(1, mean=(7.0,), scale=(2.0,)), "mae", REGRESSION).quick(standardized * 0, standardized)
    assert quick == pytest.approx({"loss": 5.0, "mae": 4.0})


def test_loss_of_huge_logits_is_finite() -> None:
    outputs = np.array([[1e30, -1e30]], np.float32)
    quick = scorer(classes(2), "accuracy", CLASSIFICATION).quick(np.array([1]), outputs)
    assert quick["loss"] == pytest.approx(2e30)


def test_metric_that_is_not_finite_is_an_error() -> None:
    metric = Metric(name="odd", objective="regression", function=f"{__name__}:odd", higher_is_better=True, summary="")
    with pytest.raises(BadResultError, match="the metric 'odd' is inf"):
        scorer(numbers(1), "odd", [metric]).score(np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32))


def odd(targets: Array, outputs: Array, info: DataInfo) -> float:
    return math.inf


def test_metric_with_a_missing_function_is_an_error() -> None:
    metric = Metric(name="odd", objective="regression", function=f"{__name__}:nope", higher_is_better=True, summary="")
    with pytest.raises(PluginError, match="no attribute 'nope'"):
        scorer(numbers(1), "odd", [metric])


def test_every_metric_function_returns_a_float() -> None:
    assert all(type(value) is float for value in score(TARGETS, PREDICTED, classes(3)).values())
    assert all(
        type(value) is float
        for value in score(np.eye(2, dtype=np.float32), np.ones((2, 2), np.float32), numbers(2)).values()
    )


SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(predictions())
def test_classification_metrics_are_within_bounds(drawn: tuple[Array, Array]) -> None:
    targets, outputs = drawn
    values = score(targets, outputs, classes(outputs.shape[1]))
    assert values["accuracy"] == pytest.approx(values["f1_micro"])
    assert values["balanced_accuracy"] >= values["recall_macro"] - 1e-12
    for metric in CLASSIFICATION:
        low, high = metric.bounds
        value = values[metric.name]
        assert value is None or low <= value <= (math.inf if high is None else high), metric.name
    is_incomplete = len(set(targets.tolist())) < outputs.shape[1]
    assert (values["roc_auc"] is None) == (values["average_precision"] is None) == is_incomplete


@SLOW
@given(predictions())
def test_confusion_matrix_counts_every_example(drawn: tuple[Array, Array]) -> None:
    targets, outputs = drawn
    scores = scorer(classes(outputs.shape[1]), "accuracy", CLASSIFICATION[:1]).scores(drawn, drawn, None, {})
    confusion = np.array(scores.confusion)
    assert confusion.sum(axis=1).tolist() == np.bincount(targets, minlength=outputs.shape[1]).tolist()
    assert confusion.trace() / len(targets) == pytest.approx(scores.test["accuracy"])


@SLOW
@given(predictions())
def test_probabilities_agree_with_softmax_of_scipy(drawn: tuple[Array, Array]) -> None:
    from scipy.special import softmax

    result = probabilities(drawn[1])
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, softmax(drawn[1].astype("float64"), axis=-1), rtol=1e-13)


@SLOW
@given(st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=20))
def test_regression_metrics_are_within_bounds(pairs: list[tuple[float, float]]) -> None:
    columns = np.array(pairs, np.float32)
    values = score(columns[:, :1], columns[:, 1:], numbers(1))
    assert values["rmse"] is not None
    assert values["mae"] is not None
    assert 0 <= values["mae"] <= values["rmse"] + 1e-9
    assert values["r2"] is None or values["r2"] <= 1


@SLOW
@given(st.integers(1, 4), st.integers(2, 20), st.integers(0, 2**32))
def test_regression_agrees_with_scikit_learn(columns: int, examples: int, seed: int) -> None:
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    targets, outputs = np.random.default_rng(seed).standard_normal((2, examples, columns)).astype(np.float32)
    assert score(targets, outputs, numbers(columns)) == pytest.approx(
        {
            "rmse": root_mean_squared_error(targets, outputs),
            "mae": mean_absolute_error(targets, outputs),
            "r2": r2_score(targets, outputs),
        },
        rel=1e-4,
    )


@SLOW
@given(st.integers(2, 5), st.integers(30, 60), st.integers(0, 2**32))
def test_classification_agrees_with_scikit_learn(number: int, examples: int, seed: int) -> None:
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(number), rng.integers(0, number, examples - number)])
    outputs = rng.normal(0, 2, (examples, number)).astype(np.float32)
    chances, labels, predicted = probabilities(outputs), range(number), outputs.argmax(axis=1)
    expected = {
        "average_precision": metrics.average_precision_score(np.eye(number)[targets], chances, average="macro"),
        "balanced_accuracy": metrics.balanced_accuracy_score(targets, predicted),
        "mcc": metrics.matthews_corrcoef(targets, predicted),
        "log_loss": metrics.log_loss(targets, chances, labels=labels),
    }
    if "scale_by_half" in inspect.signature(metrics.brier_score_loss).parameters:
        expected["brier"] = metrics.brier_score_loss(targets, chances, labels=labels)
    values = score(targets, outputs, classes(number))
    assert {name: values[name] for name in expected} == pytest.approx(expected)


def test_ece_is_the_weighted_gap_between_confidence_and_accuracy() -> None:
    """Four examples have a confidence of 0.6, of which two are right; one has a confidence of 0.95 and is right."""
    chances = np.array([0.6, 0.6, 0.6, 0.6, 0.95])
    outputs = np.log(np.stack([1 - chances, chances], axis=1))
    values = score(np.array([1, 1, 0, 0, 1]), outputs, classes(2))
    assert values["ece"] == pytest.approx((4 * 0.1 + 0.05) / 5)


def test_reliability_includes_the_upper_end_of_a_bin() -> None:
    from harness.measure.quality.metrics import BINS, reliability

    counts, confidence, accuracies = reliability(np.array([0, 1]), np.array([[800.0, 0.0], [0.0, 0.0]]))
    assert counts.tolist() == [0] * 7 + [1] + [0] * 6 + [1]
    assert len(counts) == BINS
    assert (confidence[-1], accuracies[-1], confidence[7], accuracies[7]) == (1.0, 1.0, 0.5, 0.0)


def test_mcc_of_a_constant_prediction_is_0() -> None:
    assert score(np.array([0, 1, 1]), logits([1, 1, 1], 2), classes(2))["mcc"] == 0


def test_declaring_metrics_imports_no_numerical_library() -> None:
    import subprocess

    code = (
        "import sys, harness.measure.quality.builtin; print(sorted({'numpy', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
