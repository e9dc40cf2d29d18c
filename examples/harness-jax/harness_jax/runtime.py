"""Devices, threads and 64-bit arrays: what JAX settles once a process."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.backend
import jax.numpy as jnp

import harness

_THREADS = "PJRT_NPROC"
"""Variable that XLA's CPU client takes the size of its thread pools from when it starts. JAX does not document it
(xla/pjrt/cpu, ``DefaultThreadPoolSize``); `tests/test_runtime.py` notices when it stops working."""


def _keep_freed_memory() -> None:
    """Tell glibc to keep memory that is freed for the next allocation (mallopt(3)).

    A program's temporary arrays are one allocation, made at every step. One of more than 32 MiB would be given back to
    the system each time, and its pages come anew: a third of the time of a training step (bert-tiny 55 ms instead of
    80 ms). Before XLA starts its threads, because a thread keeps its arena, and only the main one grows without bounds.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(option, value)


_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def find_devices() -> list[harness.DeviceInfo]:
    """CUDA devices in their order, then the CPU."""
    _keep_freed_memory()
    return [*(_described(index, gpu) for index, gpu in enumerate(_gpus())), _CPU]


_CPU = harness.DeviceInfo(name="cpu", description="CPU, compiled by XLA", precisions=("fp32", "bf16", "fp64"))


def _gpus() -> list[Any]:
    try:
        return list(jax.devices("cuda"))
    except RuntimeError:  # JAX's way to say that it has no such platform here
        return []


def _described(index: int, gpu: Any) -> harness.DeviceInfo:
    # TF32 and bf16 arithmetic came with compute capability 8.0.
    ampere = float(gpu.compute_capability) >= 8
    return harness.DeviceInfo(
        name=f"cuda:{index}",
        description=f"{gpu.device_kind}, compute capability {gpu.compute_capability}",
        precisions=("fp32", "tf32", "bf16") if ampere else ("fp32",),
    )


MATMUL = {"fp32": "highest", "tf32": "tensorfloat32", "bf16": "default", "fp64": "highest"}
"""`jax.default_matmul_precision`, of convolutions too. On a GPU JAX's own default for float32 is TF32."""

COMPUTE = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp64": "float64"}
"""The dtype of each precision."""


def start(device: str, precision: str, thread_count: int) -> Any:
    """Set threads and 64-bit mode, and give the device of that name.

    JAX listed its devices before the number of threads was known, and the pools have their size from then: on the CPU
    its client is started again, which ends arrays and programs of earlier sessions.

    Raises `harness.UnsupportedError` for a device that is not there, or a precision that it lacks.
    """
    known = {info.name: info for info in find_devices()}
    name = "cuda:0" if device == "cuda" else device
    if name not in known:
        raise harness.UnsupportedError(f"jax finds no device {device!r} here; it finds: {', '.join(known)}")
    if precision not in known[name].precisions:
        raise harness.UnsupportedError(
            f"jax cannot compute in {precision} on {name} ({known[name].description}); "
            f"it can in: {', '.join(known[name].precisions)}"
        )
    jax.config.update("jax_enable_x64", precision == "fp64")
    if name != "cpu":
        return _gpus()[int(name.removeprefix("cuda:"))]
    if os.environ.get(_THREADS) != str(thread_count):
        os.environ[_THREADS] = str(thread_count)
        jax.extend.backend.clear_backends()
    return jax.devices("cpu")[0]


def threads() -> str:
    """Threads of XLA's pools on the CPU, for the record."""
    return os.environ.get(_THREADS, "XLA's default")


def roofline_kernels(device: str, precision: str, thread_count: int) -> harness.RooflineKernels:
    """Matrix products and copies into the memory of the one before, which is donated: none is asked for in time."""
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

    def matrix(n: int) -> Callable[[], Any]:
        return repeated(jnp.matmul, *(jnp.ones((n, n), COMPUTE[precision], device=place) for _ in range(2)))

    def copy(size_bytes: int) -> Callable[[], Any]:
        return repeated(jnp.copy, jnp.ones(size_bytes // 4, jnp.float32, device=place))

    def synchronize() -> None:
        jax.block_until_ready(last[0])

    return harness.RooflineKernels(matrix=matrix, copy=copy, synchronize=synchronize)
