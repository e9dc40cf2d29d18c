"""Tests of the exports of the frameworks' sessions: each network, with batches of several sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from harness import plugins
from harness.errors import UnsupportedError
from harness.execute.weights import initial_weights
from harness.interfaces import Binding, BuildNetwork, Network, Session, SessionRequest
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


def opened(backend: str, name: str, build: BuildNetwork | None = None) -> tuple[Session, dict[str, Any]]:
    """Open a session of a model with random weights, and return it with a batch of inputs. By default, the network is
    that of the backend."""
    catalog = plugins.discover()
    info, inputs = example(KINDS[name])
    model, variant = catalog.model(name)
    network = catalog.network(model.name, backend)
    assert network is not None
    config = msgspec.convert(dict(model.variants[variant]), model.Config)
    parameters = tuple(model.parameters(config, info))
    session = catalog.backend(backend).open(
        SessionRequest(
            build=build or plugins.resolve(network.build),
            config=config,
            info=info,
            parameters=parameters,
            recipe=Recipe(),
            device="cpu",
            precision="fp32",
            compile=False,
            seed=0,
            threads=2,  # as in other tests, because TensorFlow can set the number of threads only once
        )
    )
    session.set_weights(initial_weights(parameters, 0))
    return session, inputs


def check(backend: str, name: str, format_: str, folder: Path, allowed: float, **changes: Any) -> None:
    session, inputs = opened(backend, name, **changes)
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


def with_activation(activation: Callable[[Any], Any]) -> BuildNetwork:
    """Return a function that builds the linear model on TensorFlow, with an activation function of its outputs."""

    def build(config: Any, info: Any, dropout: float) -> Network:
        import keras

        inputs = keras.Input(info.inputs["features"].shape, name="features")
        layer = keras.layers.Dense(info.outputs)
        module = keras.Model({"features": inputs}, keras.layers.Lambda(activation)(layer(inputs)))
        return Network(
            module=module, bindings={"linear.weight": Binding(layer.kernel, (1, 0)), "linear.bias": Binding(layer.bias)}
        )

    return build


@pytest.mark.tensorflow
@pytest.mark.parametrize("api", ["keras", "tensorflow"])
def test_tensorflow_onnx_export_converts_the_exact_gelu(api: str, tmp_path: Path) -> None:
    """The exact GELU contains the operation Erfc, which ONNX does not have."""
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)

    def gelu(x: Any) -> Any:
        import keras
        import tensorflow as tf

        scaled = 4.0 * x  # includes values in the tails, where GELU is close to 0 or to x
        return keras.ops.gelu(scaled, approximate=False) if api == "keras" else tf.nn.gelu(scaled)

    check("tensorflow", "linear", "onnx", tmp_path, 1e-6, build=with_activation(gelu))


@pytest.mark.tensorflow
def test_tensorflow_onnx_export_names_an_operation_that_cannot_be_converted(tmp_path: Path) -> None:
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)

    def unusual(x: Any) -> Any:
        import tensorflow as tf

        return tf.math.lgamma(x) + tf.map_fn(tf.math.bessel_i0e, x)

    session, inputs = opened("tensorflow", "linear", with_activation(unusual))
    with pytest.raises(UnsupportedError) as caught:
        session.export("onnx", tmp_path, inputs)
    assert str(caught.value) == (
        "the tensorflow backend cannot convert the TensorFlow operations BesselI0e, Lgamma to ONNX; use other "
        "operations in the network, or run: harness export RUN --format savedmodel"
    )
    session.close()
