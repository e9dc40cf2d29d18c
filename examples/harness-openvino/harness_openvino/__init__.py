"""Inference backend that executes exported models with OpenVINO on the CPU.

The model is an ONNX file, ``model.onnx``, which harness exports with another installed backend. The model's inputs are
named as in `harness.DataInfo.inputs`, and its output is named ``outputs``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import harness
from harness import DeviceInfo, ExportedSession, SessionRequest, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

HARNESS_API_VERSION = "1.0"


class OpenVinoSession(ExportedSession):
    """Session for an exported model, which is compiled for the CPU in fp32."""

    def __init__(self, request: SessionRequest) -> None:
        import openvino

        assert request.exported is not None
        settings = {
            "INFERENCE_NUM_THREADS": request.threads,
            "INFERENCE_PRECISION_HINT": "f32",  # the default on recent processors is bf16
            "NUM_STREAMS": "1",
        }
        self._model = openvino.Core().compile_model(request.exported / "model.onnx", "CPU", settings)
        self._settings = {name.lower(): str(self._model.get_property(name)) for name in settings}

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        outputs: Array = self._model(dict(inputs))["outputs"]
        return outputs

    def fetch(self, handle: Any) -> Array:
        outputs: Array = handle
        return outputs

    def synchronize(self) -> None:
        """Do nothing, because `predict` returns only after the computation has finished."""

    def notes(self) -> dict[str, str]:
        return dict(self._settings)


class OpenVinoBackend(harness.Backend):
    """Backend that executes ONNX models with OpenVINO."""

    name = "openvino"
    summary = "OpenVINO on the CPU"
    requires = {"openvino": "pip install openvino"}
    packages = ("openvino",)
    trains = False
    executes = "onnx"

    def devices(self) -> Sequence[DeviceInfo]:
        return [DeviceInfo(name="cpu", description="host processor", precisions=("fp32",))]

    def open(self, request: SessionRequest) -> OpenVinoSession:
        if (request.device, request.precision) != ("cpu", "fp32"):
            raise UnsupportedError(
                f"OpenVINO does not support precision {request.precision} on {request.device}; use fp32 on cpu"
            )
        if request.compile:
            raise UnsupportedError("OpenVINO always compiles the model; remove --compile")
        return OpenVinoSession(request)


@harness.hookimpl
def harness_backends() -> Iterator[harness.Backend]:
    yield OpenVinoBackend()
