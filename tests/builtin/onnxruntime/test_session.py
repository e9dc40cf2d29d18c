"""Tests of the ``onnxruntime`` backend, with models that are written without a framework."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from harness_onnxruntime import OnnxRuntimeBackend  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import harness  # noqa: E402
from harness.records import DataInfo, InputSpec, Recipe  # noqa: E402

SHAPES = {"dense": (4,), "outlier": (4,), "convolution": (1, 6, 6), "normalized": (1, 6, 6), "sum": (4,)}


def write(kind: str, folder: Path) -> dict[str, Any]:
    """Write a model to a folder, and return its weights."""
    rng = np.random.default_rng(0)
    by_kind: dict[str, dict[str, Any]] = {
        "dense": {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)},
        "convolution": {"k": rng.standard_normal((2, 1, 3, 3)), "w": rng.standard_normal((2, 3))},
        "sum": {"b": rng.standard_normal(4)},
    }
    weights = by_kind["dense" if kind == "outlier" else "convolution" if kind == "normalized" else kind]
    if kind == "outlier":  # the first input determines the range of all inputs, although its weights are 0
        weights["w"][0] = 0
    if kind == "normalized":  # the first channel determines the range of all channels
        weights["k"][0] *= 1000
        weights |= {"scale": np.ones(2), "shift": np.zeros(2)}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    pooled = [
        helper.make_node("ReduceMax", ["h", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["outputs"]),
    ]
    gemm = [helper.make_node("Gemm", ["x", "w", "b"], ["outputs"])]
    nodes = {
        "dense": gemm,
        "outlier": gemm,
        "convolution": [helper.make_node("Conv", ["x", "k"], ["h"]), *pooled],
        "normalized": [
            helper.make_node("Conv", ["x", "k"], ["c"]),
            helper.make_node("InstanceNormalization", ["c", "scale", "shift"], ["h"]),
            *pooled,
        ],
        "sum": [helper.make_node("Add", ["x", "b"], ["outputs"])],
    }[kind]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    if kind in ("convolution", "normalized"):
        constants.append(numpy_helper.from_array(np.array([2, 3], np.int64), "axes"))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPES[kind]])
    returned = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, kind, [given], [returned], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    return weights


def request(folder: Path, **changes: Any) -> harness.SessionRequest:
    info = DataInfo(
        kind="features",
        inputs={"x": InputSpec(shape=(4,), dtype="float32")},
        objective="classification",
        outputs=3,
    )
    settings: dict[str, Any] = {
        "device": "cpu", "precision": "fp32", "compile": False, "seed": 0, "threads": 1, "exported": folder,
    } | changes  # fmt: skip
    return harness.SessionRequest(build=pytest.fail, config=None, info=info, parameters=(), recipe=Recipe(), **settings)


def inputs_of(kind: str, examples: int = 8) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((examples, *SHAPES[kind])).astype(np.float32)
    if kind == "outlier":
        x[:, 0] *= 1000
    return {"x": x}


def outputs_of(folder: Path, kind: str, **changes: Any) -> Any:
    session = OnnxRuntimeBackend().open(request(folder, **changes))
    with session.inference():
        outputs = session.fetch(session.predict(inputs_of(kind)))
    session.close()
    return outputs


def test_session_computes_the_model_and_reports_its_settings(tmp_path: Path) -> None:
    weights = write("dense", tmp_path / "model")
    expected = inputs_of("dense")["x"] @ weights["w"] + weights["b"]
    np.testing.assert_allclose(outputs_of(tmp_path / "model", "dense"), expected, rtol=1e-5)
    session = OnnxRuntimeBackend().open(request(tmp_path / "model", threads=2, deterministic=True))
    assert session.notes() == {
        "provider": "CPUExecutionProvider",
        "intra_op_threads": "2",
        "inter_op_threads": "1",
        "execution_mode": "sequential",
        "graph_optimization": "all",
        "deterministic_compute": "true",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda:99"}, "finds no device 'cuda:99'; use one of: .*cpu"),
        ({"precision": "bf16"}, "does not support precision bf16 on cpu; use one of: fp32, int8"),
        ({"precision": "tf32"}, "does not support precision tf32 on cpu"),
        ({"compile": True}, "has no compiler; remove --compile"),
    ],
)
def test_unsupported_settings_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write("dense", tmp_path / "model")
    with pytest.raises(harness.UnsupportedError, match=message):
        OnnxRuntimeBackend().open(request(tmp_path / "model", **changes))


def quantized(kind: str, folder: Path, examples: int = 256) -> dict[str, str]:
    write(kind, folder / "model")
    (folder / "int8").mkdir()
    return OnnxRuntimeBackend().convert(folder / "model", folder / "int8", "int8", inputs_of(kind, examples))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("dense", {"quantization": "dynamic", "quantized_operators": "MatMul, Gemm", "quantized_weights": "80.0%"}),
        (
            "convolution",
            {
                "quantization": "static, with activation ranges from 128 training examples",
                "quantized_operators": "Conv, MatMul, Gemm",
                "quantized_weights": "100.0%",
            },
        ),
    ],
)
def test_int8_is_close_to_fp32_but_not_equal(kind: str, expected: dict[str, str], tmp_path: Path) -> None:
    notes = quantized(kind, tmp_path)
    error = notes.pop("quantization_error")
    notes["quantized_weights"] = notes["quantized_weights"].partition(" ")[0]
    assert notes == expected
    assert 0 < float(error) < 0.05
    exact = outputs_of(tmp_path / "model", kind)
    rounded = outputs_of(tmp_path / "int8", kind, precision="int8")
    assert 0 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 0.05


def test_convolutions_that_lose_too_much_in_int8_remain_in_fp32(tmp_path: Path) -> None:
    notes = quantized("normalized", tmp_path)
    assert notes["quantization"] == "dynamic"
    assert notes["quantized_operators"] == "MatMul, Gemm"
    assert re.fullmatch(r"fp32, because quantizing them changes the outputs by \d+%", notes["convolutions"])
    assert float(notes["quantization_error"]) < 0.05
    types = {array.name: array.data_type for array in onnx.load(tmp_path / "int8" / "model.onnx").graph.initializer}
    assert types["k"] == TensorProto.FLOAT


def test_model_that_loses_too_much_in_int8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        harness.UnsupportedError, match=r"differ from those of the fp32 model by \d+% .*use --precision"
    ):
        quantized("outlier", tmp_path)


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_quantization_needs_two_examples(kind: str, tmp_path: Path) -> None:
    with pytest.raises(harness.UnsupportedError, match=r"at least 2 training examples, .* there is 1; use --precision"):
        quantized(kind, tmp_path / "one", 1)
    assert quantized(kind, tmp_path / "two", 2)["quantization_error"]


def test_weights_have_7_bits_so_that_no_processor_saturates(tmp_path: Path) -> None:
    quantized("dense", tmp_path)
    weights = [
        numpy_helper.to_array(array)
        for array in onnx.load(tmp_path / "int8" / "model.onnx").graph.initializer
        if array.data_type == TensorProto.INT8 and array.dims
    ]
    assert 60 <= max(int(abs(array.astype(int)).max()) for array in weights) <= 64


def test_model_without_matrix_products_cannot_be_quantized(tmp_path: Path) -> None:
    with pytest.raises(harness.UnsupportedError, match="contains no matrix products whose weights can be quantized"):
        quantized("sum", tmp_path)
