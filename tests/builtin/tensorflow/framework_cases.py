"""Child process of the cross-framework test: ``framework_cases.py BACKEND CASE OUT.npz [CASE OUT.npz ...]``.

With canonical weights and data drawn from fixed seeds and without dropout, it writes the logits before training, the
gradients, and the loss, running statistics and logits after one step of plain SGD with learning rate 1.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

import harness
from harness.execute import weights

BATCH = 8
CLASSES = 10


def models() -> dict[str, harness.Model]:
    from harness_nlp.models.bert import Bert
    from harness_nlp.models.lstm import Lstm
    from harness_regression.models.linear import Linear
    from harness_regression.models.mlp import Mlp
    from harness_speech.models.wav2vec2 import Wav2Vec2
    from harness_vision.models.resnet import ResNet

    return {family.name: family for family in (Bert(), Lstm(), Linear(), Mlp(), Wav2Vec2(), ResNet())}


def example(kind: str, size: int = BATCH) -> tuple[harness.DataInfo, dict[str, Any]]:
    """Return random inputs of one kind, shaped like the prepared data of the tasks, and their info."""
    rng = np.random.default_rng(7)
    details: dict[str, Any] = {}
    if kind == "tokens":
        length, vocab = 24, 500
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
        inputs = {"input_values": rng.standard_normal((size, 8000)).astype(np.float32)}
    else:
        inputs = {"features": rng.standard_normal((size, 11)).astype(np.float32)}
    specs = {name: harness.InputSpec(shape=array.shape[1:], dtype=array.dtype.name) for name, array in inputs.items()}
    info = harness.DataInfo(kind=kind, inputs=specs, objective="classification", outputs=CLASSES, details=details)
    return info, inputs


def config_of(model: harness.Model, variant: str, changes: dict[str, Any]) -> Any:
    return model.Config(**{**model.variants[variant], **changes})


def request(
    backend: str, model: harness.Model, config: Any, info: harness.DataInfo, recipe: harness.Recipe, **changes: Any
) -> harness.SessionRequest:
    build = importlib.import_module(f"harness_{backend}.networks.{model.name}").build
    values: dict[str, Any] = {
        "build": build,
        "config": config,
        "info": info,
        "parameters": model.parameters(config, info),
        "recipe": recipe,
        "device": "cpu",
        "precision": "fp32",
        "compile": False,
        "seed": 0,
        "threads": 2,
    }
    return harness.SessionRequest(**(values | changes))


def trainable_start(model: harness.Model, config: Any, info: harness.DataInfo) -> dict[str, Any]:
    """Return initial weights with noise added to constant arrays, so that no term is multiplied by zero."""
    rng = np.random.default_rng(3)
    start = {}
    for parameter in model.parameters(config, info):
        value = weights.initial_value(parameter, 0)
        if np.ptp(value) == 0:
            value = value + 0.1 * rng.random(value.shape).astype(np.float32)
        start[parameter.name] = value.astype(np.float32)
    return start


def compute(backend: str, model: harness.Model, config: Any, **changes: Any) -> dict[str, Any]:
    info, inputs = example(model.accepts[0])
    plugin = importlib.import_module(f"harness_{backend}")
    opener = next(iter(plugin.harness_backends()))
    recipe = harness.Recipe(optimizer="sgd", learning_rate=1.0)
    session = opener.open(request(backend, model, config, info, recipe, **changes))
    start = trainable_start(model, config, info)
    session.set_weights(start)
    before = session.fetch(session.predict(inputs))
    batch = harness.Batch(inputs, np.random.default_rng(5).integers(0, CLASSES, BATCH))
    _, gradients = session.gradients(batch)
    session.set_weights(start)
    loss = session.fetch(session.train_step(batch, 1.0))
    stepped = session.get_weights()
    result = {"logits": before, "loss": loss, "logits_after": session.fetch(session.predict(inputs))}
    session.close()
    result |= {f"gradient/{name}": value for name, value in gradients.items()}
    result |= {f"statistic/{name}": value for name, value in stepped.items() if name not in gradients}
    return result


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "linear": ("linear", "linear", {}),
    "mlp": ("mlp", "mlp", {}),
    "lstm": ("lstm", "lstm", {}),
    "lstm-two-layers": ("lstm", "lstm", {"num_layers": 2}),
    "lstm-max-mean": ("lstm", "lstm", {"pooling": "max-mean"}),
    "bert-tiny": ("bert", "bert-tiny", {}),
    "resnet-20": ("resnet", "resnet-20", {}),
    "resnet-18": ("resnet", "resnet-18", {}),
    "resnet-bottleneck": (
        "resnet",
        "resnet-50",
        {"hidden_sizes": (32, 64), "depths": (2, 2), "embedding_size": 16, "downsample_in_first_stage": True},
    ),
    "wav2vec2-tiny": ("wav2vec2", "wav2vec2-tiny", {}),
    "wav2vec2-pre-norm": (
        "wav2vec2",
        "wav2vec2-tiny",
        {
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
            "conv_bias": True,
            "num_conv_pos_embeddings": 7,
        },
    ),
    "wav2vec2-base-layer": ("wav2vec2", "wav2vec2-base", {"num_hidden_layers": 1}),
}
"""Family, variant and changes to its configuration for each case."""


def main(backend: str, *pairs: str) -> None:
    families = models()
    for case, path in zip(pairs[::2], pairs[1::2], strict=True):
        family, variant, changes = CASES[case]
        model = families[family]
        np.savez(path, **compute(backend, model, config_of(model, variant, changes)))


if __name__ == "__main__":
    main(*sys.argv[1:])
