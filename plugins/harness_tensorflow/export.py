"""Export of TensorFlow functions as SavedModel and to ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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

    _convert(module.serve, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def outputs(inputs: Mapping[str, Any]) -> Any:
        (found,) = session.run(["outputs"], dict(inputs))
        return found

    return outputs


def _convert(serve: Any, path: Path) -> None:
    """Convert a function to ONNX. Raises `harness.UnsupportedError` if the graph contains an operation that cannot be
    converted."""
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(
        serve, serve.input_signature, opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
    )
    unknown = sorted({node.op_type for node in _nodes(model.graph) if not onnx.defs.has(node.op_type, node.domain)})
    if unknown:
        raise harness.UnsupportedError(
            f"the tensorflow backend cannot convert the TensorFlow operation{'s' if len(unknown) > 1 else ''} "
            f"{', '.join(unknown)} to ONNX; use other operations in the network, or run: harness export RUN --format "
            "savedmodel"
        )
    onnx.save(model, path)


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of an ONNX graph and of the graphs that it contains, such as the body of a loop."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(inner)


def _erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """Replace Erfc(x), which the exact GELU of Keras and TensorFlow contains, by 1 - Erf(x).

    ONNX has no operation Erfc. In float32, the absolute error of the difference is at most one rounding error of 1.
    """
    from tf2onnx.utils import map_onnx_to_numpy_type

    (operand,), (output,) = node.input, node.output
    dtype, shape = graph.get_dtype(output), graph.get_shape(output)
    graph.remove_node(name)
    one = graph.make_const(f"{name}/one", np.array(1, map_onnx_to_numpy_type(dtype)))
    erf = graph.make_node("Erf", [operand], dtypes=[dtype], shapes=[shape])
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=[output], name=name, dtypes=[dtype], shapes=[shape])
