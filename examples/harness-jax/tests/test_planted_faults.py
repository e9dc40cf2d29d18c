"""Tests that the parity check finds faults in recipe options that no model uses by default.

`loss_scale` is not tested, because this backend does not support fp16.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import pytest
from harness_jax import JaxBackend
from harness_jax.session import JaxSession, Wanted

import harness
from harness.testing.planted_faults import failed_stages

pytestmark = pytest.mark.slow

OPTIONS = {
    "ema_decay": ("optimizer", "ema_decay=0.9"),
    "accumulation_steps": ("gradients", "accumulation_steps=3"),
    "frozen": ("statistics", 'frozen=["layers.0.*"]'),
    "layer_decay": ("optimizer", "layer_decay=0.8"),
    "class_weights": ("loss", "class_weights=[0.5,1,1.5,0.5,1,1.5,0.5,1,1.5,0.5]"),
}
"""Mapping from each option to the stage that detects faults in it and the recipe setting that enables it."""


class BiasedAverage(JaxSession):
    """Do not correct the bias of the moving average."""

    def update_average(self, weight: float) -> None:
        super().update_average(min(weight, 1 - (self._request.recipe.ema_decay or 0)))


class RareAverage(JaxSession):
    """Update the moving average only every second step."""

    number = 0

    def update_average(self, weight: float) -> None:
        self.number += 1
        if self.number % 2:
            super().update_average(weight)


class NoAverage(JaxSession):
    """Evaluate the weights instead of their average."""

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        yield


class SummedParts(JaxSession):
    """Add the mean losses of the parts of a batch."""

    def _part_gradients(self, *arguments: Any) -> tuple[Any, Any, Any]:
        loss, statistics, gradients = super()._part_gradients(*arguments)
        count = self._request.recipe.accumulation_steps
        return count * loss, statistics, jax.tree.map(lambda gradient: count * gradient, gradients)


class LastPart(JaxSession):
    """Use only the gradients of the last part of a batch."""

    def _loss_and_gradients(
        self, params: Any, statistics: Any, frozen: Any, key: Any, inputs: Any, wanted: Wanted
    ) -> tuple[Any, Any, Any]:
        *_, (start, end) = harness.Batch.bounds(len(wanted.targets), self._request.recipe.accumulation_steps)
        part = {name: array[start:end] for name, array in inputs.items()}
        return self._part_gradients(params, statistics, frozen, key, part, wanted.part(start, end))


class DividedByWeights(JaxSession):
    """Divide the loss by the sum of the weights in the batch."""

    def _loss(self, outputs: Any, wanted: Wanted) -> Any:
        return super()._loss(outputs, wanted) / jnp.asarray(self._request.class_weights)[wanted.targets].mean()


def trained_frozen(request: harness.SessionRequest) -> JaxSession:
    parameters = [
        msgspec.structs.replace(each, trainable=each.trainable or each.name in request.frozen)
        for each in request.parameters
    ]
    return JaxSession(dataclasses.replace(request, frozen=frozenset(), parameters=parameters))


def reversed_rates(request: harness.SessionRequest) -> JaxSession:
    factors = dict(zip(request.rate_factors, reversed(request.rate_factors.values()), strict=True))
    return JaxSession(dataclasses.replace(request, rate_factors=factors))


FAULTS: dict[str, dict[str, Callable[[harness.SessionRequest], JaxSession]]] = {
    "ema_decay": {"biased_average": BiasedAverage, "rare_average": RareAverage, "no_average": NoAverage},
    "accumulation_steps": {"summed_parts": SummedParts, "last_part": LastPart},
    "frozen": {"trained_frozen": trained_frozen},
    "layer_decay": {
        "equal_rates": lambda request: JaxSession(dataclasses.replace(request, rate_factors={})),
        "reversed_rates": reversed_rates,
    },
    "class_weights": {
        "equal_classes": lambda request: JaxSession(dataclasses.replace(request, class_weights=None)),
        "divided_by_weights": DividedByWeights,
    },
}


def failed(option: str, open_session: Callable[[harness.SessionRequest], JaxSession]) -> list[str]:
    """Return the names of the stages that fail."""
    overrides = ("recipe.dropout=0", f"recipe.{OPTIONS[option][1]}")
    return failed_stages(open_session, backend="jax", task="vision", model="mlp", overrides=overrides)


@pytest.mark.parametrize("option", OPTIONS)
def test_correct_session_passes(option: str) -> None:
    assert failed(option, JaxSession) == []


@pytest.mark.parametrize(("option", "fault"), [(option, fault) for option in FAULTS for fault in FAULTS[option]])
def test_fault_of_an_option_is_found(option: str, fault: str) -> None:
    assert OPTIONS[option][0] in failed(option, FAULTS[option][fault])


def test_every_option_that_the_backend_implements_has_a_planted_fault() -> None:
    """The kit tests the other options with sessions that ignore them."""
    kit = {"adagrad", "lion", "lamb", "l1", "decoupled_decay", "distillation_alpha"}
    assert set(FAULTS) | kit == set(JaxBackend().recipe_options)
