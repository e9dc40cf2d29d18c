"""Plugin for token classification: a dataset, a task, a metric, a linear model, and equivalent and faulty backends.

It is not part of the distribution in this directory; tests load it with ``--plugin harness_toy_positions``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from harness_toy import RECIPE, Affine, Config, NumpyBackend, NumpySession, ToyLinear

import harness
from harness import (
    IGNORED,
    Batch,
    Binding,
    DataInfo,
    InputSpec,
    Metric,
    Network,
    NetworkRef,
    NoOptions,
    Parameter,
    PreparedData,
    RawData,
    SessionRequest,
    Split,
)

HARNESS_API_VERSION = "1.0"

POSITIONS, FEATURES, CLASSES = 6, 4, ("low", "middle", "high")


class Walks(harness.Dataset):
    """Dataset of up to six points per example. The class of a point is the argmax of a linear map."""

    name, kind, objective = "toy-walks", "walks", "token_classification"
    summary, license, label_names = "a class for each of up to six points", "CC0-1.0", CLASSES

    def load(self, options: NoOptions) -> RawData:
        import numpy as np

        rng = np.random.default_rng(0)
        weights = rng.standard_normal((FEATURES, len(CLASSES)))

        def split(examples: int) -> Split:
            points = rng.standard_normal((examples, POSITIONS, FEATURES))
            present = np.arange(POSITIONS) < rng.integers(1, POSITIONS + 1, (examples, 1))
            return Split(
                inputs={"points": points},
                targets=np.where(present, (points @ weights).argmax(axis=-1), IGNORED),
                groups={"length": present.sum(axis=1)},
            )

        return RawData(train=split(160), validation=split(40), test=split(40), label_names=CLASSES)


class ToyTagging(harness.Task):
    name, kind, produces, objective = "toy-tag", "walks", "positions", "token_classification"
    summary, default_dataset, default_model = "the class of each point", "toy-walks", "toy-positions"
    metric, metrics, recipe = "toy_right", ("toy_right",), RECIPE

    def prepare(self, data: RawData, options: NoOptions) -> PreparedData:
        import numpy as np

        def prepared(split: Split) -> Split:
            features = {"features": split.inputs["points"].astype(np.float32)}
            return Split(inputs=features, targets=split.targets, groups=split.groups)

        info = DataInfo(
            kind=self.produces,
            inputs={"features": InputSpec(shape=(POSITIONS, FEATURES), dtype="float32")},
            objective=self.objective,
            outputs=len(CLASSES),
            label_names=data.label_names,
        )
        train, validation, test = map(prepared, (data.train, data.validation, data.test))
        return PreparedData(train=train, validation=validation, test=test, info=info)


class ToyPositions(ToyLinear):
    name, variants = "toy-positions", {"toy-positions": {}}
    accepts, objectives = ("positions",), ("token_classification",)
    recipes = {}

    def parameters(self, config: Config, info: DataInfo) -> Sequence[Parameter]:
        weight = Parameter(name="linear.weight", shape=(info.outputs, FEATURES), init="normal", decay=True)
        return [weight, Parameter(name="linear.bias", shape=(info.outputs,))]

    def flops_per_sample(self, config: Config, info: DataInfo) -> float:
        """Return 2 x positions x features x outputs."""
        return 2.0 * POSITIONS * FEATURES * info.outputs

    def solve(self, config: Config, info: DataInfo, train: Split) -> None:
        return None


def build(config: Config, info: DataInfo, dropout: float) -> Network:
    module = Affine(FEATURES, info.outputs, bias=True)
    bindings = {"linear.weight": Binding("weight", axes=(1, 0)), "linear.bias": Binding("bias")}
    return Network(module=module, bindings=bindings)


class PositionsSession(NumpySession):
    def _backward(self, batch: Batch) -> tuple[Any, dict[str, Any]]:
        """Treat labeled positions as separate examples."""
        counted = batch.targets != IGNORED
        return super()._backward(Batch({"features": batch.inputs["features"][counted]}, batch.targets[counted]))


class PositionsBackend(NumpyBackend):
    name = "toy-positions"

    def open(self, request: SessionRequest) -> PositionsSession:
        return PositionsSession(request)


class Peer(PositionsBackend):
    name = "toy-positions-peer"


class TrainsIgnoredPositions(PositionsSession):
    """Session that trains ignored positions as a class, which is a common mistake with padding."""

    def _backward(self, batch: Batch) -> tuple[Any, dict[str, Any]]:
        return super()._backward(Batch(batch.inputs, abs(batch.targets) % len(CLASSES)))


class Faulty(PositionsBackend):
    name = "toy-positions-faulty"

    def open(self, request: SessionRequest) -> TrainsIgnoredPositions:
        return TrainsIgnoredPositions(request)


def right(targets: Any, outputs: Any, info: DataInfo) -> float:
    """Return the fraction of labeled positions with the correct class."""
    return float((outputs.argmax(axis=-1) == targets)[targets != IGNORED].mean())


@harness.hookimpl
def harness_tasks() -> Iterable[harness.Task]:
    yield ToyTagging()


@harness.hookimpl
def harness_datasets() -> Iterable[harness.Dataset]:
    yield Walks()


@harness.hookimpl
def harness_models() -> Iterable[harness.Model]:
    yield ToyPositions()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    for backend in ("toy-positions", "toy-positions-peer", "toy-positions-faulty"):
        yield NetworkRef(model="toy-positions", backend=backend, build=f"{__name__}:build")


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    yield PositionsBackend()
    yield Peer()
    yield Faulty()


@harness.hookimpl
def harness_metrics() -> Iterable[Metric]:
    yield Metric(
        name="toy_right",
        objective="token_classification",
        function=f"{__name__}:right",
        higher_is_better=True,
        summary="fraction of labeled positions with the correct class",
        bounds=(0.0, 1.0),
    )
