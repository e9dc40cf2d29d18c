"""Quantization of ONNX models to 8-bit integers."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import harness
from harness_onnxruntime.session import CPU, MODEL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

PRODUCTS = ["MatMul", "Gemm"]
"""Operators that are quantized in every model."""
BATCH = 32
"""Number of examples per calibration batch."""
LARGEST_ERROR = 0.1
"""Largest permitted norm of the difference between the outputs of a quantized model and those of the fp32 model,
relative to the norm of the fp32 outputs."""


def quantize(exported: Path, folder: Path, examples: Mapping[str, Array]) -> dict[str, str]:
    """Write a model with 8-bit weights to `folder`, and return a description for the record.

    In models with convolutions, the weights and activations of `PRODUCTS` and of the convolutions are quantized. The
    ranges of the activations are determined from half of the examples (static quantization). Dynamic quantization is
    used if the model has no convolutions, or if its outputs for the other half of the examples differ too much from
    those of the fp32 model. With dynamic quantization, only `PRODUCTS` are quantized, and the ranges of their
    activations are computed for each batch. All other operators compute in fp32. The weights are quantized per channel
    to 7 bits (``reduce_range``), because processors without VNNI instructions add products of two 8-bit numbers with
    saturation.

    Raises `harness.UnsupportedError` if there are fewer than two examples, if none of the weights can be quantized, or
    if the outputs differ by more than `LARGEST_ERROR`.
    """
    count = len(next(iter(examples.values())))
    if count < 2:
        raise harness.UnsupportedError(
            f"quantization needs at least 2 training examples, one of which is used to measure the error, but there "
            f"{'is' if count == 1 else 'are'} {count}; use --precision fp32"
        )
    source, target = exported / MODEL, folder / MODEL
    logging.getLogger().setLevel(logging.ERROR)  # ONNX Runtime recommends preprocessing, which the exporters have done
    ranges, held_out = ({name: array[start::2] for name, array in examples.items()} for start in (0, 1))
    expected = _outputs(source, held_out)
    notes = {}
    if any(node.op_type == "Conv" for node in onnx.load(source).graph.node):
        notes = _static(source, target, ranges)
        error = _difference(_outputs(target, held_out), expected)
        if error <= LARGEST_ERROR:
            return notes | _described(source, target, error)
        notes = {"convolutions": f"fp32, because quantizing them changes the outputs by {100 * error:.0f}%"}
    notes |= _dynamic(source, target)
    error = _difference(_outputs(target, held_out), expected)
    described = _described(source, target, error)
    if not error <= LARGEST_ERROR:
        raise harness.UnsupportedError(
            f"on training examples, the outputs of the quantized model differ from those of the fp32 model by "
            f"{100 * error:.0f}% (norm-wise; allowed: {100 * LARGEST_ERROR:.0f}%); use --precision fp32"
        )
    return notes | described


def _static(source: Path, target: Path, examples: Mapping[str, Array]) -> dict[str, str]:
    quantize_static(
        source,
        target,
        _Calibration(examples),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=["Conv", *PRODUCTS],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    count = len(next(iter(examples.values())))
    return {
        "quantization": f"static, with activation ranges from {count} training examples",
        "quantized_operators": ", ".join(["Conv", *PRODUCTS]),
    }


def _dynamic(source: Path, target: Path) -> dict[str, str]:
    quantize_dynamic(
        source,
        target,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=PRODUCTS,
        weight_type=QuantType.QInt8,
    )
    return {"quantization": "dynamic", "quantized_operators": ", ".join(PRODUCTS)}


def _described(source: Path, target: Path, error: float) -> dict[str, str]:
    """Return the percentage of weights that are quantized, and the error of the outputs, as text. Raises
    `harness.UnsupportedError` if no weights are quantized."""
    quantized = _size(target, onnx.TensorProto.INT8, dimensions=2)  # arrays with one dimension are zero points
    if not quantized:
        raise harness.UnsupportedError("the model contains no matrix products whose weights can be quantized")
    return {
        "quantized_weights": f"{100 * quantized / _size(source, onnx.TensorProto.FLOAT):.1f}% of all weights",
        "quantization_error": f"{error:.1e}",
    }


def _size(model: Path, dtype: int, dimensions: int = 0) -> int:
    """Return the total size of the constants with the given dtype and at least the given number of dimensions."""
    constants = onnx.load(model).graph.initializer
    return sum(math.prod(c.dims) for c in constants if c.data_type == dtype and len(c.dims) >= dimensions)


def _outputs(model: Path, examples: Mapping[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(str(model), providers=[CPU])
    return np.concatenate([session.run(["outputs"], batch)[0] for batch in _batches(examples)])


def _difference(outputs: Array, expected: Array) -> float:
    """Return the norm of the difference from the expected outputs, relative to the norm of the expected outputs. The
    result is infinite if the outputs are not finite.
    """
    error = float(np.linalg.norm(outputs - expected) / np.linalg.norm(expected))
    return error if math.isfinite(error) else math.inf


def _batches(examples: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    for start in range(0, len(next(iter(examples.values()))), BATCH):
        yield {name: np.ascontiguousarray(array[start : start + BATCH]) for name, array in examples.items()}


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # the types of onnxruntime are not read
    """Batches of examples."""

    def __init__(self, examples: Mapping[str, Array]) -> None:
        self._batches = _batches(examples)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)
