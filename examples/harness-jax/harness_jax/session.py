"""The session for the ``jax`` backend: one model on one device."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import harness
from harness_jax import optimizers, runtime
from harness_jax.layers import Mode
from harness_jax.weights import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_MAX_IN_FLIGHT = 32
"""Number of programs that XLA's CPU client runs concurrently. With several threads, these programs may finish in any
order."""


class Training(NamedTuple):
    """Arrays that a training step updates. The memory of these arrays is donated to the step, which returns new
    arrays."""

    params: dict[str, Any]
    statistics: dict[str, Any]
    moments: Any
    step: Any
    """Number of completed steps, int32 ``()``. The number determines the random key for dropout."""


class Wanted(NamedTuple):
    """Targets and weights used to compute the loss of a batch."""

    targets: Any
    teacher_logits: Any
    """Logits of the teacher, or None without distillation."""
    weights: Any
    """Weights of the examples ``[B]``, or None."""

    def part(self, start: int, end: int) -> Wanted:
        return Wanted(*(None if array is None else array[start:end] for array in self))


class JaxSession(harness.Session):
    """Session for a JAX network. Each training step is one compiled program.

    Raises `harness.UnsupportedError` if the device or precision is unavailable, and `harness.PluginError` if the
    bindings of the network do not match the parameters of the model.
    """

    def __init__(self, request: harness.SessionRequest) -> None:
        self._request = request
        self._device = runtime.start(request.device, request.precision, request.threads)
        network = request.build(request.config, request.info, request.recipe.dropout)
        self._network = network.module
        self._weights = Weights(network, request.parameters, request.frozen)
        self._factors = self._weights.factors(request.rate_factors)
        self._frozen: dict[str, Any] = {}
        self._average: dict[str, Any] | None = None
        self._optimizer = optimizers.build(request.recipe, self._weights.decays)
        self._dtype = jnp.dtype(runtime.COMPUTE[request.precision])
        self._float = jnp.dtype("float64" if request.precision == "fp64" else "float32")
        self._key = jax.device_put(jax.random.key(request.seed), self._device)
        self._training: Training | None = None
        self._gradient_calls = 0
        self._in_flight: collections.deque[Any] = collections.deque(maxlen=_MAX_IN_FLIGHT)
        self._step = self._compiled(self._one_step, donate=0)
        self._forward = self._compiled(self._evaluate)
        self._gradients = self._compiled(self._loss_and_gradients)
        self._mixed = self._compiled(_mixed)

    def _compiled(self, function: Callable[..., Any], donate: int | None = None) -> Callable[..., Any]:
        deterministic = self._request.deterministic and self._device.platform != "cpu"
        options = {"xla_gpu_deterministic_ops": True} if deterministic else None

        def traced(*arguments: Any) -> Any:
            with jax.default_matmul_precision(runtime.MATMUL[self._request.precision]):
                return function(*arguments)

        compiled: Callable[..., Any] = jax.jit(
            traced, donate_argnums=() if donate is None else donate, compiler_options=options
        )
        return compiled

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        params, statistics, self._frozen = self._weights.place(weights, self._device, self._float)
        self._average = None
        with jax.default_device(self._device):
            # Keep the number of steps, because dropout masks would be repeated otherwise.
            step = jnp.zeros((), jnp.int32) if self._training is None else self._training.step
            self._training = Training(params, statistics, self._optimizer.init(params), step)

    def get_weights(self) -> dict[str, Array]:
        training = self._started()
        return self._weights.canonical(training.params | training.statistics | self._frozen)

    def state(self) -> dict[str, Array]:
        return {name: np.array(array) for name, array in _named(self._lasting()).items()}

    def set_state(self, state: Mapping[str, Array]) -> None:
        training = self._started()
        if any(name.startswith("average") for name in state):
            self._average = training.params | training.statistics  # determines the names and shapes
        lasting = self._lasting()
        expected = _named(lasting)
        problems = [f"missing {name}" for name in expected if name not in state]
        problems += [f"unexpected {name}" for name in state if name not in expected]
        problems += [
            f"{name} is {array.dtype} {array.shape}, not {expected[name].dtype} {expected[name].shape}"
            for name, array in state.items()
            if name in expected and (array.dtype, array.shape) != (expected[name].dtype, expected[name].shape)
        ]
        if problems:
            raise harness.PluginError(f"the state does not match the session: {'; '.join(problems[:8])}")
        # Copy, because a training step would overwrite the caller's memory.
        arrays = [jax.device_put(state[name], self._device, may_alias=False) for name in expected]
        restored = jax.tree.unflatten(jax.tree.structure(lasting), arrays)
        self._training, self._frozen, self._average = (restored[name] for name in ("training", "frozen", "average"))

    def _lasting(self) -> dict[str, Any]:
        """Return the arrays on which later training steps depend. The random key is not included, because it is derived
        from the seed."""
        return {"training": self._started(), "frozen": self._frozen, "average": self._average}

    def train_step(self, batch: harness.Batch, learning_rate: float) -> jax.Array:
        self._training, loss = self._step(
            self._started(), self._frozen, self._key, batch.inputs, self._wanted(batch), self._float.type(learning_rate)
        )
        self._in_flight.append(loss)
        return loss

    def gradients(self, batch: harness.Batch) -> tuple[float, dict[str, Array]]:
        training = self._started()
        key = jax.random.fold_in(self._key, self._gradient_calls)
        self._gradient_calls += 1
        loss, _, gradients = self._gradients(
            training.params, training.statistics, self._frozen, key, batch.inputs, self._wanted(batch)
        )
        return float(loss), self._weights.canonical(gradients)

    def _wanted(self, batch: harness.Batch) -> Wanted:
        logits = batch.teacher_logits if self._request.recipe.distillation_alpha else None
        return Wanted(batch.targets, logits, batch.example_weights)

    def update_average(self, weight: float) -> None:
        training = self._started()
        weights = training.params | training.statistics
        self._average = self._mixed(self._average or weights, weights, self._float.type(weight))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        kept = self._started()
        average = self._average or {}
        self._training = kept._replace(
            params={name: average[name] for name in kept.params},
            statistics={name: average[name] for name in kept.statistics},
        )
        try:
            yield
        finally:
            self._training = kept

    def predict(self, inputs: Mapping[str, Array]) -> jax.Array:
        training = self._started()
        outputs = self._forward(training.params | self._frozen, training.statistics, inputs)
        self._in_flight.append(outputs)
        return outputs

    def fetch(self, handle: jax.Array) -> Array:
        return np.asarray(handle)

    def synchronize(self) -> None:
        jax.block_until_ready(list(self._in_flight))  # JAX does not treat a deque as a pytree
        self._in_flight.clear()

    def device_memory(self) -> harness.DeviceMemory | None:
        """Return the peak memory since the process started, or None on the CPU. JAX cannot reset the peak."""
        if self._device.platform == "cpu":
            return None
        counters = self._device.memory_stats() or {}
        return harness.DeviceMemory(
            allocator_peak_bytes=counters.get("peak_bytes_in_use"),
            reserved_peak_bytes=counters.get("peak_pool_bytes"),
            driver_peak_bytes=None,
        )

    def notes(self) -> dict[str, str]:
        request = self._request
        return {
            "intra_op_threads": runtime.threads(),
            "dispatch": "asynchronous: Python prepares the next batch while XLA's threads compute",
            "compute_dtype": self._dtype.name,
            "matmul_precision": runtime.MATMUL[request.precision],
            "deterministic_ops": str(request.deterministic).lower(),
            "compile": "jax.jit, always on",
            "donation": "parameters, statistics and optimizer state",
        }

    def close(self) -> None:
        self.synchronize()
        for name in ("_training", "_frozen", "_average", "_step", "_forward", "_gradients", "_mixed", "_network"):
            self.__dict__.pop(name, None)
        jax.clear_caches()

    def _started(self) -> Training:
        if self._training is None:
            raise harness.UsageError("the session has no weights yet; call set_weights first")
        return self._training

    # The methods below are traced by jax.jit, once per batch size.

    def _one_step(
        self, training: Training, frozen: Any, key: Any, inputs: Any, wanted: Wanted, rate: Any
    ) -> tuple[Training, Any]:
        params, statistics, moments, step = training
        loss, statistics, gradients = self._loss_and_gradients(
            params, statistics, frozen, jax.random.fold_in(key, step), inputs, wanted
        )
        direction, moments = self._optimizer.update(gradients, moments, params)
        params = {name: p - self._factors[name] * rate * direction[name] for name, p in params.items()}
        return Training(params, statistics, moments, step + 1), loss

    def _loss_and_gradients(
        self, params: Any, statistics: Any, frozen: Any, key: Any, inputs: Any, wanted: Wanted
    ) -> tuple[Any, Any, Any]:
        """Return the mean loss, the new running statistics and the gradients."""
        count = self._request.recipe.accumulation_steps
        if count == 1:
            return self._part_gradients(params, statistics, frozen, key, inputs, wanted)
        total, sums = jnp.zeros((), self._float), jax.tree.map(jnp.zeros_like, params)
        for number, (start, end) in enumerate(harness.Batch.bounds(len(wanted.targets), count)):
            part = {name: array[start:end] for name, array in inputs.items()}
            loss, statistics, gradients = self._part_gradients(
                params, statistics, frozen, jax.random.fold_in(key, number), part, wanted.part(start, end)
            )
            share = (end - start) / len(wanted.targets)
            total, sums = total + share * loss, jax.tree.map(lambda s, g, f=share: s + f * g, sums, gradients)
        return total, statistics, sums

    def _part_gradients(
        self, params: Any, statistics: Any, frozen: Any, key: Any, inputs: Any, wanted: Wanted
    ) -> tuple[Any, Any, Any]:
        def loss(params: Any) -> tuple[Any, Any]:
            outputs, changed = self._network(params | frozen, statistics, inputs, Mode(True, self._dtype, key))
            return self._loss(outputs.astype(self._float), wanted), changed

        (value, changed), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return value, changed, gradients

    def _loss(self, outputs: Any, wanted: Wanted) -> Any:
        targets, alpha = wanted.targets, self._request.recipe.distillation_alpha
        of_examples = 1 if wanted.weights is None else wanted.weights.astype(self._float)
        if self._request.info.objective == "regression":
            return jnp.mean(jnp.square(outputs - targets).mean(axis=1) * of_examples)
        labels = jax.nn.one_hot(targets, self._request.info.outputs, dtype=self._float)
        labels = optax.smooth_labels(labels, self._request.recipe.label_smoothing)
        losses = optax.softmax_cross_entropy(outputs, labels)
        of_classes = self._request.class_weights
        if of_classes is not None:
            losses = losses * jnp.asarray(of_classes, self._float)[targets]
        hard = (losses * of_examples).mean()
        if not alpha:
            return hard
        return (1 - alpha) * hard + alpha * (self._soft_losses(outputs, wanted.teacher_logits) * of_examples).mean()

    def _soft_losses(self, outputs: Any, teacher: Any) -> Any:
        """Return the distillation losses (`harness.Recipe.distillation_alpha`), multiplied by T^2."""
        temperature = self._request.recipe.distillation_temperature
        student, soft = (jax.nn.log_softmax(logits / temperature) for logits in (outputs, teacher.astype(self._float)))
        return temperature**2 * optax.losses.kl_divergence_with_log_targets(student, soft)

    def _evaluate(self, params: Any, statistics: Any, inputs: Any) -> Any:
        outputs, _ = self._network(params, statistics, inputs, Mode(False, self._dtype, None))
        return outputs.astype(self._float)


def _named(tree: Any) -> dict[str, Any]:
    """Return the arrays in a tree, keyed by path, such as ``training.params.classifier.weight``."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): array
        for path, array in jax.tree_util.tree_leaves_with_path(tree)
    }


def _mixed(average: Any, weights: Any, weight: Any) -> Any:
    """Return the moving average after an update with `weights`."""
    return jax.tree.map(lambda a, w: a + weight * (w - a), average, weights)
