"""Export of TensorFlow functions as SavedModel and to ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

import harness

Function = Callable[[Mapping[str, Any]], Any]
ONNX, OPSET = "model.onnx", 18


def export(module: Any, format_: str, folder: Path, names: Sequence[str], threads: int) -> Function:
    """Export the function ``module.serve``, and return a function that computes its outputs from the exported file.

    `names` are the names of the inputs, in the order of the arguments. Raises `harness.UnsupportedError` if the format
    is not supported.
    """
    if format_ == "savedmodel":
        return _saved_model(module, folder, names)
    if format_ == "onnx":
        return _onnx(module, folder / ONNX, threads)
    raise harness.UnsupportedError(f"the tensorflow backend cannot export models as {format_}")


def _saved_model(module: Any, folder: Path, names: Sequence[str]) -> Function:
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]

    def outputs(inputs: Mapping[str, Any]) -> Any:
        return served(**{name: tf.convert_to_tensor(inputs[name]) for name in names})["outputs"].numpy()

    return outputs


def _onnx(module: Any, path: Path, threads: int) -> Function:
    import onnxruntime
    import tf2onnx

    tf2onnx.convert.from_function(module.serve, module.serve.input_signature, opset=OPSET, output_path=str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def outputs(inputs: Mapping[str, Any]) -> Any:
        (found,) = session.run(["outputs"], dict(inputs))
        return found

    return outputs
