"""Tests of the comparison of evidence, with constructed arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays
from sample_records import spec

from harness.checks.parity.distance import by_parameter, rowwise
from harness.checks.parity.explain import explain
from harness.checks.parity.probe_weights import probe_weights
from harness.checks.parity.report import Evidence, ParityReport
from harness.checks.parity.stages import compare
from harness.checks.parity.tolerances import tolerance
from harness.checks.parity.verdict import Stage
from harness.interfaces import Parameter
from harness.measure.distance import relative
from harness.records import DataInfo, InputSpec, Recipe

Array = np.ndarray[Any, Any]
finite = numpy_arrays(np.float64, st.integers(1, 8), elements=st.floats(-1e3, 1e3).map(lambda x: round(x, 9)))


@given(finite)
def test_relative_error_of_an_array_with_itself_is_zero(a: Array) -> None:
    assert relative(a, a) == 0


@given(finite, st.floats(1e-6, 0.5))
def test_relative_error_of_a_scaled_array_is_its_factor(a: Array, share: float) -> None:
    if np.linalg.norm(a) > 1e-100:
        assert relative(a * (1 + share), a) == pytest.approx(share, rel=1e-6)


@given(finite, finite)
def test_relative_error_is_zero_only_for_equal_arrays(a: Array, b: Array) -> None:
    error = relative(a, b)
    assert error >= 0
    assert (error == 0) == (a.shape == b.shape and bool((a - b == 0).all()))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_relative_error_of_values_that_are_not_finite_is_infinite(bad: float) -> None:
    assert relative(np.array([1.0, bad]), np.array([1.0, 2.0])) == np.inf
    assert relative(np.array([1.0, bad]), np.array([1.0, bad])) == np.inf
    assert rowwise(np.array([[1.0], [bad]]), np.array([[1.0], [2.0]])).tolist() == [0.0, np.inf]


def test_floor_limits_the_error_of_vanishing_parameters() -> None:
    weights = np.linspace(1, 2, 100)
    a = {"g/weight": weights, "g/bias": np.array([1e-9, -1e-9])}
    b = {"g/weight": weights, "g/bias": np.array([-1e-9, 1e-9])}
    assert dict(by_parameter(a, b, "g/"))["bias"] < 2e-7
    # The floor does not affect a bias of normal size.
    b["g/bias"] = np.array([0.5, 0.5])
    a["g/bias"] = np.array([0.55, 0.55])
    assert dict(by_parameter(a, b, "g/"))["bias"] == pytest.approx(0.1)


def evidence(backend: str = "a", recipe: Recipe | None = None, **changes: Array) -> Evidence:
    """Return the evidence of a model with a matrix, a bias and a running mean, trained for three steps."""
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3), "b": (4,), "mean": (4,)}
    arrays: dict[str, Array] = {
        "logits": rng.normal(size=(8, 4)),
        "loss": np.array([1.5]),
        "curve": np.array([3.0, 2.0, 1.0]),
    }
    arrays |= {"logits_again": arrays["logits"], "trained": rng.normal(size=(1, 8, 4))}
    for name, shape in shapes.items():
        arrays[f"start/{name}"], arrays[f"step/{name}"] = rng.normal(size=(2, *shape))
        if name != "mean":
            arrays[f"gradients/{name}"] = rng.normal(size=shape)
    report = ParityReport(
        spec=spec(backend=backend, recipe=recipe or Recipe(optimizer="sgd")),
        device_name="",
        packages={},
        notes={},
        data=DataInfo(
            kind="tokens", inputs={"x": InputSpec(shape=(1,), dtype="int32")}, objective="classification", outputs=4
        ),
        dataset_digest="d",
        weights_digest="w",
        batches_digest="b",
        cpu_precisions=("fp32",),
        parameters=shapes,
        changed_on_the_way={},
        statistics=("mean",),
        decayed=("w",),
    )
    return Evidence(report, arrays | {name.replace("__", "/"): array for name, array in changes.items()})


def first_failure(other: Evidence, one: Evidence | None = None) -> tuple[str, str]:
    one = one or evidence()
    stages = compare(one, other, None)
    failed = [stage for stage in stages if not stage.passed]
    return (failed[0].name if failed else "", explain(stages, one, other))


def test_equal_evidence_passes_every_stage() -> None:
    stages = compare(evidence(), evidence("b"), evidence("c"))
    assert [stage.name for stage in stages] == [
        "inputs", "weights", "logits", "loss", "gradients", "step", "statistics", "optimizer", "curve", "trained"
    ]  # fmt: skip
    assert all(stage.passed and stage.error == 0 for stage in stages)
    assert all(stage.from_reference == {"a": 0, "b": 0} for stage in stages[2:])
    assert [stage.name for stage in stages if stage.partly] == ["optimizer"], "no steps were replayed"


@pytest.mark.parametrize(
    ("array", "stage", "words"),
    [
        ("logits", "logits", "the forward pass differs"),
        ("loss", "loss", "training losses differ by 1.0e-03"),
        ("gradients__w", "gradients", "gradients of `w` differ by 1.0e-03"),
        ("step__b", "step", "the values of `b` differ by 1.0e-03 after one step"),
        ("step__mean", "statistics", "the running statistics `mean` differ by 1.0e-03"),
    ],
)
def test_stage_fails_if_its_arrays_differ(array: str, stage: str, words: str) -> None:
    value = evidence().arrays[array.replace("__", "/")] * 1.001
    again = {"logits_again": value} if array == "logits" else {}
    name, explanation = first_failure(evidence("b", **{array: value}, **again))
    assert name == stage
    assert words in explanation


def test_differing_curves_and_trained_outputs_fail() -> None:
    name, explanation = first_failure(evidence("b", curve=np.array([3.0, 2.0, 1.1])))
    assert name == "curve"
    assert "differ by 1.0e-01 at step 3" in explanation
    name, explanation = first_failure(evidence("b", trained=evidence().arrays["trained"] * 1.1))
    assert (name, "after training" in explanation) == ("trained", True)


def test_error_that_is_not_finite_is_none() -> None:
    stages = compare(evidence(), evidence("b", loss=np.array([np.nan])), None)
    (loss,) = [stage for stage in stages if stage.name == "loss"]
    assert (loss.passed, loss.error) == (False, None)


def test_randomness_in_evaluation_mode_is_explained() -> None:
    noisy = evidence().arrays["logits"] + np.random.default_rng(1).normal(size=(8, 4)) / 10
    name, explanation = first_failure(evidence("b", logits=noisy))
    assert name == "logits"
    assert "two predictions of the same batch by b differ" in explanation


def test_differing_examples_are_listed() -> None:
    logits = evidence().arrays["logits"].copy()
    logits[3] += 1
    _, explanation = first_failure(evidence("b", logits=logits, logits_again=logits))
    assert "only for 1 of 8 examples (3)" in explanation
    logits = evidence().arrays["logits"].copy()
    logits[[2, 5]] = logits[[5, 2]]
    _, explanation = first_failure(evidence("b", logits=logits, logits_again=logits))
    assert "examples 2, 5 are swapped in b; the other 6 agree" in explanation


def test_float64_reference_identifies_the_faulty_backend() -> None:
    wrong = evidence().arrays["loss"] * 1.01
    one, other = evidence(), evidence("b", loss=wrong)
    assert explain(compare(one, other, evidence("c")), one, other).endswith("check b")


def test_weights_are_compared_by_name_shape_and_value() -> None:
    import msgspec

    other = evidence("b")
    for change, words in (
        ({"parameters": {"w": (4, 3), "bias": (4,), "mean": (4,)}}, "b only in a; bias only in b"),
        ({"parameters": {"w": (3, 4), "b": (4,), "mean": (4,)}}, "w has shapes (4, 3) and (3, 4)"),
        ({"changed_on_the_way": {"w": 0.5}}, "w changed in b"),
    ):
        name, explanation = first_failure(Evidence(msgspec.structs.replace(other.report, **change), other.arrays))
        assert name == "weights"
        assert words in explanation
    name, explanation = first_failure(Evidence(msgspec.structs.replace(other.report, dataset_digest="e"), other.arrays))
    assert (name, "prepared data" in explanation) == ("inputs", True)


def test_adaptive_step_excludes_elements_that_rounding_determines() -> None:
    """Adam divides a gradient by its own size, so a rounding error that changes the sign of a gradient reverses the
    step."""
    recipe = Recipe(optimizer="adam")
    gradient = np.ones((4, 3))
    gradient[0, 0] = 1e-9
    flipped, step = gradient.copy(), evidence().arrays["step/w"].copy()
    flipped[0, 0] = -1e-9
    step[0, 0] += 0.2
    rounded = flipped * (1 + 1e-7)
    one = evidence(recipe=recipe, gradients__w=gradient)
    other = evidence("b", recipe=recipe, gradients__w=rounded, step__w=step)
    stages = {stage.name: stage for stage in compare(one, other, None)}
    assert stages["step"].passed
    assert stages["step"].remark.startswith(f"{1 / 16:.2%} of the scalars are excluded")
    step[1, 1] += 0.2  # where the gradient is larger than its rounding error
    other = evidence("b", recipe=recipe, gradients__w=rounded, step__w=step)
    assert first_failure(other, one)[0] == "step"


def perturbed_by(share: float, **more: Array) -> Evidence:
    """Return a reference with two perturbations of the weights' last bits; the first scales the gradient of `w`."""
    gradient = evidence().arrays["gradients/w"]
    changes: dict[str, Array] = {}
    for number, factor in (("1", 1 + share), ("2", 1.0)):
        again = {**evidence().arrays, "gradients/w": gradient * factor} | more
        changes |= {f"rounding/{number}/{name}": array for name, array in again.items()}
    return Evidence(evidence().report, evidence("c").arrays | changes)


def differing_by(share: float) -> Evidence:
    return evidence("b", gradients__w=evidence().arrays["gradients/w"] * (1 + share))


@pytest.mark.parametrize(
    ("off", "rounding", "passes"),
    [
        (3e-3, 0.0, False),
        (3e-3, 1e-3, False),  # more than twice the effect of rounding
        (3e-3, 2e-3, True),
        (0.5, 0.4, False),  # more than the largest tolerance
        (5e-5, 1e-7, True),
    ],
)
def test_twice_the_effect_of_rounding_is_allowed(off: float, rounding: float, passes: bool) -> None:
    stages = {stage.name: stage for stage in compare(evidence(), differing_by(off), perturbed_by(rounding))}
    assert stages["gradients"].passed is passes
    assert ("rounding determines this result" in stages["gradients"].remark) == (2 * rounding > 1e-4)
    assert stages["step"].tolerance == 1e-5, "rounding has no effect on this stage"


def test_rounding_does_not_relax_stages_before_the_backward_pass() -> None:
    off = evidence().arrays["logits"] * 1.01
    reference = perturbed_by(0.0, logits=off)
    stages = {stage.name: stage for stage in compare(evidence(), evidence("b", logits=off), reference)}
    assert not stages["logits"].passed


def test_curve_counts_until_rounding_changes_it() -> None:
    """The third loss of `b` differs, which is allowed only if perturbed last bits of the weights change it too."""
    other = evidence("b", curve=np.array([3.0, 2.0, 1.1]))
    for moved, passes in ((1.05, True), (1.0, False)):
        reference = perturbed_by(0.0, curve=np.array([3.0, 2.0, moved]))
        curve = next(stage for stage in compare(evidence(), other, reference) if stage.name == "curve")
        assert curve.passed is passes
        assert curve.remark.startswith("only the first 2 of 3 steps") is passes


def steps_replayed(steps: int = 3, **changes: Any) -> dict[str, Array]:
    """Return the arrays of a replay of correct steps of the parameters `w` and `b`."""
    ones = np.ones((steps, 2))
    arrays = {
        "planned": np.array([steps]),
        "elements": np.array([12, 4]),
        "loss": ones,
        "size": ones,
        "actual": ones,
        "error": 1e-6 * ones,
        "rounding": 1e-6 * ones,
        "kept": ones * [12, 4],
        "clipping": np.ones(steps),
        "skipped": np.array([0]),
        "checked": np.array([1, 2]),
        "statistics": np.array([[1e-9], [2e-9]]),
        "logits": np.ones((2, 8, 4)),
    }
    return {f"replay/curve/{name}": array for name, array in (arrays | changes).items()}


def with_replay(backend: str, **changes: Any) -> Evidence:
    own = evidence(backend)
    return Evidence(own.report, {**own.arrays, **steps_replayed(**changes)})


def stage_of(name: str, other: Evidence, one: Evidence | None = None, reference: Evidence | None = None) -> Stage:
    stages = compare(one or with_replay("a"), other, reference)
    return next(stage for stage in stages if stage.name == name)


def test_replayed_steps_within_the_tolerance_pass() -> None:
    stage = stage_of("optimizer", with_replay("b"))
    assert stage.passed
    assert stage.from_reference == pytest.approx({"a": 1e-6 / 1.01, "b": 1e-6 / 1.01})
    assert stage.partly == "only 3 training steps were checked, instead of 50"


def test_running_statistics_that_differ_after_a_step_are_explained() -> None:
    one, other = with_replay("a"), with_replay("b", statistics=np.array([[1e-7], [0.1]]))
    stage = stage_of("optimizer", other, one)
    assert not stage.passed
    assert stage.where == "`mean`, running statistics after step 2 of the loss curve, b"
    assert "check that each training step updates the running statistics" in explain([stage], one, other)


@pytest.mark.parametrize(
    ("name", "where", "words"),
    [
        (
            "logits_again",
            "second prediction, in `Session.inference`",
            "two predictions of the same batch by b differ by",
        ),
        ("logits_alone", "first example alone, in `Session.inference`", "check how the network handles a batch of one"),
    ],
)
def test_further_predictions_that_differ_are_explained(name: str, where: str, words: str) -> None:
    alone = evidence().arrays["logits"][:1]
    one = evidence("a", logits_alone=alone)
    other = evidence("b", **{"logits_alone": alone, name: 1.01 * one.arrays[name]})
    stages = compare(one, other, None)
    stage = next(stage for stage in stages if not stage.passed)
    assert (stage.name, stage.where) == ("logits", where)
    assert words in explain(stages, one, other)


def test_replayed_step_with_an_error_fails_and_is_explained() -> None:
    error, actual = np.full((3, 2), 1e-6), np.ones((3, 2))
    error[1, 1], actual[1, 1] = 0.5, 0.5
    one, other = with_replay("a"), with_replay("b", error=error, actual=actual)
    stage = stage_of("optimizer", other, one)
    assert not stage.passed
    assert stage.where == "`b`, step 2 of the loss curve, b"
    explanation = explain(compare(one, other, None), one, other)
    assert "the training steps of b differ from the definition of sgd in `harness.Recipe`: `b`, step 2" in explanation
    assert "1 of 3 steps differ. In the first of them, step 2, 1 of 2 parameters differ" in explanation
    assert "they change 0.5 times as much as expected: check momentum" in explanation
    assert explanation.endswith("check b")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kept": np.ones((3, 2)) * [12, 0]}, "rounding determines 25% of the weight changes in b"),
        ({"rounding": np.ones((3, 2)) * [1e-6, 0.5]}, "rounding determines 25% of the weight changes in b"),
        (
            {"planned": np.array([50])},
            "b computed finite weights and gradients in only 3 of 50 steps of the loss curve",
        ),
    ],
)
def test_replay_that_compares_too_little_is_partial(changes: dict[str, Any], reason: str) -> None:
    stage = stage_of("optimizer", with_replay("b", **changes))
    assert stage.passed
    assert reason in stage.partly


def test_parameter_that_is_never_compared_is_named() -> None:
    stage = stage_of("optimizer", with_replay("b", kept=np.ones((3, 2)) * [12, 0]))
    assert "the gradient of b is zero up to rounding" in stage.remark


def test_losses_and_outputs_of_both_sessions_are_compared() -> None:
    stage = stage_of("optimizer", with_replay("b", loss=np.array([[1.0, 1.0], [1.0, 1.1], [1.0, 1.0]])))
    assert (stage.passed, stage.where) == (False, "loss, step 2 of the loss curve, b")
    stage = stage_of("optimizer", with_replay("b", logits=np.array([np.ones((8, 4)), 2 * np.ones((8, 4))])))
    assert (stage.passed, stage.where) == (False, "logits after the loss curve, b")


def test_training_that_only_one_backend_completes_fails() -> None:
    other = with_replay("b", planned=np.array([50]))
    diverged = Evidence(other.report, {k: v for k, v in other.arrays.items() if k != "replay/curve/logits"})
    stage = stage_of("optimizer", diverged)
    assert (stage.passed, stage.where) == (False, "the loss curve, which only a completed, b")
    assert stage_of("optimizer", diverged, diverged).passed


def test_short_curve_is_partial_unless_its_steps_were_replayed() -> None:
    curve = np.linspace(3, 1, 50)
    moved = np.where(np.arange(50) > 4, 1.1, 1.0) * curve
    arrays = {"curve": curve, "trained": np.ones((5, 8, 4))}
    reference = Evidence(
        evidence().report, {**perturbed_by(0.0, curve=moved, trained=arrays["trained"]).arrays, **arrays}
    )
    for replay, reason in (({}, "only 5 steps can be compared"), (steps_replayed(50), "")):
        one, other = (Evidence(evidence(b).report, {**evidence(b).arrays, **arrays, **replay}) for b in ("a", "b"))
        assert stage_of("curve", other, one, reference).partly == reason


def late_arrays(gradient: float = 1.0, statistics: float = 1.0) -> dict[str, Array]:
    base = evidence().arrays
    return {
        "late/1/logits": base["logits"],
        "late/1/loss": base["loss"],
        "late/1/step loss": base["loss"],
        "late/1/gradients/w": gradient * base["gradients/w"],
        "late/1/statistics/mean": statistics * base["step/mean"],
    }


@pytest.mark.parametrize(
    ("changes", "passes", "where"),
    [
        ({}, True, ""),
        ({"gradient": 1.00005}, True, "gradients of w, at point 1 of 1"),
        ({"gradient": 1.001}, False, "gradients of w, at point 1 of 1"),
        ({"statistics": 1.00005}, False, "statistics of mean, at point 1 of 1"),
    ],
)
def test_late_results_have_the_tolerances_of_their_kinds(changes: dict[str, float], passes: bool, where: str) -> None:
    one, other = (
        Evidence(evidence(backend).report, {**evidence(backend).arrays, **late_arrays(**more)})
        for backend, more in (("a", {}), ("b", changes))
    )
    stage = stage_of("late", other, one)
    assert stage.passed is passes
    assert not where or stage.where == where
    assert passes or "that a reached in training" in explain(compare(one, other, None), one, other)


@given(st.sampled_from(["logits", "loss", "gradients", "step", "statistics", "curve", "trained"]))
def test_tolerances_grow_with_the_unit_roundoff(stage: str) -> None:
    precisions = ("fp64", "fp32", "tf32", "bf16")
    values = [tolerance(stage, precision, 1000).value for precision in precisions]
    assert values == sorted(values)
    assert values[-1] <= 0.3
    assert all(tolerance(stage, precision, 1000).source for precision in precisions)
    assert tolerance(stage, "fp32", 10**8).value == (1e-4 if stage == "logits" else values[1])


def test_probe_weights_are_scaled_and_not_constant() -> None:
    parameters = [
        Parameter(name="w", shape=(64, 100), init="normal", scale=0.02),
        Parameter(name="b", shape=(64,)),
        Parameter(name="running_var", shape=(64,), init="ones", trainable=False),
    ]
    weights = probe_weights(parameters, seed=0)
    assert {name: array.dtype.name for name, array in weights.items()} == dict.fromkeys(weights, "float32")
    assert np.sqrt(np.mean(weights["w"] ** 2)) == pytest.approx(0.1, rel=1e-5)
    assert (weights["b"] != 0).all()
    assert (weights["running_var"] >= 0.5).all()
    assert len(np.unique(weights["running_var"])) > 60
    np.testing.assert_array_equal(probe_weights(parameters[::-1], seed=0)["w"], weights["w"])
