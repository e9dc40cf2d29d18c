"""Tests of the parity of PyTorch and TensorFlow from the command line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from command_line import harness_cli

from harness.checks.parity.verdict import load

pytestmark = pytest.mark.plugins("nlp", "regression", "torch", "tensorflow")

BOTH = ("--backend", "torch,tensorflow")


@pytest.fixture(autouse=True)
def _frameworks() -> None:
    for name in ("torch", "tensorflow"):
        if not importlib.util.find_spec(name):
            pytest.skip(f"{name} is not installed")


SIZES = ("hidden_size=32", "num_attention_heads=2", "intermediate_size=64", "num_hidden_layers=1")


@pytest.mark.parametrize(
    ("task", "model", "sizes"),
    [("regression", "mlp", ()), pytest.param("nlp", "bert", SIZES, marks=pytest.mark.slow)],
)
def test_small_model_agrees(task: str, model: str, sizes: tuple[str, ...], tmp_path: Path) -> None:
    """The check requests deterministic kernels, which both backends record."""
    overrides = [text for size in sizes for text in ("--set", f"model.{size}")]
    harness_cli("parity", "--task", task, "--model", model, *BOTH, "--deterministic", *overrides, results=tmp_path)
    (verdict,) = load(tmp_path).values()
    assert verdict.reference == "torch"
    errors = {stage.name: stage.error for stage in verdict.stages}
    assert errors["logits"] is not None
    assert 0 < errors["logits"] < 1e-6
    assert {notes["intra_op_threads"] for notes in verdict.notes.values()} == {str(verdict.spec.threads)}
    assert verdict.spec.deterministic
    assert verdict.notes["torch"]["deterministic_algorithms"] == "True"
    assert verdict.notes["tensorflow"]["op_determinism"] == "true"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_model_agrees(tmp_path: Path) -> None:
    harness_cli("parity", "--all", *BOTH, results=tmp_path)
    assert {verdict.spec.model for verdict in load(tmp_path).values()} >= {
        "bert-tiny", "lstm", "linear", "mlp", "resnet-20", "wav2vec2-tiny"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw", "adagrad", "lion", "lamb"])
def test_every_optimizer_agrees(optimizer: str, tmp_path: Path) -> None:
    momentum = ("--set", "recipe.momentum=0.9") if optimizer == "sgd" else ()
    settings = ("--set", f"recipe.optimizer={optimizer}", *momentum)
    harness_cli("parity", "--task", "nlp", *BOTH, *settings, results=tmp_path)
    (verdict,) = load(tmp_path).values()
    (curve,) = [stage for stage in verdict.stages if stage.name == "curve"]
    assert curve.remark == "", "all 50 steps are compared"
