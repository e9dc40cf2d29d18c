"""The PyTorch backend, for CPU and CUDA devices, and PyTorch networks for the built-in models.

To add a network to this backend, yield a `harness.NetworkRef` with ``backend="torch"`` and a ``build`` function that
returns a `harness.Network`:

- ``module`` is a ``torch.nn.Module`` on the CPU with float32 parameters. The module is called as ``module(**inputs)``
  with the prepared inputs as keyword arguments. Each input has the shape ``[B, ...]`` and the dtype of the prepared
  data. Images are passed as ``pixel_values`` ``[B, H, W, C]``, with channels last. The module returns outputs ``[B,
  info.outputs]``, which are logits or standardized regression targets. For token classification, the outputs are the
  logits of each position, ``[B, L, info.outputs]``. With ``bf16`` and ``fp16`` precision, the module runs inside
  ``torch.autocast``. The session provides the loss, the optimizer and the device.
- ``bindings`` contains every parameter of the module that requires a gradient, and the module's running statistics.
  `harness_torch.networks.bindings` creates the bindings for a module whose parameters have the canonical names.
- Dropout depends on ``module.training``. A ``forward`` that reads the value of a tensor on the host (``.item()``,
  ``if mask.all()``) makes the CPU wait for the GPU at every step and causes graph breaks in ``torch.compile``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from harness import DeviceInfo, NetworkRef, Session, SessionRequest

HARNESS_API_VERSION = "1.0"

_INSTALL = "ml-harness[torch]"


class TorchBackend(harness.Backend):
    """Backend that trains and runs models with PyTorch."""

    name = "torch"
    summary = "PyTorch on the CPU and on CUDA devices"
    requires = {"torch": _INSTALL, "transformers": _INSTALL}
    exports = {"onnx": dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "ml-harness[deploy]"), "torch-export": {}}
    attributions = {"integrated-gradients": {"captum": "ml-harness[explain]"}}
    packages = ("torch", "transformers")
    data_parallel = True
    checkpoints = True
    example_weights = True
    environment = {
        "TRANSFORMERS_VERBOSITY": "error",
        # With an on-disk compilation cache, the first step would be faster in repeated runs than in the first run.
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    }
    recipe_options = (
        "adagrad", "lion", "lamb", "l1", "decoupled_decay", "accumulation_steps", "class_weights", "ema_decay",
        "loss_scale", "frozen", "layer_decay", "distillation_alpha",
    )  # fmt: skip

    def devices(self) -> Sequence[DeviceInfo]:
        from harness_torch.devices import find_devices

        return find_devices()

    def open(self, request: SessionRequest) -> Session:
        from harness_torch.session import TorchSession

        return TorchSession(request)

    def allocated_bytes(self, device: str, size_bytes: int) -> int | None:
        from harness_torch.devices import allocated_bytes

        return allocated_bytes(device, size_bytes)

    def roofline_kernels(self, device: str, precision: str, threads: int) -> harness.RooflineKernels | None:
        from harness_torch.devices import roofline_kernels

        return roofline_kernels(device, precision, threads)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return True if `error` indicates a failed memory allocation on the device, in a CUDA library, or on the
        host."""
        torch = sys.modules.get("torch")
        if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
            return True
        if not isinstance(error, RuntimeError):
            return False
        signs = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
        return any(sign in str(error) for sign in signs)


@harness.hookimpl
def harness_backends() -> Iterator[harness.Backend]:
    yield TorchBackend()


@harness.hookimpl
def harness_networks() -> Iterator[NetworkRef]:
    for model in ("linear", "mlp", "lstm", "bert", "resnet", "wav2vec2"):
        yield harness.NetworkRef(model=model, backend="torch", build=f"harness_torch.networks.{model}:build")
