"""Tests that the parity check finds faults in gradient scaling in fp16. In the tests, the CPU reports fp16 as
supported."""

from __future__ import annotations

import importlib.util

import pytest
from planted_faults import training_evidence

from harness import DeviceInfo
from harness.checks.parity.explain import explain
from harness.checks.parity.stages import compare
from harness.checks.parity.verdict import Stage

pytestmark = [
    pytest.mark.torch,
    pytest.mark.plugins("nlp", "vision", "regression", "speech", "torch"),
    pytest.mark.usefixtures("faulty", "fp16"),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed"),
]

MOMENTUM = (
    "recipe.optimizer=sgd", "recipe.momentum=0.9", "recipe.learning_rate=0.05", "recipe.weight_decay=0.01",
    "recipe.clip_norm=1", "recipe.dropout=0",
)  # fmt: skip
ADAMW = (
    "recipe.optimizer=adamw", "recipe.learning_rate=3e-3", "recipe.weight_decay=0.1", "recipe.clip_norm=1",
    "recipe.dropout=0",
)  # fmt: skip
FAULTS = {
    "NotUnscaled": MOMENTUM,
    "UnscaledAfterClipping": MOMENTUM,
    "UnscaledByFirst": MOMENTUM,
    "UnscaledTwice": MOMENTUM,
    "NotSkipped": MOMENTUM,
    "Replaced": MOMENTUM,
    "ZeroStep": ADAMW,
    "CountedSkip": ADAMW,
    "DecayInSkip": ADAMW,
    "NeverHalved": MOMENTUM,
    "HalvedSlowly": MOMENTUM,
    "SkipsMore": ADAMW,
    "SkipsWithoutOverflow": ADAMW,
}


@pytest.fixture
def fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness_torch import devices

    cpu = DeviceInfo(name="cpu", description="CPU", precisions=("fp32", "bf16", "fp16", "fp64"))
    monkeypatch.setattr(devices, "find_devices", lambda: [cpu])


def stages_of(fault: str, recipe: tuple[str, ...], family: str = "mlp") -> dict[str, Stage]:
    one, other = (training_evidence(name, family, recipe, 12, "fp16") for name in ("", fault))
    return {each.name: each for each in compare(one, other, training_evidence("", family, recipe, 12, "fp64"))}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_gradient_scaling_is_found(fault: str) -> None:
    found = stages_of(fault, FAULTS[fault])["optimizer"]
    assert not found.passed, found
    assert found.error is None or found.error > 2 * found.tolerance, "the error is too close to the tolerance"


def test_the_most_frequent_faults_are_found_with_either_optimizer() -> None:
    for fault in ("NotUnscaled", "UnscaledAfterClipping", "NotSkipped", "NeverHalved"):
        assert not stages_of(fault, ADAMW)["optimizer"].passed, fault


@pytest.mark.parametrize("recipe", [MOMENTUM, ADAMW], ids=["sgd", "adamw"])
def test_correct_gradient_scaling_passes(recipe: tuple[str, ...]) -> None:
    stages = stages_of("", recipe)
    assert [name for name, stage in stages.items() if not stage.passed] == []
    assert "were skipped because their gradients overflowed" in stages["optimizer"].remark
    assert "torch: 0 more steps" not in stages["optimizer"].remark


def test_scale_that_falls_slowly_is_explained() -> None:
    one, other = (training_evidence(name, "mlp", MOMENTUM, 12, "fp16") for name in ("", "HalvedSlowly"))
    stages = compare(one, other, None)
    assert [each.name for each in stages if not each.passed] == ["optimizer"]
    explanation = explain(stages, one, other)
    assert "faulty-training skips more steps than the other backend" in explanation
    assert "check faulty-training" in explanation


@pytest.mark.slow
def test_scale_that_falls_slowly_is_found_by_the_weights_at_which_gradients_overflow() -> None:
    """The small ResNet needs equally many reductions at smaller weights, so the skipped steps hardly differ."""
    one, other = (training_evidence(name, "resnet", MOMENTUM, 12, "fp16") for name in ("", "HalvedSlowly"))
    stages = compare(one, other, None)
    assert [each.name for each in stages if not each.passed] == ["optimizer"]
    assert "the backends reduce the loss scale a different number of times" in explain(stages, one, other)


def test_scaling_written_out_passes() -> None:
    """Otherwise, the faults might be found because of a difference that all of them share."""
    stages = stages_of("Scaling", ADAMW)
    assert [name for name, stage in stages.items() if not stage.passed] == []


def test_every_fault_is_planted() -> None:
    import harness_faulty_scaling as scaling

    assert set(FAULTS) == {each.__name__ for each in scaling.SESSIONS}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fault", ["", *FAULTS])
@pytest.mark.parametrize("family", ["resnet", "bert", "wav2vec2"])
def test_fault_in_gradient_scaling_of_other_models_is_found(fault: str, family: str) -> None:
    recipe = FAULTS.get(fault, ADAMW)
    found = stages_of(fault, recipe, family)["optimizer"]
    assert found.passed == (not fault), found
