"""Tests of the exports of the frameworks' sessions: each network, with batches of several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness import plugins
from harness.execute.weights import initial_weights
from harness.interfaces import Session, SessionRequest
from harness.records import Recipe
from harness.testing.session_cases import example

KINDS = {
    "linear": "features",
    "mlp": "features",
    "lstm": "tokens",
    "bert-tiny": "tokens",
    "resnet-20": "image",
    "wav2vec2-tiny": "waveform",
}


def opened(backend: str, name: str) -> tuple[Session, dict[str, Any]]:
    """Open a session of a model with random weights, and return it with a batch of inputs."""
    catalog = plugins.discover()
    info, inputs = example(KINDS[name])
    model, variant = catalog.model(name)
    network = catalog.network(model.name, backend)
    assert network is not None
    config = msgspec.convert(dict(model.variants[variant]), model.Config)
    parameters = tuple(model.parameters(config, info))
    session = catalog.backend(backend).open(
        SessionRequest(
            build=plugins.resolve(network.build),
            config=config,
            info=info,
            parameters=parameters,
            recipe=Recipe(),
            device="cpu",
            precision="fp32",
            compile=False,
            seed=0,
            threads=1,
        )
    )
    session.set_weights(initial_weights(parameters, 0))
    return session, inputs


def check(backend: str, name: str, format_: str, folder: Path, allowed: float) -> None:
    session, inputs = opened(backend, name)
    expected = session.fetch(session.predict(inputs))
    function = session.export(format_, folder, {key: array[:2].copy() for key, array in inputs.items()})
    for count in (1, 3, len(expected)):
        outputs = function({key: np.ascontiguousarray(array[:count]) for key, array in inputs.items()})
        assert outputs.shape == expected[:count].shape
        error = np.linalg.norm(outputs - expected[:count]) / np.linalg.norm(expected[:count])
        assert error <= allowed
    session.close()


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("format_", ["onnx", "torch-export"])
@pytest.mark.parametrize("name", KINDS)
def test_torch_export_computes_the_outputs_of_the_session(name: str, format_: str, tmp_path: Path) -> None:
    if format_ == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    check("torch", name, format_, tmp_path, 1e-5)


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("format_", ["savedmodel", "onnx"])
@pytest.mark.parametrize("name", KINDS)
def test_tensorflow_export_computes_the_outputs_of_the_session(name: str, format_: str, tmp_path: Path) -> None:
    if format_ == "onnx":
        for package in ("onnx", "tf2onnx", "onnxruntime"):
            pytest.importorskip(package)
    check("tensorflow", name, format_, tmp_path, 1e-5)
