"""Tests that the parity check finds faults in training, for every field of the recipe and every family of models."""

from __future__ import annotations

import importlib.util

import pytest
from planted_faults import FAMILIES, spec_of, training_evidence

from harness.checks.parity.explain import explain
from harness.checks.parity.stages import compare
from harness.checks.parity.verdict import Stage
from harness.records import Recipe
from harness.records.recipe import LOOP_FIELDS

pytestmark = [
    pytest.mark.torch,
    pytest.mark.plugins("nlp", "vision", "regression", "speech", "torch"),
    pytest.mark.usefixtures("faulty"),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed"),
]

LATE = ("Stopping", "Stopping200", "StoppingEpoch", "StateLostLate", "FrozenRate", "AmsGrad")
"""Faults that have an effect only after some steps."""
NEUTRAL = ("recipe.clip_norm=1", "recipe.label_smoothing=0.1")
"""Settings of fields that the recipes of most models leave at their neutral values."""
STAGES = {
    "DroppedExample": "loss",
    "DroppedInSteps": "optimizer",
    "EvaluationMode": "loss",
    "LateStatistics": "late",
    "NeverZeroed": "late",
    "RepeatedBatch": "late",
    "SummedLoss": "optimizer",
} | dict.fromkeys(("no_smoothing", "double_smoothing", "SmoothedElsewhere"), "loss")
"""Stages that find the faults, if other than ``optimizer``."""


def faults() -> dict[str, str]:
    """Return the field of each fault. The names are repeated here because the faults can be imported in tests only."""
    fields = {
        "epochs": "Stopping Stopping200 StoppingEpoch",
        "batch_size": "DroppedExample DroppedInSteps RepeatedBatch SummedLoss LateTargets",
        "optimizer": (
            "other_optimizer NeverZeroed NeverZeroedInSteps DiscardedState KeptState StateLostLate SkippedSteps "
            "Accumulated Twice StaleGradients FrozenBias FrozenFirst ScaledFirst SparseSteps Uncorrected "
            "LowPrecisionWeights LowPrecisionState EvaluationMode AveragedPredictions AmsGrad LateStatistics "
            "NoisyGradients"
        ),
        "learning_rate": "ConstantRate HigherRate HalfPrecisionRate",
        "momentum": "no_momentum smaller_momentum RateInVelocity Dampened",
        "nesterov": "other_nesterov",
        "beta1": "smaller_beta1 no_beta1",
        "beta2": "beta2_99 beta2_9999 beta2_998",
        "epsilon": "epsilon_1e-6 epsilon_1e-3",
        "weight_decay": (
            "no_decay decay_11_percent double_decay DecayOnce DecayLate DecayEverything DecayWithoutRate DecayAfter"
        ),
        "schedule": "LateRate FrozenRate",
        "warmup_fraction": "NoWarmup",
        "clip_norm": "no_clipping wider_clipping ClippedElements ClippedSeparately AlwaysNormalized ClippedByLastNorm",
        "label_smoothing": "no_smoothing double_smoothing SmoothedElsewhere",
        "dropout": "DropoutNeverZero DoubleDropout SameMask NoDropoutInSteps",
    }
    return {name: field for field, names in fields.items() for name in names.split()}


def has_effect(fault: str, family: str, recipe: Recipe) -> bool:
    """Return True if a backend with the fault computes different results for this model and recipe."""
    adam = recipe.optimizer in ("adam", "adamw")
    if fault == "DecayAfter" and recipe.learning_rate * recipe.weight_decay < 2e-4:
        return False  # The order changes a step by this fraction, which is less than the tolerance.
    match faults()[fault]:
        case "momentum" | "nesterov":
            return recipe.optimizer == "sgd"
        case "beta1" | "beta2" | "epsilon":
            return adam
        case "weight_decay":
            return recipe.weight_decay > 0
        case "clip_norm":
            return recipe.clip_norm is not None
        case "label_smoothing":
            return recipe.label_smoothing > 0
        case "dropout":
            return recipe.dropout > 0
    if fault in ("ScaledFirst", "SummedLoss"):
        return not adam  # Adam's steps do not depend on the scale of the gradients.
    return {
        "Uncorrected": adam,
        "AmsGrad": adam,
        "LateStatistics": family == "resnet",
        "EvaluationMode": family == "resnet",  # which has batch normalization
        "SparseSteps": family in ("bert", "lstm", "mlp"),  # some of whose gradients are exactly zero
    }.get(fault, True)


def failed(fault: str, family: str, overrides: tuple[str, ...] = ()) -> tuple[list[Stage], list[str], str]:
    """Return all stages, the names of those that fail, and the explanation."""
    steps = 50 if fault in LATE else 12
    if faults()[fault] != "dropout":
        overrides = (*overrides, "recipe.dropout=0")
    one, other = (training_evidence(name, family, overrides, steps) for name in ("", fault))
    stages = compare(one, other, training_evidence("", family, overrides, steps, "fp64"))
    return stages, [stage.name for stage in stages if not stage.passed], explain(stages, one, other)


def check(fault: str, family: str, overrides: tuple[str, ...] = ()) -> None:
    if not has_effect(fault, family, spec_of(family, overrides).recipe):
        pytest.skip("the fault has no effect with this recipe")
    stages, names, explanation = failed(fault, family, overrides)
    stage = "dropout" if faults()[fault] == "dropout" else STAGES.get(fault, "optimizer")
    assert stage in names, [(each.name, each.error, each.tolerance) for each in stages]
    found = next(each for each in stages if each.name == stage)
    assert found.error is None or found.error > 2 * found.tolerance, "the error is too close to the tolerance"
    if names[0] == "optimizer":
        assert "the training steps of faulty-training differ from the definition of" in explanation
        assert "check faulty-training" in explanation
    if names[0] == "dropout":
        assert "dropout has different distributions in torch and faulty-training" in explanation


@pytest.mark.parametrize("fault", faults())
def test_fault_in_training_is_found(fault: str) -> None:
    check(fault, "mlp", NEUTRAL)


@pytest.mark.parametrize("fault", faults())
def test_fault_in_training_with_momentum_is_found(fault: str) -> None:
    check(fault, "linear", ("recipe.weight_decay=0.01",))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fault", faults())
@pytest.mark.parametrize("family", FAMILIES)
def test_fault_in_training_is_found_with_the_recipe_of_every_model(fault: str, family: str) -> None:
    check(fault, family)


CORE = {"step_size", "milestones", "gamma"} | set(LOOP_FIELDS) - {"epochs"}
"""Fields that only the core uses. They are tested in ``tests/measure``."""


def test_every_field_of_the_recipe_has_a_planted_fault() -> None:
    """A fixed ``loss_scale`` needs fp16 and is tested in ``tests/builtin``."""
    import harness_faulty_details as details
    import harness_faulty_training as training

    planted_fields = set(faults().values()) | set(details.SESSIONS) | {"loss_scale"}
    assert planted_fields | CORE == set(Recipe.__struct_fields__)
    assert not planted_fields & CORE
    planted = {name for changes in training.EDITED.values() for name in changes}
    planted |= {each.__name__ for group in training.SESSIONS.values() for each in group}
    assert planted == set(faults())
    assert len(planted) >= 40


@pytest.mark.parametrize("family", ["linear", "mlp"])
def test_correct_training_passes_completely(family: str) -> None:
    one = training_evidence("", family, (), 50)
    stages = compare(one, one, training_evidence("", family, (), 50, "fp64"))
    assert [stage.name for stage in stages if not stage.passed or stage.partly] == []
    optimizer = next(stage for stage in stages if stage.name == "optimizer")
    assert optimizer.remark.startswith("torch: 350 steps")
    assert optimizer.error is not None
    assert 0 < optimizer.error < optimizer.tolerance


@pytest.mark.parametrize("rate", ["50", "1e6"])
def test_training_that_diverges_is_partly_checked(rate: str) -> None:
    recipe = ("recipe.optimizer=sgd", f"recipe.learning_rate={rate}", "recipe.dropout=0", "recipe.weight_decay=0")
    one = training_evidence("", "linear", recipe, 50)
    stages = compare(one, one, training_evidence("", "linear", recipe, 50, "fp64"))
    assert [stage.name for stage in stages if not stage.passed] == []
    optimizer = next(stage for stage in stages if stage.name == "optimizer")
    assert "torch computed finite weights and gradients in only" in optimizer.partly


def test_fault_that_starts_late_is_explained_by_its_first_step() -> None:
    _, names, explanation = failed("Stopping", "linear")
    assert names[0] == "optimizer"
    assert "In the long training, 250 of 300 steps differ" in explanation
    assert "step 51" in explanation
    assert "check why the weights do not change" in explanation
