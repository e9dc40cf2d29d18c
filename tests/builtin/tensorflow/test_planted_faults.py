"""Tests that the parity check finds faults of the TensorFlow backend in recipe options that no model uses by
default."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from harness import DeviceInfo, SessionRequest
from harness.testing.planted_faults import failed_stages

if TYPE_CHECKING:
    from harness_tensorflow.session import TensorFlowSession

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.plugins("vision", "tensorflow")]

OPTIONS = {
    "ema_decay": ("optimizer", ("ema_decay=0.9",)),
    "accumulation_steps": ("gradients", ("accumulation_steps=3",)),
    "frozen": ("statistics", ('frozen=["layers.0.*"]',)),
    "layer_decay": ("optimizer", ("layer_decay=0.8",)),
    "class_weights": ("loss", ("class_weights=[0.5,1,1.5,0.5,1,1.5,0.5,1,1.5,0.5]",)),
    "loss_scale": ("optimizer", ("loss_scale=1024", "optimizer=sgd", "momentum=0.9", "learning_rate=0.05")),
}
"""For each option, the stage that finds its faults, and the recipe settings that enable the option."""
FAULTS = {
    "ema_decay": ("biased_average", "rare_average", "no_average"),
    "accumulation_steps": ("summed_parts", "equal_parts"),
    "frozen": ("trained_frozen",),
    "layer_decay": ("equal_rates", "reversed_rates"),
    "class_weights": ("equal_classes", "divided_by_weights"),
    "loss_scale": ("not_unscaled", "unscaled_twice", "dynamic_scale"),
}


def sessions() -> dict[str, Callable[[SessionRequest], TensorFlowSession]]:
    """Return the sessions with a fault, by name. TensorFlow is imported only by the tests."""
    import tensorflow as tf
    from harness_tensorflow.optimizers import LossScale
    from harness_tensorflow.session import TensorFlowSession

    class BiasedAverage(TensorFlowSession):
        """Do not correct the bias of the moving average."""

        def update_average(self, weight: float) -> None:
            super().update_average(min(weight, 1 - (self._request.recipe.ema_decay or 0)))

    class RareAverage(TensorFlowSession):
        """Update the moving average only at every second step."""

        number = 0

        def update_average(self, weight: float) -> None:
            self.number += 1
            if self.number % 2:
                super().update_average(weight)

    class NoAverage(TensorFlowSession):
        """Evaluate the weights instead of their average."""

        @contextlib.contextmanager
        def averaged(self) -> Iterator[None]:
            yield

    class SummedParts(TensorFlowSession):
        """Add the mean losses of the parts of a batch."""

        def _part_gradients(self, targets: Any, inputs: Any, weights: Any, teacher: Any, share: Any) -> Any:
            return super()._part_gradients(targets, inputs, weights, teacher, None)

    class EqualParts(TensorFlowSession):
        """Average the mean losses of parts of different sizes."""

        def _part_gradients(self, targets: Any, inputs: Any, weights: Any, teacher: Any, share: Any) -> Any:
            share = 1 / self._request.recipe.accumulation_steps
            return super()._part_gradients(targets, inputs, weights, teacher, share)

    class DividedByWeights(TensorFlowSession):
        """Divide the loss by the sum of the weights in the batch."""

        def _weighted(self, losses: Any, targets: Any) -> Any:
            weights = super()._weighted(tf.ones_like(losses), targets)
            return losses * weights / tf.reduce_mean(weights)

    class NotUnscaled(LossScale):
        """Apply the scaled gradients."""

        def apply(self, optimizer: Any, gradients: Any, learning_rate: Any) -> None:
            super().apply(optimizer, [gradient * self._scale for gradient in gradients], learning_rate)

    class UnscaledTwice(LossScale):
        """Divide the gradients by the square of the scale."""

        def apply(self, optimizer: Any, gradients: Any, learning_rate: Any) -> None:
            super().apply(optimizer, self.unscale(gradients), learning_rate)

    def trained_frozen(request: SessionRequest) -> TensorFlowSession:
        parameters = [
            msgspec.structs.replace(each, trainable=each.trainable or each.name in request.frozen)
            for each in request.parameters
        ]
        return TensorFlowSession(dataclasses.replace(request, frozen=frozenset(), parameters=parameters))

    def reversed_rates(request: SessionRequest) -> TensorFlowSession:
        factors = dict(zip(request.rate_factors, reversed(request.rate_factors.values()), strict=True))
        return TensorFlowSession(dataclasses.replace(request, rate_factors=factors))

    def scaled(scale: Callable[[float | None], LossScale]) -> Callable[[SessionRequest], TensorFlowSession]:
        def open_session(request: SessionRequest) -> TensorFlowSession:
            session = TensorFlowSession(request)
            session._loss_scale = scale(request.recipe.loss_scale)
            return session

        return open_session

    return {
        "": TensorFlowSession,
        "biased_average": BiasedAverage,
        "rare_average": RareAverage,
        "no_average": NoAverage,
        "summed_parts": SummedParts,
        "equal_parts": EqualParts,
        "trained_frozen": trained_frozen,
        "equal_rates": lambda request: TensorFlowSession(dataclasses.replace(request, rate_factors={})),
        "reversed_rates": reversed_rates,
        "equal_classes": lambda request: TensorFlowSession(dataclasses.replace(request, class_weights=None)),
        "divided_by_weights": DividedByWeights,
        "not_unscaled": scaled(NotUnscaled),
        "unscaled_twice": scaled(UnscaledTwice),
        "dynamic_scale": scaled(lambda fixed: LossScale(None)),
    }


@pytest.fixture(autouse=True)
def _fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report fp16 as supported on the CPU."""
    from harness_tensorflow import runtime

    cpu = DeviceInfo(name="cpu", description="CPU", precisions=("fp32", "bf16", "fp16"))
    monkeypatch.setattr(runtime, "devices", lambda: [cpu])


def failed(option: str, fault: str) -> list[str]:
    """Return the names of the stages that fail."""
    return failed_stages(
        sessions()[fault],
        backend="tensorflow",
        task="vision",
        model="mlp",
        overrides=("recipe.dropout=0", *(f"recipe.{setting}" for setting in OPTIONS[option][1])),
        precision="fp16" if option == "loss_scale" else "fp32",
        threads=2,
    )


@pytest.mark.parametrize("option", OPTIONS)
def test_correct_session_passes(option: str) -> None:
    assert failed(option, "") == []


@pytest.mark.parametrize(("option", "fault"), [(option, fault) for option in FAULTS for fault in FAULTS[option]])
def test_fault_of_an_option_is_found(option: str, fault: str) -> None:
    assert OPTIONS[option][0] in failed(option, fault)
