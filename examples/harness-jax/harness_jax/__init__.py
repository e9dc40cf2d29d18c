"""A JAX backend for CPUs and NVIDIA GPUs, with JAX networks for the built-in models.

To add a network to this backend, yield a `harness.NetworkRef` with ``backend="jax"`` and a ``build`` function that
returns a `harness.Network`:

- ``module`` is a pure function, ``module(params, statistics, inputs, mode) -> (outputs, statistics)``. The function is
  traced inside `jax.jit`, once per batch size and mode.
- ``params`` is a dict of the trainable parameters, and ``statistics`` is a dict of the running statistics. In
  evaluation mode, the running statistics are returned unchanged. The arrays in both dicts are float32, or float64 if
  the precision is ``fp64``.
- ``inputs`` is a dict that maps names to prepared arrays ``[B, ...]``. ``mode`` is a `harness_jax.layers.Mode` that
  contains the training flag, the compute dtype and the random key for the step. ``outputs`` has the shape ``[B,
  outputs]`` and any floating dtype. The outputs are logits or predictions of standardized regression targets.
- ``bindings`` contains a `harness.Binding` for every canonical array. The ``variable`` of a binding is the key of its
  array in ``params`` or ``statistics``. The built-in networks use the canonical names and layouts, so their bindings
  need no conversion.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import harness

HARNESS_API_VERSION = "1.0"

_FAMILIES = ("linear", "mlp", "lstm", "bert", "resnet", "wav2vec2")


class JaxBackend(harness.Backend):
    """Backend that trains and runs models with JAX. Each step is one `jax.jit` program, compiled by XLA."""

    name = "jax"
    summary = "JAX on CPUs and NVIDIA GPUs, compiled by XLA"
    requires = {"jax": "pip install harness-jax", "optax": "pip install harness-jax"}
    packages = ("jax", "jaxlib", "optax")
    checkpoints = True
    environment = {
        # By default, JAX allocates three quarters of a GPU's memory at startup, which would hide the peak memory use.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # With an on-disk compilation cache, the first step would be faster in repeated runs than in the first run.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    example_weights = True
    recipe_options = (
        "adagrad", "lion", "lamb", "l1", "decoupled_decay", "accumulation_steps", "class_weights", "ema_decay",
        "frozen", "layer_decay", "distillation_alpha",
    )  # fmt: skip

    def devices(self) -> Sequence[harness.DeviceInfo]:
        from harness_jax.runtime import find_devices

        return find_devices()

    def open(self, request: harness.SessionRequest) -> harness.Session:
        from harness_jax.session import JaxSession

        return JaxSession(request)

    def roofline_kernels(self, device: str, precision: str, threads: int) -> harness.RooflineKernels | None:
        from harness_jax.runtime import roofline_kernels

        return roofline_kernels(device, precision, threads)

    def is_out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, MemoryError):
            return True
        jax = sys.modules.get("jax")
        return jax is not None and isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


@harness.hookimpl
def harness_backends() -> Iterator[harness.Backend]:
    yield JaxBackend()


@harness.hookimpl
def harness_networks() -> Iterator[harness.NetworkRef]:
    for family in _FAMILIES:
        yield harness.NetworkRef(model=family, backend="jax", build=f"harness_jax.networks.{family}:build")
