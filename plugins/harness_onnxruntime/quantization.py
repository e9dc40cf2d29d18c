"""Quantization of ONNX models to 8-bit integers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import harness
from harness_onnxruntime.session import MODEL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

PRODUCTS = ["MatMul", "Gemm"]
"""Operators that are quantized in every model."""
BATCH = 32
"""Number of examples per batch in calibration."""


def quantize(exported: Path, folder: Path, examples: Mapping[str, Array]) -> dict[str, str]:
    """Write a model with 8-bit weights to `folder`, and return a description for the record.

    In a model without convolutions, the weights of the operators in `PRODUCTS` are quantized per tensor. The
    activations are quantized at each batch, with ranges computed from the batch (dynamic quantization). A model with
    convolutions is quantized statically. The activations of `PRODUCTS` and convolutions are quantized with the smallest
    and largest values that occur for `examples`. The weights are quantized per channel. All other operators compute in
    fp32. Raises `harness.UnsupportedError` if none of the weights can be quantized.
    """
    source, target = exported / MODEL, folder / MODEL
    static = any(node.op_type == "Conv" for node in onnx.load(source).graph.node)
    logging.getLogger().setLevel(logging.ERROR)  # ONNX Runtime recommends preprocessing, which the exporters have done
    if static:
        quantize_static(
            source,
            target,
            _Calibration(examples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv", *PRODUCTS],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    else:
        quantize_dynamic(source, target, op_types_to_quantize=PRODUCTS, weight_type=QuantType.QInt8)
    sizes = [(array.data_type, math.prod(array.dims)) for array in onnx.load(target).graph.initializer]
    quantized = sum(size for kind, size in sizes if kind == onnx.TensorProto.INT8)
    if not quantized:
        raise harness.UnsupportedError("the model contains no matrix products whose weights can be quantized")
    count = len(next(iter(examples.values())))
    return {
        "quantization": f"static, ranges of {count} training examples" if static else "dynamic",
        "quantized_operators": ", ".join((["Conv"] if static else []) + PRODUCTS),
        "quantized_weights": f"{100 * quantized / sum(size for _, size in sizes):.1f}% of all weights",
    }


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # the types of onnxruntime are not read
    """Batches of examples."""

    def __init__(self, examples: Mapping[str, Array]) -> None:
        starts = range(0, len(next(iter(examples.values()))), BATCH)
        self._batches = iter(
            [{name: np.ascontiguousarray(a[start : start + BATCH]) for name, a in examples.items()} for start in starts]
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)
