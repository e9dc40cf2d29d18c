"""Backends to compare with the toy's numpy backend. One computes the same results in float64; the others differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness_toy import NumpyBackend, NumpySession, PointsOptions, ToyNumbers

import harness
from harness import Batch, DeviceInfo, NetworkRef, RawData, SessionRequest


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


class UnweightedSession(NumpySession):
    """A session that ignores example weights."""

    def _backward(self, batch: Batch) -> Any:
        return super()._backward(batch._replace(example_weights=None))


class UnweightedBackend(NumpyBackend):
    name = "peer-unweighted"
    summary = "ignores example weights"

    def open(self, request: SessionRequest) -> NumpySession:
        return UnweightedSession(request)


class OldBackend(NumpyBackend):
    name = "peer-old"
    summary = "was written before examples could have weights"
    example_weights = False


class WeightedNumbers(ToyNumbers):
    name = "peer-weighted"
    summary = "the toy's numbers with example weights"

    def load(self, options: PointsOptions) -> RawData:
        import dataclasses

        import numpy as np

        data = super().load(options)
        weights = np.linspace(0, 3, len(data.train))
        return dataclasses.replace(data, train=dataclasses.replace(data.train, weights=weights))


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
    yield UnweightedBackend()
    yield OldBackend()


@harness.hookimpl
def harness_datasets() -> Iterable[harness.Dataset]:
    yield WeightedNumbers()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    for backend in ("peer-wide", "peer-hasty", "peer-broken", "peer-unweighted", "peer-old"):
        yield NetworkRef(model="toy", backend=backend, build="harness_toy:build")
