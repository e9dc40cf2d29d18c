"""The ``onnxruntime`` backend, with models that are written without a framework."""

from __future__ import annotations

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

SHAPES = {"dense": (4,), "convolution": (1, 6, 6), "sum": (4,)}


def write(kind: str, folder: Path) -> dict[str, Any]:
    """Write a model to a folder, and return its weights."""
    rng = np.random.default_rng(0)
    weights = {
        "dense": {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)},
        "convolution": {"k": rng.standard_normal((2, 1, 3, 3)), "w": rng.standard_normal((2, 3))},
        "sum": {"b": rng.standard_normal(4)},
    }[kind]
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    nodes = {
        "dense": [helper.make_node("Gemm", ["x", "w", "b"], ["outputs"])],
        "convolution": [
            helper.make_node("Conv", ["x", "k"], ["h"]),
            helper.make_node("ReduceMax", ["h", "axes"], ["m"], keepdims=0),
            helper.make_node("MatMul", ["m", "w"], ["outputs"]),
        ],
        "sum": [helper.make_node("Add", ["x", "b"], ["outputs"])],
    }[kind]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    if kind == "convolution":
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
    return {"x": rng.standard_normal((examples, *SHAPES[kind])).astype(np.float32)}


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


@pytest.mark.parametrize(("kind", "method"), [("dense", "dynamic"), ("convolution", "static, ranges of 40 training")])
def test_int8_is_close_to_fp32_but_not_equal(kind: str, method: str, tmp_path: Path) -> None:
    write(kind, tmp_path / "model")
    (tmp_path / "int8").mkdir()
    notes = OnnxRuntimeBackend().convert(tmp_path / "model", tmp_path / "int8", "int8", inputs_of(kind, 40))
    assert notes["quantization"].startswith(method)
    assert float(notes["quantized_weights"].partition("%")[0]) > 50
    assert ("Conv" in notes["quantized_operators"]) == (kind == "convolution")
    exact = outputs_of(tmp_path / "model", kind)
    rounded = outputs_of(tmp_path / "int8", kind, precision="int8")
    assert 0 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 0.05


def test_model_without_matrix_products_cannot_be_quantized(tmp_path: Path) -> None:
    write("sum", tmp_path / "model")
    (tmp_path / "int8").mkdir()
    with pytest.raises(harness.UnsupportedError, match="contains no matrix products whose weights can be quantized"):
        OnnxRuntimeBackend().convert(tmp_path / "model", tmp_path / "int8", "int8", inputs_of("sum"))
