"""Parity tests of the networks against torch, using ``harness parity`` with its default tolerances."""

from __future__ import annotations

import importlib.util

import pytest

import harness.testing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.torch,
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed"),
]


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("regression", "linear"),
        ("regression", "mlp"),
        ("nlp", "bert-tiny"),
        ("nlp", "lstm"),
        ("nlp", "lstm-small"),
        ("speech", "wav2vec2-tiny"),
        ("vision", "mlp"),
        ("vision", "resnet-20"),
    ],
)
def test_fifty_steps_agree_with_torch(task: str, model: str) -> None:
    harness.testing.assert_parity(task=task, model=model, backends=("torch", "jax"))


def test_fifty_steps_of_resnet_20_agree_in_float64() -> None:
    """Use float64, because rounding errors leave only two comparable steps in float32."""
    harness.testing.assert_parity(task="vision", model="resnet-20", backends=("torch", "jax"), precision="fp64")


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw", "adagrad", "lion", "lamb"])
def test_fifty_steps_agree_with_each_optimizer(optimizer: str) -> None:
    harness.testing.assert_parity(
        task="regression",
        model="mlp",
        backends=("torch", "jax"),
        overrides=(f"recipe.optimizer={optimizer}", "recipe.weight_decay=0.01", "recipe.clip_norm=1.0"),
    )


@pytest.mark.parametrize(
    ("task", "model", "precision", "overrides"),
    [
        ("nlp", "lstm", "fp32", ("model.num_layers=2",)),
        ("vision", "resnet-18", "fp64", ("model.stem=imagenet", "model.hidden_sizes=[16,32]", "model.depths=[1,1]")),
        ("vision", "resnet-50", "fp64", ("model.hidden_sizes=[32,64]", "model.depths=[1,2]")),
        (
            "speech",
            "wav2vec2-tiny",
            "fp32",
            (
                "model.feat_extract_norm=layer",
                "model.do_stable_layer_norm=true",
                "model.conv_bias=true",
                "model.num_conv_pos_embeddings=7",
            ),
        ),
    ],
    ids=["lstm-two-layers", "resnet-imagenet-stem", "resnet-bottleneck", "wav2vec2-pre-norm"],
)
def test_other_configurations_agree_with_torch(
    task: str, model: str, precision: str, overrides: tuple[str, ...]
) -> None:
    harness.testing.assert_parity(
        task=task, model=model, backends=("torch", "jax"), precision=precision, overrides=overrides, steps=5
    )
