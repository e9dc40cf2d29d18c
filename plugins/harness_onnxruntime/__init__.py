"""The ONNX Runtime backend, which executes exported models and cannot train.

The model is an ONNX file, ``model.onnx``. The model's inputs are named as in `harness.DataInfo.inputs`, and its output
is named ``outputs``. The exported models can come from any backend that exports to ``onnx``.
The precision ``int8`` is described in `harness_onnxruntime.quantization`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from harness import DeviceInfo, Session, SessionRequest

HARNESS_API_VERSION = "1.0"

_INSTALL = "ml-harness[deploy]"


class OnnxRuntimeBackend(harness.Backend):
    """Backend that executes ONNX models with ONNX Runtime."""

    name = "onnxruntime"
    summary = "ONNX Runtime on the CPU and on CUDA devices"
    requires = {"onnxruntime": _INSTALL, "onnx": _INSTALL}
    packages = ("onnxruntime", "onnxruntime-gpu", "onnx")
    trains = False
    executes = "onnx"
    converts = ("int8",)

    def devices(self) -> Sequence[DeviceInfo]:
        from harness_onnxruntime.session import devices

        return devices()

    def open(self, request: SessionRequest) -> Session:
        from harness_onnxruntime.session import OnnxRuntimeSession

        return OnnxRuntimeSession(request)

    def convert(self, exported: Path, folder: Path, precision: str, examples: Mapping[str, Any]) -> dict[str, str]:
        from harness_onnxruntime.quantization import quantize

        return quantize(exported, folder, examples)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError) or "Failed to allocate memory" in str(error)


@harness.hookimpl
def harness_backends() -> Iterator[harness.Backend]:
    yield OnnxRuntimeBackend()
