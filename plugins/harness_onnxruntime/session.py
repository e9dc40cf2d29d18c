"""The session for the ``onnxruntime`` backend: one model on one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnxruntime

import harness
from harness import DeviceInfo, ExportedSession, SessionRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MODEL = "model.onnx"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def devices() -> Sequence[DeviceInfo]:
    """Return the CUDA devices, if this build of ONNX Runtime supports them, followed by the CPU."""
    found = [
        DeviceInfo(name=f"cuda:{number}", description=name, precisions=("fp32", "tf32"), uuid=uuid)
        for number, (name, uuid) in enumerate(_gpus() if CUDA in onnxruntime.get_available_providers() else ())
    ]
    return [*found, DeviceInfo(name="cpu", description="host processor", precisions=("fp32", "int8"))]


def _gpus() -> list[tuple[str, str]]:
    """Return the names and UUIDs of the GPUs, in the CUDA driver's order."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    return [(str(pynvml.nvmlDeviceGetName(handle)), str(pynvml.nvmlDeviceGetUUID(handle))) for handle in handles]


class OnnxRuntimeSession(ExportedSession):
    """Session for an exported model.

    Raises `harness.UnsupportedError` if the device or precision is not available, if the compiler is requested, or if
    ONNX Runtime would use another device.
    """

    def __init__(self, request: SessionRequest) -> None:
        _check(request)
        assert request.exported is not None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.use_deterministic_compute = request.deterministic
        self._session = onnxruntime.InferenceSession(
            str(request.exported / MODEL), options, providers=[_provider(request)]
        )
        used = self._session.get_providers()[0]
        if used != _provider(request)[0]:  # if a provider cannot be loaded, ONNX Runtime uses another one
            raise harness.UnsupportedError(f"ONNX Runtime cannot use {request.device}, only {used}")
        self._notes = {
            "provider": used,
            "intra_op_threads": str(options.intra_op_num_threads),
            "inter_op_threads": str(options.inter_op_num_threads),
            "execution_mode": "sequential",
            "graph_optimization": "all",
            "deterministic_compute": str(request.deterministic).lower(),
        }

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        (outputs,) = self._session.run(["outputs"], dict(inputs))
        array: Array = outputs
        return array

    def fetch(self, handle: Any) -> Array:
        array: Array = handle
        return array

    def synchronize(self) -> None:
        """Do nothing, because `predict` returns only after the computation has finished."""

    def notes(self) -> dict[str, str]:
        return dict(self._notes)

    def close(self) -> None:
        del self._session


def _check(request: SessionRequest) -> None:
    """Raise `harness.UnsupportedError` unless the device and all settings of the request are supported."""
    known = {device.name: device for device in devices()}
    device = known.get("cuda:0" if request.device == "cuda" else request.device)
    if device is None:
        raise harness.UnsupportedError(
            f"ONNX Runtime finds no device {request.device!r}; use one of: {', '.join(known)}"
        )
    if request.precision not in device.precisions:
        raise harness.UnsupportedError(
            f"ONNX Runtime does not support precision {request.precision} on {device.name}; use one of: "
            f"{', '.join(device.precisions)}"
        )
    if request.compile:
        raise harness.UnsupportedError("ONNX Runtime always optimizes the graph and has no compiler; remove --compile")


def _provider(request: SessionRequest) -> tuple[str, dict[str, str]]:
    """Return the execution provider for the device, with its options."""
    if request.device == "cpu":
        return CPU, {}
    number = request.device.partition(":")[2] or "0"
    return CUDA, {"device_id": number, "use_tf32": str(int(request.precision == "tf32"))}
