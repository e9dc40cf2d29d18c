"""Plugin with backends for the toy model that implement knowledge distillation, one of them with a fault."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from harness_toy import NumpyBackend, NumpySession

import harness
from harness import Batch, NetworkRef, SessionRequest

HARNESS_API_VERSION = "1.0"


def probabilities(logits: Any) -> Any:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


class DistillingSession(NumpySession):
    """Session that adds the loss of the soft targets to that of the true classes."""

    def scale(self) -> float:
        return float(self.request.recipe.distillation_temperature**2)

    def _backward(self, batch: Batch) -> tuple[Any, dict[str, Any]]:
        recipe, x = self.request.recipe, batch.inputs["features"]
        outputs = self.network.module(x)
        loss, by_outputs = self._loss(outputs, batch.targets, batch.example_weights)
        alpha, temperature = recipe.distillation_alpha, np.float32(recipe.distillation_temperature)
        if alpha:
            student, teacher = (probabilities(each / temperature) for each in (outputs, batch.teacher_logits))
            soft = (teacher * np.log(teacher / student)).sum(axis=-1).mean()
            loss = (1 - alpha) * loss + alpha * self.scale() * soft
            by_soft = self.scale() / temperature * (student - teacher) / len(x)
            by_outputs = ((1 - alpha) * by_outputs + alpha * by_soft).astype(np.float32)
        return loss, self.network.module.gradients(x, by_outputs)


class UnscaledSession(DistillingSession):
    """Session that omits the factor T^2 of the soft targets."""

    def scale(self) -> float:
        return 1.0


class Distilling(NumpyBackend):
    name = "toy-distilling"
    recipe_options = ("distillation_alpha",)
    session: type[NumpySession] = DistillingSession

    def open(self, request: SessionRequest) -> NumpySession:
        return self.session(request)


class Again(Distilling):
    name = "toy-again"


class Unscaled(Distilling):
    name = "toy-unscaled"
    session = UnscaledSession


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    yield from (Distilling(), Again(), Unscaled())


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    for backend in (Distilling, Again, Unscaled):
        yield NetworkRef(model="toy", backend=backend.name, build="harness_toy:build")
