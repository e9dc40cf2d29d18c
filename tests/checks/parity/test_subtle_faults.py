"""Tests that the parity check finds variants of the correct formulas, and faults that start late."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import pytest
from planted_faults import FAMILIES, spec_of, training_evidence

from harness.checks.parity.stages import compare
from harness.records import Recipe

pytestmark = [
    pytest.mark.torch,
    pytest.mark.plugins("nlp", "vision", "regression", "speech", "torch"),
    pytest.mark.usefixtures("faulty"),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed"),
]


class Planted(NamedTuple):
    """A fault, a recipe for which it matters, and the stage that finds it."""

    fault: str
    overrides: tuple[str, ...] = ()
    stage: str = "optimizer"
    family: str = "mlp"
    steps: int = 12


def recipe(*settings: str) -> tuple[str, ...]:
    return tuple(f"recipe.{setting}" for setting in settings)


MOMENTUM = recipe("optimizer=sgd", "momentum=0.9", "learning_rate=0.05", "weight_decay=0.01")
COUPLED = recipe("optimizer=adam", "weight_decay=0.1", "clip_norm=1")
CLIPPED = recipe("clip_norm=1")
SMOOTHED = recipe("label_smoothing=0.1")
DROPOUT = recipe("dropout=0.2")
DISTILLED = ("distillation_alpha=0.5", "distillation_temperature=3")
OPTIONS = {
    "BiasedAverage": (("ema_decay=0.9",), "optimizer"),
    "SummedMicroBatches": (("accumulation_steps=3", "optimizer=sgd", "learning_rate=0.1"), "gradients"),
    "TrainedFrozen": (('frozen=["layers.0.*"]',), "statistics"),
    "EqualRates": (("layer_decay=0.8",), "optimizer"),
    "EqualClasses": (("class_weights=balanced",), "loss"),
    "DividedByWeights": (("class_weights=balanced",), "loss"),
    "UnscaledSoftTargets": (DISTILLED, "loss"),
    "SwappedDivergence": (DISTILLED, "loss"),
    "ShiftedLogits": (DISTILLED, "loss"),
    "PenaltyOnBiases": (("l1=1e-3",), "optimizer"),
    "CoupledDecay": (("optimizer=rmsprop", "weight_decay=0.01", "decoupled_decay=true"), "optimizer"),
    "GlobalTrustRatio": (("optimizer=lamb", "learning_rate=0.01"), "optimizer"),
}
"""Faults of options that no model's recipe uses, with settings and the stage that finds the fault."""
PLANTED = (
    Planted("EpsilonInside"),
    Planted("EpsilonInside", recipe("optimizer=rmsprop")),
    Planted("EpsilonUncorrected", recipe("epsilon=1e-4")),
    Planted("UncorrectedLater"),
    Planted("UncorrectedMean"),
    Planted("StaleSquare"),
    Planted("NesterovAdam"),
    Planted("OtherDecayInRmsprop", recipe("optimizer=rmsprop")),
    Planted("CenteredRmsprop", recipe("optimizer=rmsprop")),
    Planted("SharedState", recipe("weight_decay=0"), family="lstm"),
    Planted("HalfState"),
    Planted("StateLostEachEpoch", steps=50),
    Planted("StateLostInPrediction"),
    Planted("StaleTenth"),
    Planted("FrozenLater", steps=50),
    Planted("ScaledLayer", recipe("optimizer=sgd")),
    Planted("InfiniteLater", steps=50),
    Planted("UndefinedGradients"),
    Planted("StalePredictions"),
    Planted("InvertedMomentum", stage="statistics", family="resnet"),
    Planted("ConstantStatistics", stage="statistics", family="resnet"),
    Planted("StatisticsInPrediction", stage="trained", family="resnet"),
    Planted("BatchStatistics", stage="logits", family="resnet"),
    Planted("StuckInEvaluation", stage="late", family="resnet"),
    Planted("AveragedMomentum", MOMENTUM),
    Planted("SwappedNesterov", (*MOMENTUM, *recipe("nesterov=true"))),
    Planted("DecayScheduledTwice"),
    Planted("DecayOfFirstOnly"),
    Planted("DecayBeforeClipping", COUPLED),
    Planted("PenaltyInLoss", stage="loss"),
    Planted("ClippedByMaximum", CLIPPED),
    Planted("ClippedBySumOfNorms", CLIPPED),
    Planted("ClippedByDecayed", CLIPPED),
    Planted("RateOfShape"),
    Planted("CachedRate", recipe("schedule=constant"), steps=50),
    Planted("RateOfEpoch"),
    Planted("LateWarmupEnd"),
    Planted("SummedParts", MOMENTUM, "gradients"),
    Planted("UnequalParts", stage="gradients"),
    Planted("RepeatedEpoch", steps=50),
    Planted("SmoothedShort", SMOOTHED, "loss"),
    Planted("UnsmoothedReport", SMOOTHED),
    *(Planted(fault, recipe(*settings), stage) for fault, (settings, stage) in OPTIONS.items()),
    Planted("CyclicMasks", DROPOUT, "dropout"),
    Planted("LongCyclicMasks", DROPOUT, "dropout"),
    Planted("PairedMasks", DROPOUT, "dropout"),
    Planted("SlowMasks", DROPOUT, "dropout"),
    Planted("DropoutStops", DROPOUT, "dropout"),
    Planted("SwappedBetas"),
    Planted("HalfGradients"),
    Planted("HalfInputs", stage="gradients"),
    Planted("RateFloor", recipe("schedule=linear"), steps=50),
    Planted("EverySecondStatistics", family="resnet"),
    Planted("OtherInference", stage="logits"),
    Planted("SingleExample", stage="logits"),
    Planted("BackwardWithoutDropout", DROPOUT, "dropout"),
    Planted("RecomputedMask", DROPOUT, "dropout"),
    Planted("GaussianDropout", DROPOUT, "dropout"),
    Planted("SameMaskInLayers", DROPOUT, "dropout"),
    Planted("SharedInSteps", DROPOUT, "dropout"),
)
"""Each fault with a small model."""
LONGER = (
    Planted("StatisticsStop", family="resnet", steps=50),
    Planted("CounterSaturates", steps=50),
    Planted("LastOfEpoch", steps=50),
    Planted("SkipsOutliers", steps=50),
    Planted("LateAfterWarmup", steps=50),
    Planted("SmoothingStops", SMOOTHED, steps=50),
    Planted("SameMaskInPositions", stage="dropout", family="lstm"),
)
"""Further faults, for slow tests."""


def failed(planted: Planted) -> list[str]:
    """Return the names of the stages that fail."""
    overrides = planted.overrides
    if planted.stage != "dropout":
        overrides = (*overrides, "recipe.dropout=0")
    one, other = (training_evidence(name, planted.family, overrides, planted.steps) for name in ("", planted.fault))
    stages = compare(one, other, training_evidence("", planted.family, overrides, planted.steps, "fp64"))
    return [stage.name for stage in stages if not stage.passed]


def named(planted: Planted) -> str:
    return "-".join((planted.fault, *planted.overrides[:1]))


@pytest.mark.parametrize("planted", PLANTED, ids=named)
def test_subtle_fault_is_found(planted: Planted) -> None:
    assert planted.stage in failed(planted)


@pytest.mark.slow
@pytest.mark.parametrize("planted", LONGER, ids=named)
def test_subtle_fault_in_a_longer_check_is_found(planted: Planted) -> None:
    assert planted.stage in failed(planted)


def has_effect(planted: Planted, family: str, own: Recipe) -> bool:
    """Return True if the fault changes the training of a model with its own recipe."""
    if planted.fault in OPTIONS:
        return False
    adam = own.optimizer in ("adam", "adamw")
    match planted.stage:
        case "dropout":
            if planted.fault == "SameMaskInPositions":
                return own.dropout > 0 and family != "mlp"
            if planted.fault == "SameMaskInLayers":
                return own.dropout > 0 and family != "lstm"  # whose masks have different shapes
            return own.dropout > 0
        case "statistics" | "trained":
            return family == "resnet"
    return {
        "BatchStatistics": family == "resnet",
        "EverySecondStatistics": family == "resnet",
        "StatisticsStop": family == "resnet",
        "SwappedBetas": adam,
        "CounterSaturates": adam,
        "HalfInputs": family in ("mlp", "linear", "resnet", "wav2vec2"),
        "RateFloor": own.schedule != "constant",
        "LateAfterWarmup": own.schedule != "constant",
        "SmoothingStops": own.label_smoothing > 0,
        "StuckInEvaluation": family == "resnet",
        "EpsilonInside": adam,
        "EpsilonUncorrected": False,  # The recipes' epsilon is too small for a difference above the tolerance.
        "UncorrectedLater": adam,
        "UncorrectedMean": adam,
        "StaleSquare": adam,
        "NesterovAdam": adam,
        "OtherDecayInRmsprop": own.optimizer == "rmsprop",
        "CenteredRmsprop": own.optimizer == "rmsprop",
        "SharedState": family not in ("linear", "mlp"),  # whose parameters have different shapes
        "AveragedMomentum": own.momentum > 0,
        "SwappedNesterov": own.nesterov,
        "DecayScheduledTwice": own.weight_decay > 0,
        "DecayOfFirstOnly": own.weight_decay > 0 and family != "linear",
        "DecayBeforeClipping": own.weight_decay > 0 and own.clip_norm is not None and own.optimizer != "adamw",
        "PenaltyInLoss": own.weight_decay > 0,
        "ClippedByMaximum": own.clip_norm is not None,
        "ClippedBySumOfNorms": own.clip_norm is not None,
        "ClippedByDecayed": own.clip_norm is not None,
        "SummedParts": not adam or own.clip_norm is not None,
        "ScaledLayer": not adam,
        "SmoothedShort": own.label_smoothing > 0,
        "UnsmoothedReport": own.label_smoothing > 0,
    }.get(planted.fault, True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "planted", {each.fault: each for each in PLANTED + LONGER}.values(), ids=lambda each: each.fault
)
@pytest.mark.parametrize("family", FAMILIES)
def test_subtle_fault_is_found_with_the_recipe_of_every_model(planted: Planted, family: str) -> None:
    if not has_effect(planted, family, spec_of(family).recipe):
        pytest.skip("the fault has no effect with this recipe")
    stages = failed(planted._replace(overrides=(), family=family))
    assert planted.stage in stages


def test_every_fault_is_planted() -> None:
    import harness_faulty_details as details
    import harness_faulty_rare as rare

    groups = [*details.SESSIONS.values(), *rare.SESSIONS.values()]
    assert {each.fault for each in PLANTED + LONGER} == {each.__name__ for group in groups for each in group}
    assert {*details.SESSIONS, *rare.SESSIONS} <= set(Recipe.__struct_fields__)
