"""Every task on every backend, for real: one short run each through the command line, as a user types it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import tiny_bert

import harness
from harness.records import Success

TASKS = [pytest.param(name, marks=pytest.mark.plugins(name)) for name in ("nlp", "vision", "speech", "regression")]
BACKENDS = [name for name in ("torch", "tensorflow") if importlib.util.find_spec(f"harness_{name}")]
SHORT = [
    "recipe.epochs=1",
    "protocol.throughput_budget_s=0.2",
    "protocol.latency_budget_s=0.2",
]


def run(*arguments: str, results: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *arguments, "--results", str(results)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ.copy())


@pytest.mark.parametrize("task", TASKS)
def test_one_epoch_on_every_backend_that_is_here(task: str, tmp_path: Path) -> None:
    backends = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not backends:
        pytest.skip("neither torch nor tensorflow is installed")
    overrides = [text for change in SHORT for text in ("--set", change)]
    done = run("run", "--task", task, "--backend", ",".join(backends), "--quiet", *overrides, results=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    records = harness.load(tmp_path).records
    assert [record.spec.backend for record in records] == backends
    for record in records:
        assert isinstance(record.outcome, Success)
        assert record.spec.backend in done.stdout
    digests = {(r.provenance.dataset_digest, r.provenance.initial_weights_digest) for r in records}
    assert len(digests) == 1, "the backends saw other data or started from other weights"
    assert len({r.outcome.model.parameters for r in records}) == 1  # type: ignore[union-attr]
    first_losses = [r.outcome.curves[0].train_loss for r in records]  # type: ignore[union-attr]
    assert max(first_losses) <= 1.25 * min(first_losses), first_losses


FLOOR = {"nlp": ("accuracy", 0.70), "vision": ("accuracy", 0.97), "speech": ("accuracy", 0.95)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("task", TASKS)
def test_default_quality_over_three_seeds(task: str, backend: str, tmp_path: Path) -> None:
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    done = run("run", "--task", task, "--backend", backend, "--seed", "0,1,2", "--quiet", results=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = [record.outcome for record in harness.load(tmp_path)]
    scores = [outcome.scores for outcome in outcomes if isinstance(outcome, Success)]
    assert len(scores) == 3
    if task == "regression":
        for score in scores:
            assert score.reference is not None
            assert score.test["rmse"] == pytest.approx(score.reference["rmse"], rel=0.03)
        return
    metric, floor = FLOOR[task]
    assert sum(score.test[metric] or 0 for score in scores) / 3 >= floor


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_backend_starts_from_the_checkpoint(tmp_path: Path) -> None:
    backends = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not backends:
        pytest.skip("neither torch nor tensorflow is installed")
    tiny_bert(tmp_path / "tiny")
    overrides = [text for change in SHORT for text in ("--set", change)]
    arguments = ["--pretrained", str(tmp_path / "tiny"), "--backend", ",".join(backends), "--quiet", *overrides]
    done = run("run", "--task", "nlp", *arguments, results=tmp_path / "results")
    assert done.returncode == 0, done.stdout + done.stderr
    records = harness.load(tmp_path / "results").records
    assert [record.spec.backend for record in records] == backends
    assert len({record.provenance.initial_weights_digest for record in records}) == 1
    for record in records:
        assert record.provenance.notes["pretrained_not_used"] == "bert.embeddings.position_ids"
