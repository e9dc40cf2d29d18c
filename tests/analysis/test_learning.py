"""Tests of the flags for models that did not learn and for training that is too short or too long."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
import sample_records
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import learning
from harness.analysis.flags import run_flags
from harness.records import ClassScore, EpochEnded, MetricInfo, RunRecord, Scores

EXAMPLES = 1600
ERROR = 0.01
"""Standard error of an accuracy of 0.8 over `EXAMPLES` validation examples."""


def run(
    curve: Sequence[float | None],
    *,
    primary: str = "accuracy",
    metrics: dict[str, MetricInfo] | None = None,
    interval: tuple[float, float] | None = None,
    confusion: list[list[int]] | None = None,
) -> RunRecord:
    """Return a run with this validation curve."""
    epochs = [
        EpochEnded(
            epoch=number + 1,
            epochs=len(curve),
            step=10 * (number + 1),
            train_s=1.0,
            train_loss=1.0,
            validation={"loss": 1.0, primary: score},
        )
        for number, score in enumerate(curve)
    ]
    labels = ["no", "yes", "maybe"][: len(confusion or [])]
    scores = Scores(
        primary=primary,
        test={primary: curve[-1] if curve else None},
        validation={},
        intervals={primary: interval} if interval else {},
        metrics=metrics or {},
        confusion=confusion or [],
        per_class=[ClassScore(label=name, precision=0, recall=0, f1=0, roc_auc=None, support=1) for name in labels],
    )
    outcome = msgspec.structs.replace(
        sample_records.success(),
        curves=epochs,
        scores=scores,
        examples={"train": 9000, "validation": EXAMPLES, "test": EXAMPLES},
    )
    return sample_records.record(outcome)


def kinds(record: RunRecord) -> list[str]:
    return [flag.kind for flag in learning.of_run(record)]


def curve(shape: Callable[[float], float], epochs: int, noise: float = 0.0, seed: int = 0) -> list[float]:
    """Return `epochs` values of a function of the elapsed fraction of training, with noise."""
    rng = np.random.default_rng(seed)
    return [shape(number / epochs) + noise * rng.normal() for number in range(1, epochs + 1)]


@pytest.mark.parametrize("epochs", [5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30])
@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0, 10.0])
def test_flat_noisy_curves_are_rarely_flagged(epochs: int, noise: float) -> None:
    flagged = 0
    for seed in range(400):
        scores = curve(lambda _: 0.8, epochs, noise * ERROR, seed)
        flagged += bool(list(learning.of_curve("accuracy", scores, ERROR, scores=scores)))
    assert flagged <= 0.05 * 400


@pytest.mark.parametrize("epochs", [5, 6, 7, 8, 10, 15, 20, 30])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.99, 1.0])
def test_flat_accuracies_of_a_finite_split_are_rarely_flagged(epochs: int, level: float) -> None:
    """Draw the number of correct validation examples, as if each epoch had different examples."""
    rng = np.random.default_rng(epochs)
    drawn = rng.binomial(EXAMPLES, level, (200, epochs)) / EXAMPLES
    assert sum(bool(kinds(run(scores))) for scores in drawn.tolist()) <= 0.05 * 200


@pytest.mark.parametrize("epochs", [2, 3, 4, 5, 6, 8, 10, 15, 20, 30])
def test_curves_that_still_rise_are_flagged(epochs: int) -> None:
    curves = [curve(lambda t: 0.4 + 0.4 * t, epochs, 0.3 * ERROR, seed) for seed in range(20)]
    flags = [flag for scores in curves for flag in learning.of_run(run(scores))]
    assert len(flags) >= 15  # noise can hide the rise of the last epoch
    for flag in flags:
        assert (flag.columns, flag.kind) == (("quality",), "rising validation curve")
        assert f"recipe.epochs={2 * epochs}" in flag.detail


@pytest.mark.parametrize("epochs", [10, 12, 15, 20, 25, 30, 40, 100])
def test_curves_past_their_best_are_flagged(epochs: int) -> None:
    for seed in range(20):
        scores = curve(lambda t: 0.8 - 0.3 * abs(t - 0.5), epochs, 0.3 * ERROR, seed)
        (flag,) = learning.of_run(run(scores))
        assert (flag.columns, flag.kind) == (("quality",), "training past the best epoch")
        assert "recipe.epochs=" in flag.detail
        best = int(flag.detail.split("recipe.epochs=")[1])
        assert abs(best - epochs / 2) <= 0.2 * epochs


@pytest.mark.parametrize("epochs", [5, 6, 8, 10, 15, 20, 30, 100])
@pytest.mark.parametrize(
    "shape",
    [
        lambda t: 0.8 - 0.4 * math.exp(-12 * t),  # converges early
        lambda _: 1.0,
        lambda _: 0.0,
        lambda t: 0.8 if t > 0.3 else 0.2,  # a jump
        lambda t: 0.8 + 0.001 * t,  # rises by less than the standard error
        lambda t: 0.8 - 0.001 * t,
    ],
)
def test_curves_that_have_converged_are_not_flagged(epochs: int, shape: Callable[[float], float]) -> None:
    assert kinds(run(curve(shape, epochs))) == []


def test_metrics_of_which_lower_values_are_better_are_reversed() -> None:
    falling = [10.0 - number for number in range(8)]
    (flag,) = learning.of_run(run(falling, primary="rmse"))
    assert flag.kind == "rising validation curve"
    assert "from 4 to 3 (one epoch each)" in flag.detail
    (flag,) = learning.of_run(run([*falling, *falling[::-1]], primary="rmse"))
    assert flag.kind == "training past the best epoch"
    assert "best at epoch 8 of 16 and then became worse, from 3 to 9.5 (means over 2 epochs)" in flag.detail


@pytest.mark.parametrize("change", [-1.0, 1.0])
def test_metrics_with_an_unknown_direction_are_not_judged(change: float) -> None:
    scores = [5 + change * number for number in range(8)]
    assert kinds(run(scores, primary="invented")) == []
    info = MetricInfo(higher_is_better=change > 0)
    assert kinds(run(scores, primary="invented", metrics={"invented": info})) == ["rising validation curve"]


@pytest.mark.parametrize("scores", [[], [0.5], [None] * 8, [0.1, 0.2, None, 0.4, 0.5], [0.1, math.nan, 0.3, 0.4, 0.9]])
def test_incomplete_curves_are_not_judged(scores: list[float | None]) -> None:
    assert kinds(run(scores)) == []


def test_a_wide_interval_explains_a_rise() -> None:
    scores = [100.0 - number for number in range(8)]
    assert kinds(run(scores, primary="rmse", interval=(92.9, 93.1))) == ["rising validation curve"]
    assert kinds(run(scores, primary="rmse", interval=(63.0, 123.0))) == []


@pytest.mark.parametrize(
    ("confusion", "flagged"),
    [
        ([[5, 0], [3, 0]], True),
        ([[0, 5], [0, 3]], True),
        ([[5, 0], [0, 3]], False),
        ([[5, 0], [2, 1]], False),
        ([[5, 0], [0, 0]], False),  # the split has only one class
        ([[0, 0, 4], [0, 0, 4], [0, 0, 4]], True),
        ([[0, 0, 4], [0, 0, 0], [0, 0, 4]], True),
        ([[0, 1, 4], [0, 0, 4], [0, 0, 4]], False),
        ([[0, 0], [0, 0]], False),
        ([], False),
    ],
)
def test_a_model_that_predicts_one_class_is_flagged(confusion: list[list[int]], flagged: bool) -> None:
    found = list(learning.of_run(run([0.5], confusion=confusion)))
    assert [flag.kind for flag in found] == ["one predicted class"] * flagged
    if flagged:
        column = next(number for number in range(len(confusion)) if any(row[number] for row in confusion))
        assert f"is predicted as {['no', 'yes', 'maybe'][column]!r}" in found[0].detail
        assert "recipe.epochs" in found[0].detail


@given(st.lists(st.floats(0, 1) | st.floats(), min_size=0, max_size=40), st.sampled_from(["accuracy", "rmse", "r2"]))
def test_a_curve_has_at_most_one_flag(scores: list[float], primary: str) -> None:
    assert len(kinds(run(scores, primary=primary))) <= 1


def test_flags_of_the_run_include_those_of_learning() -> None:
    record = run([0.1 * number for number in range(8)], confusion=[[5, 0], [3, 0]])
    assert {"rising validation curve", "one predicted class"} <= {flag.kind for flag in run_flags(record)}


@pytest.mark.parametrize(
    ("primary", "reached", "solution", "flagged"),
    [
        ("rmse", 54.0, 53.9, False),
        ("rmse", 70.0, 53.9, True),
        ("rmse", 40.0, 53.9, False),
        ("rmse", 0.2, 0.0001, False),  # both fit the targets, whose standard deviation is 70
        ("r2", 0.45, 0.46, False),
        ("r2", 0.10, 0.46, True),
        ("r2", None, 0.46, False),
        ("rmse", 70.0, None, False),
    ],
)
def test_training_far_from_the_closed_form_is_flagged(
    primary: str, reached: float | None, solution: float | None, flagged: bool
) -> None:
    outcome = sample_records.success(1.0, primary=primary, test={primary: reached}, reference={primary: solution})
    made = sample_records.record(outcome, target_unit="points")
    data = msgspec.structs.replace(made.provenance.data, target_mean=(150.0,), target_scale=(70.0,))  # type: ignore[type-var]
    made = msgspec.structs.replace(made, provenance=msgspec.structs.replace(made.provenance, data=data))
    flags = [flag for flag in run_flags(made) if flag.kind == "worse than the closed-form solution"]
    assert bool(flags) == flagged
    assert all("recipe.epochs=20," in flag.detail for flag in flags)
