"""What the tests share: the models that are installed, small inputs for each, and sessions of them."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from harness_jax import JaxBackend

import harness

BATCH = 6
CLASSES = 5

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "linear": ("linear", "linear", {}),
    "mlp": ("mlp", "mlp", {}),
    "lstm": ("lstm", "lstm", {"embedding_size": 12, "hidden_size": 16}),
    "lstm-two-layers": ("lstm", "lstm", {"embedding_size": 12, "hidden_size": 16, "num_layers": 2}),
    "lstm-max-mean": ("lstm", "lstm", {"embedding_size": 12, "hidden_size": 16, "pooling": "max-mean"}),
    "bert": ("bert", "bert-tiny", {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}),
    "resnet": ("resnet", "resnet-20", {"hidden_sizes": (4, 8), "depths": (1, 1), "embedding_size": 4}),
    "resnet-bottleneck": (
        "resnet",
        "resnet-50",
        {"hidden_sizes": (8, 16), "depths": (1, 2), "embedding_size": 4, "downsample_in_first_stage": True},
    ),
    "wav2vec2": ("wav2vec2", "wav2vec2-tiny", {"num_hidden_layers": 1}),
    "wav2vec2-pre-norm": (
        "wav2vec2",
        "wav2vec2-tiny",
        {
            "num_hidden_layers": 1,
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
            "conv_bias": True,
            "num_conv_pos_embeddings": 7,
        },
    ),
}
"""Case -> family, variant, changes to its configuration."""


@cache
def families() -> dict[str, harness.Model]:
    """The model families that ship with harness, found as harness finds them."""
    plugins = [entry.load() for entry in entry_points(group="harness") if entry.dist and entry.dist.name == "harness"]
    return {
        model.name: model
        for plugin in plugins
        if hasattr(plugin, "harness_models")
        for model in plugin.harness_models()
    }


def example(kind: str, size: int = BATCH) -> tuple[harness.DataInfo, dict[str, Any]]:
    """Random inputs of one kind, with the dtypes of the tasks' prepared data."""
    rng = np.random.default_rng(7)
    details: dict[str, Any] = {}
    if kind == "tokens":
        length, vocab = 9, 40
        lengths = rng.integers(2, length + 1, size)
        mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
        inputs = {
            "input_ids": (rng.integers(1, vocab, (size, length)) * mask).astype(np.int32),
            "attention_mask": mask,
        }
        details = {"vocab_size": vocab, "pad_id": 0}
    elif kind == "image":
        inputs = {"pixel_values": rng.standard_normal((size, 15, 12, 3)).astype(np.float32)}
    elif kind == "waveform":
        inputs = {"input_values": rng.standard_normal((size, 2000)).astype(np.float32)}
    else:
        inputs = {"features": rng.standard_normal((size, 11)).astype(np.float32)}
    specs = {name: harness.InputSpec(shape=array.shape[1:], dtype=array.dtype.name) for name, array in inputs.items()}
    info = harness.DataInfo(kind=kind, inputs=specs, objective="classification", outputs=CLASSES, details=details)
    return info, inputs


def batch_of(kind: str, size: int = BATCH) -> harness.Batch:
    return harness.Batch(example(kind, size)[1], np.arange(size) % CLASSES)


def request(case: str, **changes: Any) -> harness.SessionRequest:
    """At fp32, seed 0 and one thread on the CPU, by sgd without dropout, but for `changes`."""
    family, variant, sizes = CASES[case]
    model = families()[family]
    config = model.Config(**{**model.variants[variant], **sizes})
    info = changes.pop("info", example(model.accepts[0])[0])
    values: dict[str, Any] = {
        "build": importlib.import_module(f"harness_jax.networks.{family}").build,
        "config": config,
        "info": info,
        "parameters": model.parameters(config, info),
        "recipe": harness.Recipe(optimizer="sgd"),
        "device": "cpu",
        "precision": "fp32",
        "compile": False,
        "seed": 0,
        "threads": 1,
    }
    return harness.SessionRequest(**(values | changes))


def weights_for(parameters: Any, seed: int = 3) -> dict[str, Any]:
    """Canonical weights at which every parameter matters: of unit gain, and none of them constant."""
    rng = np.random.default_rng(seed)
    weights = {}
    for parameter in parameters:
        if parameter.name.endswith(("running_var", "weight_g")) or parameter.init == "ones":
            value = rng.uniform(0.5, 1.5, parameter.shape)
        else:
            fan_in = int(np.prod(parameter.shape[1:])) if len(parameter.shape) > 1 else 4
            value = rng.standard_normal(parameter.shape) / np.sqrt(fan_in)
        weights[parameter.name] = value.astype(np.float32)
    return weights


def open_session(case: str, **changes: Any) -> Any:
    """A `JaxSession` of the case with `weights_for` it set."""
    wanted = request(case, **changes)
    session = JaxBackend().open(wanted)
    session.set_weights(weights_for(wanted.parameters))
    return session


def kind_of(case: str) -> str:
    return families()[CASES[case][0]].accepts[0]
