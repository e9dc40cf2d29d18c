"""Plugins that each break one rule of the conformance kit. Import this module after `install_toy`."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from harness_toy import NumpyBackend, NumpySession, ToyLinear, ToyNumbers, ToyRegression

import harness
from harness import Batch, DeviceInfo, Metric, Parameter, RawData, Reporter, Split, UnsupportedError

# ---- datasets ---------------------------------------------------------------------------------------------


def dataset(load: Callable[[RawData], RawData], **attributes: Any) -> harness.Dataset:
    class Faulty(ToyNumbers):
        def load(self, options: Any) -> RawData:
            return load(super().load(options))

    for name, value in attributes.items():
        setattr(Faulty, name, value)
    return Faulty()


def _fails(data: RawData) -> RawData:
    raise OSError("the server is not reachable")


def _shortened(data: RawData) -> RawData:
    return replace(data, test=replace(data.test, groups={"speaker": np.zeros(3)}))


def _flat_targets(data: RawData) -> RawData:
    return replace(data, test=Split(inputs=data.test.inputs, targets=np.where(data.test.targets > 9, np.nan, 1.0)))


_rng = np.random.default_rng(0)


def _shuffled(data: RawData) -> RawData:
    return replace(data, train=data.train.take(_rng.permutation(len(data.train))))


def _overlapping(data: RawData) -> RawData:
    return replace(data, test=data.train.take(np.arange(len(data.test))))


DATASETS = {
    "dataset-describes-itself": lambda: dataset(lambda data: data, license=" "),
    "dataset-loads": lambda: dataset(_fails),
    "dataset-has-examples": lambda: dataset(_shortened),
    "dataset-targets-fit": lambda: dataset(_flat_targets),
    "dataset-is-deterministic": lambda: dataset(_shuffled),
    "dataset-splits-are-disjoint": lambda: dataset(_overlapping),
    "dataset-is-as-declared": lambda: dataset(lambda data: data, examples={"train": 1, "validation": 1, "test": 1}),
}


# ---- tasks ------------------------------------------------------------------------------------------------


class UnknownMetric(ToyRegression):
    metrics = ("rmse", "no_such_metric")


class OtherShape(ToyRegression):
    def prepare(self, data: RawData, options: Any) -> harness.PreparedData:
        prepared = super().prepare(data, options)
        wide = {"features": prepared.test.inputs["features"].astype(np.float64)}
        return replace(prepared, test=Split(inputs=wide, targets=prepared.test.targets))


class AddsNoise(ToyRegression):
    def prepare(self, data: RawData, options: Any) -> harness.PreparedData:
        prepared = super().prepare(data, options)
        noise = _rng.normal(size=prepared.test.inputs["features"].shape).astype(np.float32)
        return replace(prepared, test=Split(inputs={"features": noise}, targets=prepared.test.targets))


class Leaks(ToyRegression):
    def prepare(self, data: RawData, options: Any) -> harness.PreparedData:
        prepared = super().prepare(data, options)
        shift = np.float32(data.test.inputs["points"].mean())
        moved = {"features": prepared.train.inputs["features"] - shift}
        return replace(prepared, train=Split(inputs=moved, targets=prepared.train.targets))


class ScalesEachSplit(ToyRegression):
    def prepare(self, data: RawData, options: Any) -> harness.PreparedData:
        prepared = super().prepare(data, options)
        features = prepared.test.inputs["features"]
        scaled = {"features": features / features.std(axis=0)}
        return replace(prepared, test=Split(inputs=scaled, targets=prepared.test.targets))


class TransformsOtherwise(ToyRegression):
    def transform(self, inputs: Any, details: Any, fitted: Any, info: Any, options: Any) -> Any:
        return {"features": inputs["points"].astype(np.float32) * 2}


class AugmentsByChance(ToyRegression):
    def augment(self, inputs: Any, info: Any, options: Any, rng: Any) -> Any:
        return {name: array + _rng.normal(size=array.shape).astype(array.dtype) for name, array in inputs.items()}


class ClipsInPlace(ToyRegression):
    def prepare(self, data: RawData, options: Any) -> harness.PreparedData:
        np.clip(data.test.inputs["points"], -9, 9, out=data.test.inputs["points"])
        return super().prepare(data, options)


TASKS = {
    "task-defaults-exist": UnknownMetric,
    "task-prepares-what-it-declares": OtherShape,
    "task-is-deterministic": AddsNoise,
    "task-leaks-nothing": Leaks,
    "task-prepares-examples-independently": ScalesEachSplit,
    "task-transforms-as-it-prepares": TransformsOtherwise,
    "task-augments-reproducibly": AugmentsByChance,
    "task-modifies-nothing": ClipsInPlace,
}


# ---- models -----------------------------------------------------------------------------------------------


class MissizedVariant(ToyLinear):
    variants = {"toy-linear": {}, "toy-through-origin": {"bias": True, "depth": 3}}
    recipes = {}


class ListsParametersTwice(ToyLinear):
    def parameters(self, config: Any, info: Any) -> list[Parameter]:
        return [*super().parameters(config, info)] * 2


class ZeroFlops(ToyLinear):
    def flops_per_sample(self, config: Any, info: Any) -> float:
        """Return 0."""
        return 0.0


class UnknownRecipe(ToyLinear):
    recipes = {"toy-linear": {"speed": 2}}


class IgnoredDropout(ToyLinear):
    recipes = {"toy-linear": {"dropout": 0.1}}


class WithoutNetwork(ToyLinear):
    name = "toy-lonely"
    variants = {"toy-lonely": {}}
    recipes = {}


MODELS = {
    "model-variants-are-valid": MissizedVariant,
    "model-parameters-are-valid": ListsParametersTwice,
    "model-has-flops": ZeroFlops,
    "model-recipes-are-valid": UnknownRecipe,
    "model-has-a-network": WithoutNetwork,
}


# ---- metrics ----------------------------------------------------------------------------------------------


def gives_text(targets: Any, outputs: Any, info: Any) -> str:
    return "good"


def gives_a_bool(targets: Any, outputs: Any, info: Any) -> bool:
    return accuracy(targets, outputs, info) > 0.5


def gives_an_array(targets: Any, outputs: Any, info: Any) -> Any:
    return np.array(accuracy(targets, outputs, info))


def beyond(targets: Any, outputs: Any, info: Any) -> float:
    return 2 * float((outputs.argmax(axis=1) == targets).mean())


def accuracy(targets: Any, outputs: Any, info: Any) -> float:
    return float((outputs.argmax(axis=1) == targets).mean())


def first_half(targets: Any, outputs: Any, info: Any) -> float:
    half = len(targets) // 2
    return float((outputs.argmax(axis=1) == targets)[:half].mean())


def sorts_in_place(targets: Any, outputs: Any, info: Any) -> float:
    right = accuracy(targets, outputs, info)
    outputs.sort(axis=1)
    return right


def not_a_number(targets: Any, outputs: Any, info: Any) -> float:
    predicted = outputs.argmax(axis=1)
    return float("nan") if len(set(predicted)) == 1 else accuracy(targets, outputs, info)


def errors(targets: Any, outputs: Any, info: Any) -> Any:
    """Return 1 for wrong predictions, whose mean is not the accuracy."""
    return outputs.argmax(axis=1) != targets


class MeanOfBatches:
    """Streaming accuracy that depends on the division into batches."""

    def __init__(self, info: Any) -> None:
        self.info, self.batches = info, list[float]()

    def update(self, targets: Any, outputs: Any) -> None:
        self.batches.append(accuracy(targets, outputs, self.info))

    def compute(self) -> float:
        return sum(self.batches) / len(self.batches)


def metric(function: str, *, higher_is_better: bool = True, per_example: str = "", streaming: bool = False) -> Metric:
    return Metric(
        name="faulty",
        objective="classification",
        function=function,
        higher_is_better=higher_is_better,
        summary="",
        bounds=(0.0, 1.0),
        per_example=per_example,
        streaming=streaming,
    )


METRICS = {
    "metric-returns-numbers": lambda: metric("kit_faults:not_a_number"),
    "metric-stays-within-bounds": lambda: metric("kit_faults:beyond"),
    "metric-prefers-correct-predictions": lambda: metric("kit_faults:accuracy", higher_is_better=False),
    "metric-ignores-the-order": lambda: metric("kit_faults:first_half"),
    "metric-modifies-nothing": lambda: metric("kit_faults:sorts_in_place"),
    "metric-adds-up-batches": lambda: metric("kit_faults:MeanOfBatches", streaming=True),
    "metric-is-the-mean-of-its-values": lambda: metric("kit_faults:accuracy", per_example="kit_faults:errors"),
}


# ---- reporters --------------------------------------------------------------------------------------------


def empty(table: Any) -> str:
    return ""


def first_row(table: Any) -> str:
    return table.rows[0].text("status")


def raw_page(table: Any) -> str:
    return "<table>" + "".join(f"<tr><td>{row.text('backend')}" for row in table.rows) + "</table>"


def raw_markdown(table: Any) -> str:
    names = [row.text("backend").replace("<", "&lt;").replace("\x1b", "") for row in table.rows]
    return "\n".join(["| backend | rank |", "|---|---|", *(f"| {name} | 1 |" for name in names)])


def colored(table: Any) -> str:
    return "\n".join(row.text("backend") for row in table.rows) or "none"


def without_options(table: Any, separator: str = " ") -> str:
    return f"{len(table.rows)}{separator}rows"


def outside(table: Any) -> Any:
    yield "../index.html", b"hello"


def reporter(function: str, output: Any = "text", *options: str) -> Reporter:
    render, described = f"kit_faults:{function}", dict.fromkeys(options, "")
    return Reporter(name="faulty", render=render, summary="", output=output, options=described)


REPORTERS = {
    "reporter-renders": [lambda: reporter("empty")],
    "reporter-renders-an-empty-report": [lambda: reporter("first_row")],
    "reporter-accepts-its-options": [
        lambda: reporter("without_options", "text", "separator", "width"),
        lambda: reporter("without_options", "text", "table"),
    ],
    "reporter-escapes": [lambda: reporter("raw_page"), lambda: reporter("raw_markdown"), lambda: reporter("colored")],
    "reporter-stays-in-its-directory": [lambda: reporter("outside", "directory")],
}


# ---- backends ---------------------------------------------------------------------------------------------


class OddDevices(NumpyBackend):
    def devices(self) -> list[DeviceInfo]:
        return [DeviceInfo(name="my laptop", description="", precisions=("fp32",)), *super().devices()]


class Widens(NumpySession):
    def get_weights(self) -> dict[str, Any]:
        return {name: array.astype(np.float64) for name, array in super().get_weights().items()}


class SortsOutputs(NumpySession):
    def predict(self, inputs: Mapping[str, Any]) -> Any:
        return np.sort(super().predict(inputs), axis=0)


class Drops(NumpySession):
    """Session that drops inputs in training, depending on the seed."""

    def _backward(self, batch: Batch) -> Any:
        features, rate = batch.inputs["features"], self.request.recipe.dropout
        kept = np.random.default_rng(self.request.seed).uniform(size=features.shape) >= rate
        return super()._backward(Batch({"features": (features * kept).astype(np.float32)}, batch.targets))


class CountsMore(NumpySession):
    """Session whose network computes one more operation per example than the model declares."""

    def flops_bounds(self, inputs: Mapping[str, Any]) -> tuple[float, float]:
        (examples, features), (_, outputs) = inputs["features"].shape, self.network.module.values["weight"].shape
        low = examples * (2 * features * outputs + 1) + 1000
        return low, 2 * low


class LearnsBackwards(NumpySession):
    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        return super().train_step(batch, -learning_rate)


class OwnRate(NumpySession):
    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        return super().train_step(batch, 0.05)


class KeepsMomentum(NumpySession):
    def set_weights(self, weights: Mapping[str, Any]) -> None:
        kept = getattr(self, "velocity", None)
        super().set_weights(weights)
        self.velocity = kept or self.velocity


class ForgetsMomentum(NumpySession):
    """Session whose state does not contain the moments."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state | {name: 0 * state[name] for name in state if "velocity" in name})


class SharesState(NumpySession):
    """Session whose state contains the arrays of the network instead of copies."""

    def state(self) -> dict[str, Any]:
        super().state()
        values = {f"value.{name}": value for name, value in self.network.module.values.items()}
        return values | {f"velocity.{name}": value.copy() for name, value in self.velocity.items()}


class Pickles(NumpySession):
    """Session whose state contains an object."""

    def state(self) -> dict[str, Any]:
        return super().state() | {"recipe": np.array(self.request.recipe, object)}


class Unseeded(NumpySession):
    """Session whose noise depends on the process. Its backend has no checkpoints, which could not restore the noise."""

    def __init__(self, request: Any) -> None:
        super().__init__(request)
        self.noise = (1 + 1e-3 * _rng.normal(size=4)).astype(np.float32)

    def _backward(self, batch: Batch) -> Any:
        return super()._backward(Batch({"features": batch.inputs["features"] * self.noise}, batch.targets))


class TransposedGradients(NumpySession):
    def gradients(self, batch: Batch) -> Any:
        loss, gradients = super().gradients(batch)
        return loss, {name: array.T for name, array in gradients.items()}


class UphillGradients(NumpySession):
    def gradients(self, batch: Batch) -> Any:
        loss, gradients = super().gradients(batch)
        return loss, {name: -array for name, array in gradients.items()}


class Late(NumpySession):
    """Session that computes only when a result is fetched."""

    waiting = 0.0

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        self.waiting += 0.004
        return super().train_step(batch, learning_rate)

    def fetch(self, handle: Any) -> Any:
        time.sleep(self.waiting)
        self.waiting = 0.0
        return handle


class Busy(NumpySession):
    def __init__(self, request: Any) -> None:
        super().__init__(request)
        self.stop = threading.Event()
        for _ in range(3):
            threading.Thread(target=self._burn, daemon=True).start()

    def _burn(self) -> None:
        data = bytes(2**22)
        while not self.stop.is_set():
            hashlib.sha256(data)  # releases the GIL

    def close(self) -> None:
        self.stop.set()


class IgnoresPrecision(NumpySession):
    def __init__(self, request: Any) -> None:
        super().__init__(replace(request, precision="fp32"))


class OffersMore(NumpyBackend):
    def devices(self) -> list[DeviceInfo]:
        return [DeviceInfo(name="cpu", description="", precisions=("fp32", "bf16"))]

    def open(self, request: Any) -> NumpySession:
        if request.precision not in ("fp32", "bf16"):
            raise UnsupportedError(request.precision)
        return IgnoresPrecision(request)


class FallsBack(NumpySession):
    def __init__(self, request: Any) -> None:
        super().__init__(replace(request, device="cpu"))


_kept: list[Any] = []


class Hoards(NumpySession):
    def close(self) -> None:
        _kept.append(np.ones(2**21))


class Refuses(NumpySession):
    def __init__(self, request: Any) -> None:
        raise UnsupportedError("not today")


def opening(session: type[NumpySession], *, has_checkpoints: bool = True) -> harness.Backend:
    class Faulty(NumpyBackend):
        checkpoints = has_checkpoints

        def open(self, request: Any) -> NumpySession:
            return session(request)

    return Faulty()


class Drifts(NumpySession):
    """Session that changes with each prediction, like running statistics that are updated during evaluation."""

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        self.network.module.values["bias"] += np.float32(1e-6)
        return super().predict(inputs)


BACKENDS = {
    "backend-finds-devices": [OddDevices],
    "backend-opens": [lambda: opening(Refuses)],
    "backend-round-trips-weights": [lambda: opening(Widens)],
    "backend-predicts-in-order": [lambda: opening(SortsOutputs)],
    "backend-predict-changes-nothing": [lambda: opening(Drifts)],
    "backend-learns": [lambda: opening(LearnsBackwards)],
    "backend-applies-the-learning-rate": [lambda: opening(OwnRate)],
    "backend-resets-the-optimizer": [lambda: opening(KeepsMomentum)],
    "backend-restores-its-state": [
        lambda: opening(ForgetsMomentum),
        lambda: opening(SharesState),
        lambda: opening(Pickles),
    ],
    "backend-respects-the-seed": [lambda: opening(Unseeded, has_checkpoints=False)],
    "backend-computes-gradients": [lambda: opening(TransposedGradients), lambda: opening(UphillGradients)],
    "backend-synchronizes": [lambda: opening(Late)],
    "backend-respects-threads": [lambda: opening(Busy)],
    "backend-respects-precision": [OffersMore],
    "backend-rejects-missing-devices": [lambda: opening(FallsBack)],
    "backend-frees-memory": [lambda: opening(Hoards)],
}
