"""Plugin with two tasks, two datasets, a model, a numpy backend, a metric, a report format and a tracker.

Everything works, but is small: the data follow a linear map with noise, the model is linear, and the backend implements
stochastic gradient descent in numpy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

import harness
from harness import (
    Batch,
    Binding,
    DataInfo,
    DeviceInfo,
    EpochEnded,
    InputSpec,
    Metric,
    Network,
    NetworkRef,
    Parameter,
    PreparedData,
    RawData,
    Recipe,
    Reporter,
    RunRecord,
    RunSpec,
    SessionRequest,
    Split,
    UnsupportedError,
)

HARNESS_API_VERSION = "1.0"

CLASSES = ("red", "green", "blue")
RECIPE = Recipe(epochs=3, batch_size=16, optimizer="sgd", learning_rate=0.1, momentum=0.5)

# ---- data -------------------------------------------------------------------------------------------------


class PointsOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    draw: int = 0
    examples: int = 160
    """Number of training examples; validation and test have a quarter of this number each."""
    noise: float = 0.1


class _Points(harness.Dataset):
    """Dataset of ``points``, standard normal float64 ``[N, 4]``, with targets from a linear map with noise."""

    kind = "points"
    license = "CC0-1.0"
    Options = PointsOptions

    def load(self, options: PointsOptions) -> RawData:
        import numpy as np

        rng = np.random.default_rng([options.draw, len(CLASSES)])
        weights = rng.standard_normal((4, self.columns))

        def split(examples: int) -> Split:
            points = rng.standard_normal((examples, 4))
            values = points @ weights + options.noise * rng.standard_normal((examples, self.columns))
            return Split(inputs={"points": points}, targets=self.targets(values))

        quarter = max(1, options.examples // 4)
        return RawData(
            train=split(options.examples),
            validation=split(quarter),
            test=split(quarter),
            label_names=self.labels,
            details=self.details,
        )


class ToyClasses(_Points):
    name = "toy-colors"
    objective = "classification"
    summary = "three colors of points in four dimensions"
    columns, labels, details = 3, CLASSES, {}

    def targets(self, values: Any) -> Any:
        return values.argmax(axis=1)


class ToyNumbers(_Points):
    name = "toy-numbers"
    objective = "regression"
    summary = "two numbers for each point in four dimensions"
    columns, labels, details = 2, ("height", "width"), {"target_unit": "m"}

    def targets(self, values: Any) -> Any:
        return 3.0 + 10.0 * values


# ---- tasks ------------------------------------------------------------------------------------------------


class TaskOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    features: int = 4
    """Number of columns that are passed to the model, at most four."""


class _PointsTask(harness.Task):
    kind = "points"
    produces = "features"
    default_model = "toy-linear"
    recipe = RECIPE
    Options = TaskOptions

    def prepare(self, data: RawData, options: TaskOptions) -> PreparedData:
        import numpy as np

        mean, scale = self.statistics(data.train.targets)

        def prepared(split: Split) -> Split:
            features = np.ascontiguousarray(split.inputs["points"][:, : options.features], np.float32)
            targets = split.targets
            if self.objective == "regression":
                targets = ((targets - mean) / scale).astype(np.float32)
            return Split(inputs={"features": features}, targets=targets)

        train = prepared(data.train)
        info = DataInfo(
            kind=self.produces,
            inputs={"features": InputSpec(shape=train.inputs["features"].shape[1:], dtype="float32")},
            objective=self.objective,
            outputs=len(data.label_names),
            label_names=data.label_names,
            target_mean=tuple(mean),
            target_scale=tuple(scale),
            details=dict(data.details),
        )
        return PreparedData(train=train, validation=prepared(data.validation), test=prepared(data.test), info=info)

    def statistics(self, targets: Any) -> tuple[Sequence[float], Sequence[float]]:
        if self.objective == "classification":
            return (), ()
        return targets.mean(axis=0).tolist(), targets.std(axis=0).tolist()


class ToyColors(_PointsTask):
    name = "toy-classify"
    objective = "classification"
    summary = "the color of a point"
    default_dataset = "toy-colors"
    metric = "accuracy"
    metrics = ("accuracy", "f1_macro", "roc_auc", "toy_share")


class ToyRegression(_PointsTask):
    name = "toy-regress"
    objective = "regression"
    summary = "two numbers from a point"
    default_dataset = "toy-numbers"
    metric = "rmse"
    metrics = ("rmse", "mae", "r2")


def share(targets: Any, outputs: Any, info: DataInfo) -> float:
    """Return the fraction of examples that are predicted to be of the first class."""
    return float((outputs.argmax(axis=-1) == 0).mean())


# ---- model ------------------------------------------------------------------------------------------------


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    bias: bool = True
    init: float = 0.1


class ToyLinear(harness.Model):
    name = "toy"
    summary = "outputs = W x + b"
    accepts = ("features",)
    objectives = ("classification", "regression")
    Config = Config
    variants = {"toy-linear": {}, "toy-through-origin": {"bias": False}}
    recipes = {"toy-through-origin": {"epochs": 2}}

    def parameters(self, config: Config, info: DataInfo) -> Sequence[Parameter]:
        (features,) = info.inputs["features"].shape
        weight = Parameter(
            name="linear.weight", shape=(info.outputs, features), init="normal", scale=config.init, decay=True
        )
        return [weight, Parameter(name="linear.bias", shape=(info.outputs,))] if config.bias else [weight]

    def flops_per_sample(self, config: Config, info: DataInfo) -> float:
        """Return 2 x features x outputs."""
        return 2.0 * info.inputs["features"].shape[0] * info.outputs

    def solve(self, config: Config, info: DataInfo, train: Split) -> dict[str, Any] | None:
        """Return the least-squares solution for regression."""
        import numpy as np

        if info.objective == "classification":
            return None
        x = train.inputs["features"].astype(np.float64)
        if config.bias:
            x = np.column_stack([x, np.ones(len(x))])
        solution = np.linalg.lstsq(x, train.targets, rcond=None)[0].T.astype(np.float32)
        features = train.inputs["features"].shape[1]
        weights = {"linear.weight": solution[:, :features]}
        return {**weights, "linear.bias": solution[:, -1]} if config.bias else weights


# ---- backend ----------------------------------------------------------------------------------------------


class Affine:
    """Affine map x W + b with gradients. The weight ``[F, outputs]`` is the transpose of the canonical one."""

    def __init__(self, features: int, outputs: int, bias: bool) -> None:
        import numpy as np

        self.values = {"weight": np.zeros((features, outputs), np.float32)}
        if bias:
            self.values["bias"] = np.zeros(outputs, np.float32)

    def __call__(self, x: Any) -> Any:
        return x @ self.values["weight"] + self.values.get("bias", 0)

    def gradients(self, x: Any, by_outputs: Any) -> dict[str, Any]:
        gradients = {"weight": x.T @ by_outputs, "bias": by_outputs.sum(axis=0)}
        return {name: gradients[name] for name in self.values}


def build(config: Config, info: DataInfo, dropout: float) -> Network:
    """Build the network. The variable of a binding is a key of ``values`` of the module."""
    module = Affine(info.inputs["features"].shape[0], info.outputs, config.bias)
    bindings = {"linear.weight": Binding("weight", axes=(1, 0))}
    if config.bias:
        bindings["linear.bias"] = Binding("bias")
    return Network(module=module, bindings=bindings)


class NumpySession(harness.Session):
    """Session with SGD, momentum and weight decay, in float32."""

    precisions: tuple[str, ...] = ("fp32",)

    def __init__(self, request: SessionRequest) -> None:
        if request.recipe.optimizer != "sgd" or request.compile:
            raise UnsupportedError("the toy backend supports only the optimizer sgd, without compilation")
        if request.precision not in self.precisions or request.device not in ("cpu", "cuda:0"):
            raise UnsupportedError(f"the toy backend does not support {request.precision} on {request.device}")
        self.request = request
        self.network = request.build(request.config, request.info, request.recipe.dropout)
        self.decayed = {self.network.bindings[p.name].variable for p in request.parameters if p.decay}
        self.steps = 0

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        import numpy as np

        for name, binding in self.network.bindings.items():
            self.network.module.values[binding.variable] = binding.to_own(weights[name]).copy()
        self.velocity = {name: np.zeros_like(value) for name, value in self.network.module.values.items()}

    def get_weights(self) -> dict[str, Any]:
        shapes = {p.name: p.shape for p in self.request.parameters}
        return {
            name: binding.to_canonical(self.network.module.values[binding.variable], shapes[name]).copy()
            for name, binding in self.network.bindings.items()
        }

    def state(self) -> dict[str, Any]:
        values = {f"value.{name}": value.copy() for name, value in self.network.module.values.items()}
        return values | {f"velocity.{name}": value.copy() for name, value in self.velocity.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        for name, value in self.network.module.values.items():
            value[...] = state[f"value.{name}"]
            self.velocity[name] = state[f"velocity.{name}"].copy()

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        self.steps += 1
        if str(self.steps) == os.environ.get("TOY_STOP_AT"):
            raise RuntimeError("stopped")
        recipe = self.request.recipe
        loss, gradients = self._backward(batch)
        for name, value in self.network.module.values.items():
            gradient = gradients[name] + (recipe.weight_decay * value if name in self.decayed else 0)
            self.velocity[name] = recipe.momentum * self.velocity[name] + gradient
            value -= learning_rate * self.velocity[name]
        return loss

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Any]]:
        loss, own = self._backward(batch)
        shapes = {p.name: p.shape for p in self.request.parameters}
        bindings = self.network.bindings
        return float(loss), {
            name: bindings[name].to_canonical(own[bindings[name].variable], shapes[name]) for name in shapes
        }

    def _backward(self, batch: Batch) -> tuple[Any, dict[str, Any]]:
        x = batch.inputs["features"]
        loss, by_outputs = self._loss(self.network.module(x), batch.targets, batch.example_weights)
        return loss, self.network.module.gradients(x, by_outputs)

    def _loss(self, outputs: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
        """Return the mean loss and its gradient with respect to the outputs. `weights` are those of the examples."""
        import numpy as np

        of_examples = np.float32(1) if weights is None else weights[:, None]
        if self.request.info.objective == "regression":
            error = outputs - targets
            return np.mean(of_examples * error**2), of_examples * 2 * error / error.size
        smoothing, classes = self.request.recipe.label_smoothing, outputs.shape[1]
        wanted = np.eye(classes, dtype=np.float32)[targets] * (1 - smoothing) + smoothing / classes
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        losses = -(of_examples * wanted * logs).sum(axis=1)
        return losses.mean(), of_examples * (np.exp(logs) - wanted) / len(targets)

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        return self.network.module(inputs["features"])

    def fetch(self, handle: Any) -> Any:
        return handle

    def synchronize(self) -> None:
        pass

    def notes(self) -> dict[str, str]:
        """Return the thread settings, the environment variable of the backend and the cores of this process."""
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOY_GREETING")
        return {name: os.environ.get(name, "unset") for name in names} | {"cores": str(sorted(os.sched_getaffinity(0)))}


class NumpyBackend(harness.Backend):
    name = "toy-numpy"
    summary = "gradient descent in numpy"
    requires = {"numpy": "pip install numpy"}
    packages = ("numpy", "harness-toy")
    checkpoints = True
    environment = {"TOY_GREETING": "hello"}
    example_weights = True

    def devices(self) -> Sequence[DeviceInfo]:
        names = ["cpu", "cuda:0"] if "TOY_ACCELERATOR" in os.environ else ["cpu"]
        return [DeviceInfo(name=name, description="the host", precisions=("fp32",)) for name in names]

    def open(self, request: SessionRequest) -> NumpySession:
        return NumpySession(request)

    def allocated_bytes(self, device: str, size_bytes: int) -> int | None:
        """Return the size of an allocation on a fake accelerator, scaled by ``TOY_ACCELERATOR``."""
        return round(size_bytes * float(os.environ["TOY_ACCELERATOR"]))

    def roofline_kernels(self, device: str, precision: str, threads: int) -> harness.RooflineKernels | None:
        """Return kernels that sleep: 2 n^3 / ``TOY_FLOPS`` seconds per product, and copies at 100 GB/s."""
        if "TOY_FLOPS" not in os.environ:
            return None
        flops = float(os.environ["TOY_FLOPS"])
        return harness.RooflineKernels(
            matrix=lambda n: lambda: time.sleep(2 * n**3 / flops),
            copy=lambda size: lambda: time.sleep(2 * size / 1e11),
            synchronize=lambda: None,
        )


class AbsentBackend(NumpyBackend):
    """Backend whose framework is not installed."""

    name = "toy-absent"
    summary = "needs a framework that does not exist"
    requires = {"no_such_framework": "pip install no-such-framework"}


# ---- hooks ------------------------------------------------------------------------------------------------


@harness.hookimpl
def harness_tasks() -> Iterable[harness.Task]:
    yield ToyColors()
    yield ToyRegression()


@harness.hookimpl
def harness_datasets() -> Iterable[harness.Dataset]:
    yield ToyClasses()
    yield ToyNumbers()


@harness.hookimpl
def harness_models() -> Iterable[harness.Model]:
    yield ToyLinear()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    yield NetworkRef(model="toy", backend="toy-numpy", build="harness_toy:build")
    yield NetworkRef(model="toy", backend="toy-absent", build="harness_toy:build")


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    yield NumpyBackend()
    yield AbsentBackend()


@harness.hookimpl
def harness_metrics() -> Iterable[Metric]:
    yield Metric(
        name="toy_share",
        objective="classification",
        function="harness_toy:share",
        higher_is_better=False,
        summary="fraction of examples predicted to be of the first class",
    )


@harness.hookimpl
def harness_reporters() -> Iterable[Reporter]:
    yield Reporter(name="toy-count", render="harness_toy:render", summary="the number of rows")


def render(table: Any) -> str:
    return f"{len(table.rows)} rows"


def _track(line: str) -> None:
    """Append a line to the file ``TOY_TRACKER`` if the variable is set."""
    if path := os.environ.get("TOY_TRACKER"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


@harness.hookimpl
def harness_run_started(spec: RunSpec) -> None:
    _track(f"started {spec.backend}")


@harness.hookimpl
def harness_epoch_ended(epoch: EpochEnded) -> None:
    _track(f"epoch {epoch.epoch} of {epoch.epochs}")


@harness.hookimpl
def harness_run_finished(record: RunRecord) -> None:
    _track(f"finished {record.run_id}")
