"""Tests of short runs of every task on every framework backend, through the command line."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from checkpoints import tiny_bert
from command_line import harness_cli, harness_process

import harness
from harness.records import Success

NAMES = ("nlp", "vision", "speech", "regression", "tabular")
TASKS = [pytest.param(name, marks=pytest.mark.plugins(name)) for name in NAMES]
FAST_TASKS = ("nlp", "regression")
"""Tasks with short runs in the fast tests. The data and networks of the other tasks have their own fast tests."""
BACKENDS = [name for name in ("torch", "tensorflow") if importlib.util.find_spec(f"harness_{name}")]
SHORT = ("recipe.epochs=1", "protocol.throughput_budget_s=0.2", "protocol.latency_budget_s=0.2")
SMALLER = {
    "nlp": (
        "recipe.batch_size=256", "model.hidden_size=32", "model.num_attention_heads=2", "model.intermediate_size=64",
        "model.num_hidden_layers=1",
    ),
    "vision": ("recipe.batch_size=256",),
    "speech": ("dataset.takes=1",),
}  # fmt: skip
"""Overrides that shorten an epoch of a task to a few seconds."""


def installed() -> list[str]:
    """Return the backends whose framework is installed; skip the test if there is none."""
    backends = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not backends:
        pytest.skip("neither torch nor tensorflow is installed")
    return backends


def run(*arguments: str, results: Path, overrides: tuple[str, ...] = ()) -> CompletedProcess[str]:
    settings = [text for change in overrides for text in ("--set", change)]
    done = harness_process("run", *arguments, "--quiet", *settings, "--results", str(results), cwd=results.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


Ran = tuple[CompletedProcess[str], Path]


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Return a function that runs a task on all installed backends and returns the command and its results."""

    @cache
    def run_task(task: str) -> Ran:
        results = tmp_path_factory.mktemp(task) / "results"
        more = {"nlp": ["--model", "bert"], "regression": ["--model", "mlp", "--save-weights"]}.get(task, [])
        backends = ",".join(installed())
        overrides = (*SHORT, *SMALLER.get(task, ()))
        return run("--task", task, *more, "--backend", backends, results=results, overrides=overrides), results

    return run_task


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(name, marks=[pytest.mark.plugins(name), *([] if name in FAST_TASKS else [pytest.mark.slow])])
        for name in NAMES
    ],
)
def test_one_epoch_on_every_installed_backend(task: str, one_epoch: Callable[[str], Ran]) -> None:
    done, results = one_epoch(task)
    assert done.stderr == ""
    records = harness.load(results).records
    assert [record.spec.backend for record in records] == installed()
    for record in records:
        assert isinstance(record.outcome, Success)
        assert record.spec.backend in done.stdout
    digests = {(r.provenance.dataset_digest, r.provenance.initial_weights_digest) for r in records}
    assert len(digests) == 1, "the backends used different data or initial weights"
    assert len({r.outcome.model.parameters for r in records}) == 1  # type: ignore[union-attr]
    first_losses = [r.outcome.curves[0].train_loss for r in records]  # type: ignore[union-attr]
    assert max(first_losses) <= 1.25 * min(first_losses), first_losses


@pytest.mark.plugins("regression", "torch", "tensorflow")
def test_trained_weights_are_evaluated_by_another_backend(one_epoch: Callable[[str], Ran]) -> None:
    if installed() != ["torch", "tensorflow"]:
        pytest.skip("needs torch and tensorflow")
    _, results = one_epoch("regression")
    run = next(results.glob("regression-*-mlp-torch-*")).name
    done = harness_cli("evaluate", run, "--backend", "tensorflow", "--format", "json", results=results)
    evaluation = json.loads(done.stdout)
    assert (evaluation["trained_by"], evaluation["evaluated_by"], evaluation["agree"]) == ("torch", "tensorflow", True)
    assert evaluation["error"] < 1e-5
    assert evaluation["evaluated_scores"]["rmse"] == pytest.approx(evaluation["trained_scores"]["rmse"], rel=1e-5)


@pytest.mark.plugins("regression")
@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("torch", marks=pytest.mark.plugins("torch")),
        pytest.param("tensorflow", marks=[pytest.mark.plugins("tensorflow"), pytest.mark.slow]),
    ],
)
def test_latency_of_a_real_model(backend: str, one_epoch: Callable[[str], Ran]) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    if backend not in installed():
        pytest.skip(f"{backend} is not installed")
    _, results = one_epoch("regression")
    run = next(results.glob(f"regression-*-mlp-{backend}-*")).name
    scenario = ("--scenario", "multi-stream", "--seconds", "0.2")
    measured = json.loads(harness_cli("latency", run, *scenario, "--format", "json", results=results).stdout)
    assert (measured["weights"], measured["settings"]["batch_size"]) == ("trained", 8)
    assert measured["measured"]["samples"] == 8 * measured["measured"]["queries"]


FLOOR = {
    "nlp": ("accuracy", 0.70),
    "vision": ("accuracy", 0.97),
    "speech": ("accuracy", 0.95),
    "tabular": ("accuracy", 0.93),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("task", TASKS)
def test_default_runs_reach_the_expected_quality(task: str, backend: str, tmp_path: Path) -> None:
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    run("--task", task, "--backend", backend, "--seed", "0,1,2", results=tmp_path / "results")
    outcomes = [record.outcome for record in harness.load(tmp_path / "results")]
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
def test_every_backend_starts_from_a_checkpoint(tmp_path: Path) -> None:
    backends = installed()
    tiny_bert(tmp_path / "tiny")
    arguments = ["--task", "nlp", "--pretrained", str(tmp_path / "tiny"), "--backend", ",".join(backends)]
    run(*arguments, results=tmp_path / "results", overrides=SHORT)
    records = harness.load(tmp_path / "results").records
    assert [record.spec.backend for record in records] == backends
    assert len({record.provenance.initial_weights_digest for record in records}) == 1
    for record in records:
        assert record.provenance.notes["pretrained_not_used"] == "bert.embeddings.position_ids"
