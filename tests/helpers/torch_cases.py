"""PyTorch sessions of the built-in models in their default sizes, on small random data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness.execute.weights import initial_weights

if TYPE_CHECKING:
    from harness import Batch, DataInfo, Model, Session, SessionRequest

FAMILIES = {
    "linear": "harness_regression.models.linear:Linear",
    "mlp": "harness_regression.models.mlp:Mlp",
    "lstm": "harness_nlp.models.lstm:Lstm",
    "bert": "harness_nlp.models.bert:Bert",
    "resnet": "harness_vision.models.resnet:ResNet",
    "wav2vec2": "harness_speech.models.wav2vec2:Wav2Vec2",
}
VOCAB_SIZE = 60
TOKENS = 12


def model_of(family: str) -> Model:
    module, _, name = FAMILIES[family].partition(":")
    model: Model = getattr(importlib.import_module(module), name)()
    return model


def info_of(family: str, outputs: int = 5) -> DataInfo:
    kind, inputs = {
        "tokens": ("tokens", {"input_ids": ((TOKENS,), "int32"), "attention_mask": ((TOKENS,), "int32")}),
        "image": ("image", {"pixel_values": ((16, 12, 3), "float32")}),
        "waveform": ("waveform", {"input_values": ((2000,), "float32")}),
        "features": ("features", {"features": ((7,), "float32")}),
    }[model_of(family).accepts[0]]
    return harness.DataInfo(
        kind=kind,
        inputs={name: harness.InputSpec(shape=shape, dtype=dtype) for name, (shape, dtype) in inputs.items()},
        objective="classification",
        outputs=outputs,
        details={"vocab_size": VOCAB_SIZE, "pad_id": 0} if kind == "tokens" else {},
    )


def batch_of(info: DataInfo, size: int = 8, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    inputs: dict[str, Any] = {}
    if info.kind == "tokens":
        lengths = rng.integers(3, TOKENS + 1, size)
        mask = (np.arange(TOKENS) < lengths[:, None]).astype(np.int32)
        inputs = {
            "input_ids": (rng.integers(1, VOCAB_SIZE, (size, TOKENS)) * mask).astype(np.int32),
            "attention_mask": mask,
        }
    else:
        for name, spec in info.inputs.items():
            inputs[name] = rng.standard_normal((size, *spec.shape)).astype(np.float32)
    if info.objective == "classification":
        return harness.Batch(inputs, rng.integers(0, info.outputs, size))
    return harness.Batch(inputs, rng.standard_normal((size, info.outputs)).astype(np.float32))


def request_of(
    family: str, variant: str | None = None, recipe: dict[str, Any] | None = None, **changes: Any
) -> SessionRequest:
    model = model_of(family)
    config = model.Config(**model.variants[variant or next(iter(model.variants))])
    info = changes.pop("info", None) or info_of(family)
    values: dict[str, Any] = {
        "build": importlib.import_module(f"harness_torch.networks.{family}").build,
        "config": config,
        "info": info,
        "parameters": tuple(model.parameters(config, info)),
        "recipe": harness.Recipe(**(recipe or {})),
        "device": "cpu",
        "precision": "fp32",
        "compile": False,
        "seed": 0,
        "threads": 1,
    }
    return harness.SessionRequest(**(values | changes))


def open_session(request: SessionRequest, seed: int = 0) -> Session:
    """Open a session of the torch backend and set the initial weights."""
    from harness_torch import TorchBackend

    session = TorchBackend().open(request)
    session.set_weights(initial_weights(request.parameters, seed))
    return session


def losses(session: Session, batch: Batch, rates: list[float]) -> list[float]:
    return [float(session.fetch(session.train_step(batch, rate))) for rate in rates]
