"""The session for the ``jax`` backend: one model on one device."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
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
"""Number of programs that XLA's CPU client runs concurrently; with several threads they may finish in any order."""


class Training(NamedTuple):
    """Arrays that a training step updates. The arrays are donated to the step, which returns new arrays."""

    params: dict[str, Any]
    statistics: dict[str, Any]
    moments: Any
    step: Any
    """Number of completed steps, int32 ``()``; it determines the random key for dropout."""


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
        self._weights = Weights(network, request.parameters)
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
        params, statistics = self._weights.place(weights, self._device, self._float)
        with jax.default_device(self._device):
            self._training = Training(params, statistics, self._optimizer.init(params), jnp.zeros((), jnp.int32))

    def get_weights(self) -> dict[str, Array]:
        training = self._started()
        return self._weights.canonical(training.params | training.statistics)

    def train_step(self, batch: harness.Batch, learning_rate: float) -> jax.Array:
        self._training, loss = self._step(
            self._started(), self._key, batch.inputs, batch.targets, self._float.type(learning_rate)
        )
        self._in_flight.append(loss)
        return loss

    def gradients(self, batch: harness.Batch) -> tuple[float, dict[str, Array]]:
        training = self._started()
        key = jax.random.fold_in(self._key, self._gradient_calls)
        self._gradient_calls += 1
        (loss, _), gradients = self._gradients(training.params, training.statistics, key, batch.inputs, batch.targets)
        return float(loss), self._weights.canonical(gradients)

    def predict(self, inputs: Mapping[str, Array]) -> jax.Array:
        training = self._started()
        outputs = self._forward(training.params, training.statistics, inputs)
        self._in_flight.append(outputs)
        return outputs

    def fetch(self, handle: jax.Array) -> Array:
        return np.asarray(handle)

    def synchronize(self) -> None:
        jax.block_until_ready(list(self._in_flight))  # JAX does not treat a deque as a pytree
        self._in_flight.clear()

    def device_memory(self) -> harness.DeviceMemory | None:
        """Return the peak memory since the process started, because JAX cannot reset it; None on the CPU."""
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
        for name in ("_training", "_step", "_forward", "_gradients", "_network"):
            self.__dict__.pop(name, None)
        jax.clear_caches()

    def _started(self) -> Training:
        if self._training is None:
            raise harness.UsageError("the session has no weights yet; call set_weights first")
        return self._training

    # The methods below are traced by jax.jit, once per batch size.

    def _one_step(self, training: Training, key: Any, inputs: Any, targets: Any, rate: Any) -> tuple[Training, Any]:
        params, statistics, moments, step = training
        (loss, statistics), gradients = self._loss_and_gradients(
            params, statistics, jax.random.fold_in(key, step), inputs, targets
        )
        direction, moments = self._optimizer.update(gradients, moments, params)
        params = jax.tree.map(lambda p, u: p - rate * u, params, direction)
        return Training(params, statistics, moments, step + 1), loss

    def _loss_and_gradients(self, params: Any, statistics: Any, key: Any, inputs: Any, targets: Any) -> Any:
        def loss(params: Any) -> tuple[Any, Any]:
            outputs, changed = self._network(params, statistics, inputs, Mode(True, self._dtype, key))
            return self._loss(outputs.astype(self._float), targets), changed

        return jax.value_and_grad(loss, has_aux=True)(params)

    def _loss(self, outputs: Any, targets: Any) -> Any:
        if self._request.info.objective == "regression":
            return jnp.mean(jnp.square(outputs - targets))
        labels = jax.nn.one_hot(targets, self._request.info.outputs, dtype=self._float)
        labels = optax.smooth_labels(labels, self._request.recipe.label_smoothing)
        return optax.softmax_cross_entropy(outputs, labels).mean()

    def _evaluate(self, params: Any, statistics: Any, inputs: Any) -> Any:
        outputs, _ = self._network(params, statistics, inputs, Mode(False, self._dtype, None))
        return outputs.astype(self._float)
