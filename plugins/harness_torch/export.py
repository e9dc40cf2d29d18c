"""Export of PyTorch modules to ONNX and to the format of ``torch.export``."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import harness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Function = Callable[[Mapping[str, Array]], Array]

ONNX, PROGRAM = "model.onnx", "model.pt2"


class FromDict(torch.nn.Module):
    """A module that takes its inputs as a dictionary of tensors, so that `torch.export` can trace any input
    signature."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        outputs: torch.Tensor = self.module(**inputs)
        return outputs


def export(module: torch.nn.Module, format_: str, folder: Path, inputs: Mapping[str, Array], threads: int) -> Function:
    """Export a module in evaluation mode, and return a function that computes its outputs from the exported file.

    The number of examples may vary. All other sizes are fixed. Raises `harness.UnsupportedError` if the format is not
    supported.
    """
    tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    wrapped, shapes = FromDict(module).eval(), {"inputs": {name: {0: torch.export.Dim("batch")} for name in tensors}}
    if format_ == "onnx":
        return _onnx(wrapped, folder / ONNX, tensors, shapes, threads)
    if format_ == "torch-export":
        return _program(wrapped, folder / PROGRAM, tensors, shapes)
    raise harness.UnsupportedError(f"the torch backend cannot export models as {format_}")


def _onnx(module: torch.nn.Module, path: Path, tensors: dict[str, torch.Tensor], shapes: Any, threads: int) -> Function:
    import onnxruntime

    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (),
            path,
            kwargs={"inputs": tensors},
            input_names=list(tensors),
            output_names=["outputs"],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def outputs(inputs: Mapping[str, Array]) -> Array:
        (found,) = session.run(["outputs"], dict(inputs))
        array: Array = found
        return array

    return outputs


def _program(module: torch.nn.Module, path: Path, tensors: dict[str, torch.Tensor], shapes: Any) -> Function:
    with torch.no_grad():
        program = torch.export.export(module, (), {"inputs": tensors}, dynamic_shapes=shapes)
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()

    def outputs(inputs: Mapping[str, Array]) -> Array:
        with torch.inference_mode():
            found: Array = loaded(inputs={name: torch.from_numpy(array) for name, array in inputs.items()}).numpy()
        return found

    return outputs
