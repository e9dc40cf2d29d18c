"""Devices, threads and 64-bit arrays: what JAX settles once a process."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import jax
import jax.extend.backend

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


def start(request: harness.SessionRequest) -> Any:
    """Set threads and 64-bit mode, and give the request's device.

    JAX listed its devices before the number of threads was known, and the pools have their size from then: on the CPU
    its client is started again, which ends arrays and programs of earlier sessions.

    Raises `harness.UnsupportedError` for a device that is not there, or a precision that it lacks.
    """
    known = {info.name: info for info in find_devices()}
    name = "cuda:0" if request.device == "cuda" else request.device
    if name not in known:
        raise harness.UnsupportedError(f"jax finds no device {request.device!r} here; it finds: {', '.join(known)}")
    if request.precision not in known[name].precisions:
        raise harness.UnsupportedError(
            f"jax cannot compute in {request.precision} on {name} ({known[name].description}); "
            f"it can in: {', '.join(known[name].precisions)}"
        )
    jax.config.update("jax_enable_x64", request.precision == "fp64")
    if name != "cpu":
        return _gpus()[int(name.removeprefix("cuda:"))]
    if os.environ.get(_THREADS) != str(request.threads):
        os.environ[_THREADS] = str(request.threads)
        jax.extend.backend.clear_backends()
    return jax.devices("cpu")[0]


def threads() -> str:
    """Threads of XLA's pools on the CPU, for the record."""
    return os.environ.get(_THREADS, "XLA's default")
