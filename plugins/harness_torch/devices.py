"""The devices and precisions that are available to PyTorch, and the kernels for measuring peak performance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

import harness
from harness import DeviceInfo


def find_devices() -> list[DeviceInfo]:
    """Return the CUDA devices in PyTorch's order, followed by the CPU."""
    devices = [_cuda(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    # Without AVX-512, bf16 is emulated and far slower than fp32. Other platforms are not checked.
    bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    cpu = DeviceInfo(
        name="cpu",
        description=f"CPU, {torch.backends.cpu.get_cpu_capability()} kernels",
        precisions=("fp32", "bf16", "fp64") if bf16 else ("fp32", "fp64"),
    )
    return [*devices, cpu]


def _cuda(index: int) -> DeviceInfo:
    major, minor = torch.cuda.get_device_capability(index)
    return DeviceInfo(
        name=f"cuda:{index}",
        description=f"{torch.cuda.get_device_name(index)}, compute capability {major}.{minor}",
        # TF32 and bf16 need compute capability 8.0.
        precisions=("fp32", "tf32", "bf16", "fp16") if major >= 8 else ("fp32", "fp16"),
        uuid=str(torch.cuda.get_device_properties(index).uuid),
    )


def require(device: str, precision: str) -> DeviceInfo:
    """Return the device with the given name.

    Raises `harness.UnsupportedError` if the device does not exist or does not support the precision.
    """
    devices = find_devices()
    name = "cuda:0" if device == "cuda" else device
    info = next((each for each in devices if each.name == name), None)
    if info is None:
        available = ", ".join(each.name for each in devices)
        raise harness.UnsupportedError(f"torch finds no device {device!r} on this machine; use one of: {available}")
    if precision not in info.precisions:
        raise harness.UnsupportedError(
            f"torch does not support precision {precision} on {name} ({info.description}); "
            f"use one of: {', '.join(info.precisions)}"
        )
    return info


def allocated_bytes(device: str, size_bytes: int) -> int | None:
    """Return the increase in peak allocated memory when a tensor of `size_bytes` is created, or None on the CPU."""
    if device == "cpu":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.max_memory_allocated(device)
    block = torch.ones(size_bytes, dtype=torch.uint8, device=device)
    torch.cuda.synchronize(device)
    del block
    return int(torch.cuda.max_memory_allocated(device) - before)


_DTYPES = {"fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}


def roofline_kernels(device: str, precision: str, threads: int) -> harness.RooflineKernels:
    """Return functions for matrix products and copies. Outputs are preallocated, so that timings exclude memory
    allocation."""
    require(device, precision)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    dtype = _DTYPES.get(precision, torch.float32)

    def random(rng: np.random.Generator, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape, np.float32)).to(device)

    def matrix(n: int) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        a, b = (random(rng, n, n).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    def copy(size_bytes: int) -> Callable[[], object]:
        source = random(np.random.default_rng(0), size_bytes // 4)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    def synchronize() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)

    return harness.RooflineKernels(matrix=matrix, copy=copy, synchronize=synchronize)
