"""Backends to compare with the toy's numpy backend: one that computes the same in another way, and some that do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness_toy import NumpyBackend, NumpySession

import harness
from harness import Batch, DeviceInfo, NetworkRef, SessionRequest


class WideSession(NumpySession):
    """A session that computes in float64."""

    precisions = ("fp32", "fp64")

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        super().set_weights({name: array.astype("float64") for name, array in weights.items()})


class WideBackend(NumpyBackend):
    """A backend that computes in float64; at precisions other than ``fp64`` it returns float32 weights."""

    name = "peer-wide"
    summary = "the toy's backend in float64"

    def devices(self) -> Sequence[DeviceInfo]:
        return [DeviceInfo(name="cpu", description="the host", precisions=("fp32", "fp64"))]

    def open(self, request: SessionRequest) -> NumpySession:
        return WideSession(request) if request.precision == "fp64" else RoundingSession(request)


class RoundingSession(WideSession):
    def get_weights(self) -> dict[str, Any]:
        return {name: array.astype("float32") for name, array in super().get_weights().items()}


class HastySession(RoundingSession):
    """A session that doubles the learning rate."""

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        return super().train_step(batch, 2 * learning_rate)


class HastyBackend(WideBackend):
    name = "peer-hasty"
    summary = "doubles the learning rate"

    def devices(self) -> Sequence[DeviceInfo]:
        return [DeviceInfo(name="cpu", description="the host", precisions=("fp32",))]

    def open(self, request: SessionRequest) -> NumpySession:
        return HastySession(request)


class BrokenBackend(HastyBackend):
    name = "peer-broken"
    summary = "cannot open a session"

    def open(self, request: SessionRequest) -> NumpySession:
        raise harness.UnsupportedError("no wheels\nnone at all")


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    yield WideBackend()
    yield HastyBackend()
    yield BrokenBackend()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    for backend in ("peer-wide", "peer-hasty", "peer-broken"):
        yield NetworkRef(model="toy", backend=backend, build="harness_toy:build")
