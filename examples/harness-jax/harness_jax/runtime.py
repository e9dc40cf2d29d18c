"""Devices, thread pools and 64-bit mode, which JAX configures per process."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.backend
import jax.numpy as jnp
import numpy as np

import harness

_THREADS = "PJRT_NPROC"
"""Environment variable that sets the size of the thread pools. XLA's CPU client reads the variable on startup. JAX does
not document this variable (see ``DefaultThreadPoolSize`` in xla/pjrt/cpu). If the variable has no effect,
`tests/test_runtime.py` fails."""


def _keep_freed_memory() -> None:
    """Configure glibc to keep freed memory for the next allocation (mallopt(3)).

    At every step, XLA allocates the temporary arrays of a program in one block. By default, a block of more than 32 MiB
    is returned to the system after each step. Allocating its pages again accounts for a third of a training step: for
    bert-tiny, a step takes 80 ms instead of 55 ms. Call this function before XLA starts its threads, because a thread
    keeps the arena that it starts with, and only the main arena can grow without limit.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(option, value)


_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def find_devices() -> list[harness.DeviceInfo]:
    """Return the CUDA devices in JAX's order, followed by the CPU."""
    _keep_freed_memory()
    return [*(_described(name, gpu) for name, gpu in _gpus().items()), _CPU]


_CPU = harness.DeviceInfo(name="cpu", description="CPU, compiled by XLA", precisions=("fp32", "bf16", "fp64"))


def _gpus() -> dict[str, Any]:
    """Return a mapping from device names to GPUs.

    The name contains `local_hardware_id`, which is the number of the GPU in the CUDA driver. The number does not change
    if the ``jax_cuda_visible_devices`` option excludes other GPUs.
    """
    try:
        return {f"cuda:{gpu.local_hardware_id}": gpu for gpu in jax.devices("cuda")}
    except RuntimeError:  # raised if JAX has no such platform
        return {}


def _described(name: str, gpu: Any) -> harness.DeviceInfo:
    # TF32 and bf16 need compute capability 8.0.
    ampere = float(gpu.compute_capability) >= 8
    return harness.DeviceInfo(
        name=name,
        description=f"{gpu.device_kind}, compute capability {gpu.compute_capability}",
        precisions=("fp32", "tf32", "bf16") if ampere else ("fp32",),
    )


MATMUL = {"fp32": "highest", "tf32": "tensorfloat32", "bf16": "default", "fp64": "highest"}
"""Value of `jax.default_matmul_precision` for each precision. The value also applies to convolutions. On a GPU, JAX's
default for float32 is TF32."""

COMPUTE = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp64": "float64"}
"""Compute dtype for each precision."""


def start(device: str, precision: str, thread_count: int) -> Any:
    """Set the number of threads and the 64-bit mode, and return the requested device.

    XLA's CPU client sets the size of its thread pools when JAX lists its devices for the first time. To change the
    size, this function restarts the client, which invalidates the arrays and programs of earlier sessions.

    Raises `harness.UnsupportedError` if the device does not exist or does not support the precision.
    """
    known = {info.name: info for info in find_devices()}
    name = "cuda:0" if device == "cuda" else device
    if name not in known:
        raise harness.UnsupportedError(
            f"jax finds no device {device!r} on this machine; use one of: {', '.join(known)}"
        )
    if precision not in known[name].precisions:
        raise harness.UnsupportedError(
            f"jax does not support precision {precision} on {name} ({known[name].description}); "
            f"use one of: {', '.join(known[name].precisions)}"
        )
    jax.config.update("jax_enable_x64", precision == "fp64")
    if name != "cpu":
        return _gpus()[name]
    if os.environ.get(_THREADS) != str(thread_count):
        os.environ[_THREADS] = str(thread_count)
        jax.extend.backend.clear_backends()
    return jax.devices("cpu")[0]


def threads() -> str:
    """Return the size of XLA's thread pools on the CPU, which is stored in the record."""
    return os.environ.get(_THREADS, "XLA's default")


def roofline_kernels(device: str, precision: str, thread_count: int) -> harness.RooflineKernels:
    """Return functions for matrix products and copies. Each call reuses the memory of the previous result, so that
    timings do not include memory allocation.
    """
    place = start(device, precision, thread_count)
    last: list[Any] = [None]

    def repeated(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        into = [jnp.zeros_like(arguments[0])]
        with jax.default_matmul_precision(MATMUL[precision]):
            once = jax.jit(lambda into, *arguments: function(*arguments), donate_argnums=0, keep_unused=True)
            compiled = once.lower(*into, *arguments).compile()

        def call() -> Any:
            last[0] = into[0] = compiled(into[0], *arguments)
            return last[0]

        return call

    def random(rng: np.random.Generator, *shape: int) -> Any:
        return jax.device_put(rng.standard_normal(shape, np.float32), place)

    def matrix(n: int) -> Callable[[], Any]:
        rng = np.random.default_rng(0)
        return repeated(jnp.matmul, *(random(rng, n, n).astype(COMPUTE[precision]) for _ in range(2)))

    def copy(size_bytes: int) -> Callable[[], Any]:
        return repeated(jnp.copy, random(np.random.default_rng(0), size_bytes // 4))

    def synchronize() -> None:
        jax.block_until_ready(last[0])

    return harness.RooflineKernels(matrix=matrix, copy=copy, synchronize=synchronize)
