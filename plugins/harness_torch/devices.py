"""The devices that PyTorch can compute on here, and what each can do."""

from __future__ import annotations

from collections.abc import Callable

import torch

import harness
from harness import DeviceInfo


def find_devices() -> list[DeviceInfo]:
    """CUDA devices in their order, then the CPU."""
    devices = [_cuda(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    # bf16 without AVX-512 is emulated element by element, far slower than fp32; other platforms are not probed.
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
        # TF32 and bf16 arithmetic came with compute capability 8.0.
        precisions=("fp32", "tf32", "bf16", "fp16") if major >= 8 else ("fp32", "fp16"),
    )


def require(device: str, precision: str) -> DeviceInfo:
    """The device of that name. Raises `harness.UnsupportedError` where it is missing or lacks the precision."""
    devices = find_devices()
    name = "cuda:0" if device == "cuda" else device
    info = next((each for each in devices if each.name == name), None)
    if info is None:
        found = ", ".join(each.name for each in devices)
        raise harness.UnsupportedError(f"torch finds no device {device!r} on this machine; it finds: {found}")
    if precision not in info.precisions:
        raise harness.UnsupportedError(
            f"torch cannot compute in {precision} on {name} ({info.description}); "
            f"it can in: {', '.join(info.precisions)}"
        )
    return info


def allocated_bytes(device: str, size_bytes: int) -> int | None:
    """By how much the allocator's peak rises when a tensor of so many bytes is made; None on the CPU."""
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
    """Matrix products and copies in place, so that no memory is asked for while they are timed."""
    require(device, precision)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    dtype = _DTYPES.get(precision, torch.float32)

    def matrix(n: int) -> Callable[[], object]:
        a, b, out = (torch.ones(n, n, dtype=dtype, device=device) for _ in range(3))
        return lambda: torch.mm(a, b, out=out)

    def copy(size_bytes: int) -> Callable[[], object]:
        source, target = (torch.ones(size_bytes // 4, dtype=torch.float32, device=device) for _ in range(2))
        return lambda: target.copy_(source)

    def synchronize() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)

    return harness.RooflineKernels(matrix=matrix, copy=copy, synchronize=synchronize)
