"""A JAX backend of harness, on CPU and NVIDIA GPU, and the JAX networks of the models that ship with harness.

To bring a network of your own to this backend, yield a `harness.NetworkRef` with ``backend="jax"`` and a ``build`` that
returns a `harness.Network`:

- ``module`` is a pure function, ``module(params, statistics, inputs, mode) -> (outputs, statistics)``. It is traced
  inside `jax.jit`, once for each batch size, in training and in evaluation mode.
- ``params`` and ``statistics`` are dicts of arrays: of the model's trainable parameters, and of its running statistics,
  which come back as they are in evaluation mode. Both are float32 (float64 at precision ``fp64``).
- ``inputs`` is a dict of the prepared arrays ``[B, ...]`` under their names. ``mode`` is a `harness_jax.layers.Mode`:
  whether this is training, the dtype to compute in, and the step's random key. ``outputs`` are ``[B, outputs]`` in any
  floating dtype: logits, or standardized regression targets.
- ``bindings`` names every canonical array; a `harness.Binding`'s ``variable`` is the array's key in those dicts. The
  networks here keep the canonical names and layouts, so that their bindings change nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import harness

HARNESS_API_VERSION = "1.0"

_FAMILIES = ("linear", "mlp", "lstm", "bert", "resnet", "wav2vec2")


class JaxBackend(harness.Backend):
    """One `jax.jit` program a training step, compiled by XLA, with its arrays donated to the next step."""

    name = "jax"
    summary = "JAX, compiled by XLA, on CPU or NVIDIA GPU"
    requires = {"jax": "pip install harness-jax", "optax": "pip install harness-jax"}
    packages = ("jax", "jaxlib", "optax")
    environment = {
        # By default JAX takes three quarters of a GPU's memory at its start, and peaks would say nothing.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # A compilation cache on disk would make a repeat's first step cheaper than the first run's.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }

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
