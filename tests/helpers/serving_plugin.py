"""Plugin with a backend for the toy model that only computes predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import harness
from harness import DeviceInfo, InferenceSession, NetworkRef, SessionRequest, UnsupportedError

HARNESS_API_VERSION = "1.0"


class ServingSession(InferenceSession):
    """Session that keeps the canonical weights and multiplies with them."""

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        self.weights = {name: array.copy() for name, array in weights.items()}

    def get_weights(self) -> dict[str, Any]:
        return {name: array.copy() for name, array in self.weights.items()}

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        weight, bias = self.weights["linear.weight"], self.weights.get("linear.bias", 0)
        return inputs["features"] @ weight.T + bias

    def fetch(self, handle: Any) -> Any:
        return handle

    def synchronize(self) -> None:
        pass


class Serving(harness.Backend):
    name = "toy-serving"
    summary = "inference in numpy"
    requires = {"numpy": "pip install numpy"}
    packages = ("numpy",)
    trains = False

    def devices(self) -> Sequence[DeviceInfo]:
        return [DeviceInfo(name="cpu", description="the host", precisions=("fp32",))]

    def open(self, request: SessionRequest) -> ServingSession:
        if (request.device, request.precision) != ("cpu", "fp32"):
            raise UnsupportedError(f"toy-serving computes only in fp32 on cpu, not {request.precision}")
        return ServingSession()


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    yield Serving()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    yield NetworkRef(model="toy", backend="toy-serving", build="harness_toy:build")
