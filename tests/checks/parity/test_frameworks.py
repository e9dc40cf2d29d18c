"""PyTorch against TensorFlow through the command line, each in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.checks.parity.verdict import load

pytestmark = pytest.mark.plugins("nlp", "regression", "torch", "tensorflow")

BOTH = ["--backend", "torch,tensorflow"]


@pytest.fixture(autouse=True)
def _frameworks() -> None:
    for name in ("torch", "tensorflow"):
        if not importlib.util.find_spec(name):
            pytest.skip(f"{name} is not installed")


def harness_(*arguments: str, results: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *arguments, "--results", str(results)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_tiny_bert_is_the_same_on_both(tmp_path: Path) -> None:
    sizes = ("hidden_size=32", "num_attention_heads=2", "intermediate_size=64", "num_hidden_layers=1")
    overrides = [text for size in sizes for text in ("--set", f"model.{size}")]
    done = harness_("parity", "--task", "nlp", "--model", "bert", *BOTH, *overrides, results=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (verdict,) = load(tmp_path).values()
    assert verdict.reference == "torch"
    errors = {stage.name: stage.error for stage in verdict.stages}
    assert errors["logits"] is not None
    assert 0 < errors["logits"] < 1e-6
    assert {notes["intra_op_threads"] for notes in verdict.notes.values()} == {str(verdict.spec.threads)}


def test_trained_weights_travel(tmp_path: Path) -> None:
    overrides = [
        "--set",
        "recipe.epochs=2",
        "--set",
        "protocol.throughput_budget_s=0.2",
        "--set",
        "protocol.latency_budget_s=0.2",
    ]
    done = harness_(
        "run", "--task", "regression", "--model", "mlp", "--backend", "torch", "--save-weights", "--quiet", *overrides,
        results=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = harness_("evaluate", "regression", "--backend", "tensorflow", "--format", "json", results=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["trained_by"], found["evaluated_by"], found["agree"]) == ("torch", "tensorflow", True)
    assert found["error"] < 1e-5
    assert found["evaluated_scores"]["rmse"] == pytest.approx(found["trained_scores"]["rmse"], rel=1e-5)


def test_deterministic_kernels_are_asked_for_and_recorded(tmp_path: Path) -> None:
    done = harness_(
        "parity", "--task", "regression", *BOTH, "--deterministic", "--steps", "2", "--format", "json",
        results=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (verdict,) = json.loads(done.stdout)
    assert verdict["spec"]["deterministic"] is True
    assert verdict["notes"]["torch"]["deterministic_algorithms"] == "True"
    assert verdict["notes"]["tensorflow"]["op_determinism"] == "true"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_model_is_the_same_on_both(tmp_path: Path) -> None:
    done = harness_("parity", "--all", *BOTH, results=tmp_path)
    assert done.returncode == 0, done.stdout
    assert {verdict.spec.model for verdict in load(tmp_path).values()} >= {
        "bert-tiny", "lstm", "linear", "mlp", "resnet-20", "wav2vec2-tiny"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw"])
def test_every_optimizer_is_the_same_on_both(optimizer: str, tmp_path: Path) -> None:
    done = harness_(
        "parity", "--task", "nlp", *BOTH, "--set", f"recipe.optimizer={optimizer}", "--set", "recipe.momentum=0.9",
        results=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (verdict,) = load(tmp_path).values()
    (curve,) = [stage for stage in verdict.stages if stage.name == "curve"]
    assert curve.remark == "", "all 50 steps are compared"
