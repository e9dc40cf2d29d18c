"""Plugin with a backend that exports the toy model, and a backend that executes the exported model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
from harness import DeviceInfo, ExportedSession, InferenceSession, NetworkRef, SessionRequest, UnsupportedError

HARNESS_API_VERSION = "1.0"
FORMAT, FILE = "toy-npz", "weights.npz"
FAULT = "TOY_EXPORT_FAULT"
"""Environment variable whose value ``wrong`` makes the exported model differ from the trained model."""


def outputs_of(path: Path, inputs: Mapping[str, Any]) -> Any:
    import numpy as np

    with np.load(path) as arrays:
        return inputs["features"] @ arrays["linear.weight"].T + arrays["linear.bias"]


class ExportingSession(InferenceSession):
    def set_weights(self, weights: Mapping[str, Any]) -> None:
        self.weights = {name: array.copy() for name, array in weights.items()}

    def get_weights(self) -> dict[str, Any]:
        return {name: array.copy() for name, array in self.weights.items()}

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        return inputs["features"] @ self.weights["linear.weight"].T + self.weights["linear.bias"]

    def fetch(self, handle: Any) -> Any:
        return handle

    def synchronize(self) -> None:
        pass

    def export(self, format_: str, folder: Path, inputs: Mapping[str, Any]) -> Any:
        import numpy as np

        factor = np.float32(1.01 if os.environ.get(FAULT) == "wrong" else 1)
        np.savez(folder / FILE, **{name: factor * array for name, array in self.weights.items()})
        return lambda arrays: outputs_of(folder / FILE, arrays)


class Exporting(harness.Backend):
    name = "toy-exporter"
    summary = "export of the toy model"
    requires = {"numpy": "pip install numpy"}
    packages = ("numpy",)
    trains = False
    exports = {FORMAT: {"numpy": "pip install numpy"}, "toy-absent": {"no_such_module": "pip install no-such-module"}}

    def devices(self) -> Sequence[DeviceInfo]:
        return [DeviceInfo(name="cpu", description="the host", precisions=("fp32",))]

    def open(self, request: SessionRequest) -> ExportingSession:
        return ExportingSession()


class EngineSession(ExportedSession):
    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        return outputs_of(self._path, inputs)

    def fetch(self, handle: Any) -> Any:
        return handle

    def synchronize(self) -> None:
        pass


class Engine(harness.Backend):
    name = "toy-engine"
    summary = "execution of the exported toy model"
    requires = {"numpy": "pip install numpy"}
    packages = ("numpy",)
    trains = False
    executes = FORMAT
    converts = ("int8",)

    def devices(self) -> Sequence[DeviceInfo]:
        return [DeviceInfo(name="cpu", description="the host", precisions=("fp32", "int8"))]

    def open(self, request: SessionRequest) -> EngineSession:
        if request.device != "cpu" or request.precision not in ("fp32", "int8"):
            raise UnsupportedError(f"toy-engine computes only in fp32 and int8 on cpu, not {request.precision}")
        assert request.exported is not None
        return EngineSession(request.exported)

    def convert(self, exported: Path, folder: Path, precision: str, examples: Mapping[str, Any]) -> dict[str, str]:
        import numpy as np

        with np.load(exported / FILE) as arrays:
            scales = {name: np.abs(array).max() / 127 or 1.0 for name, array in arrays.items()}
            np.savez(folder / FILE, **{n: np.float32(s * np.round(arrays[n] / s)) for n, s in scales.items()})
        return {"toy_calibration": str(len(examples["features"]))}


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    yield Exporting()
    yield Engine()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    yield NetworkRef(model="toy", backend="toy-exporter", build="harness_toy:build")
