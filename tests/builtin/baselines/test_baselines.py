"""Tests of the backend ``baseline``: scores of its models, and its differences from other backends."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness.plugins import discover
from harness.records import RunRecord, Success
from harness.records.arrays import read_arrays
from harness.records.samples import train_windows
from harness.records.store import ARRAYS
from harness.testing import BackendSuite, NetworkSuite
from harness.testing.workbench import Workbench

QUICK = ("--set", "protocol.throughput_budget_s=0.2", "--set", "protocol.latency_budget_s=0.2")
MODELS = ("majority", "mean", "tfidf-logreg", "logreg", "mfcc-svm", "ridge", "gradient-boosting")


class TestBaselineBackend(BackendSuite):
    name = "baseline"


for _model in MODELS:
    _class = f"Test{_model.title().replace('-', '')}"
    globals()[_class] = type(_class, (NetworkSuite,), {"name": f"{_model}/baseline"})


def harness_(*arguments: str, results: Path) -> str:
    command = [sys.executable, "-m", "harness", *arguments, "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(results: Path, *arguments: str) -> list[RunRecord]:
    harness_("run", *arguments, *QUICK, "--quiet", results=results)
    return harness.load(results).records


FLOOR = {
    "nlp": ("accuracy", 0.75),
    "vision": ("accuracy", 0.95),
    "speech": ("accuracy", 0.95),
    "regression": ("r2", 0.3),
}


@pytest.mark.parametrize("task", [pytest.param(task, marks=pytest.mark.plugins(task)) for task in FLOOR])
def test_the_default_baseline_of_each_task_reaches_its_floor(task: str, tmp_path: Path) -> None:
    (record,) = run(tmp_path, "--task", task, "--backend", "baseline")
    outcome = record.outcome
    assert isinstance(outcome, Success)
    metric, floor = FLOOR[task]
    assert outcome.scores.test[metric] > floor
    assert (outcome.model.parameters, len(outcome.curves), record.spec.recipe.epochs) == (0, 1, 1)
    windows = train_windows(record, read_arrays(next(tmp_path.glob(f"*/{ARRAYS}"))))
    assert windows is not None
    steady = windows.samples_per_s[windows.steady_from :]
    assert np.median(steady) == pytest.approx(outcome.speed.train_samples_per_s)
    assert outcome.latency.batch_size == record.spec.recipe.batch_size


@pytest.mark.plugins("regression")
def test_ridge_explains_variance_and_the_mean_none(tmp_path: Path) -> None:
    records = run(tmp_path, "--task", "regression", "--backend", "baseline", "--model", "ridge,mean")
    scores = {record.spec.model: record.outcome.scores.test for record in records}  # type: ignore[union-attr]
    assert abs(scores["mean"]["r2"]) < 0.05
    assert scores["ridge"]["r2"] > 0.3


def session(model: str, **changes: Any) -> tuple[Workbench, harness.Session]:
    catalog = discover()
    bench = Workbench(catalog.backend("baseline"), catalog, model)
    opened = bench.backend.open(dataclasses.replace(bench.request, **changes))
    opened.set_weights({})
    return bench, opened


@pytest.mark.plugins("vision")
def test_a_class_missing_in_training_is_never_predicted() -> None:
    bench, fitted = session("logreg")
    split = bench.data.train
    kept = np.flatnonzero((split.targets == 2) | (split.targets == 7))
    some = split.take(kept)
    fitted.train_step(harness.Batch(dict(some.inputs), some.targets), 0.0)
    outputs = fitted.fetch(fitted.predict(bench.batch(examples=50).inputs))
    assert outputs.shape == (50, 10)
    assert np.isfinite(outputs).all()
    assert set(outputs.argmax(axis=1)) == {2, 7}


@pytest.mark.plugins("regression")
def test_the_loss_is_that_of_the_training_split() -> None:
    bench, fitted = session("majority")
    batch = bench.batch(examples=40)
    loss = float(fitted.fetch(fitted.train_step(batch, 0.0)))
    fractions = np.bincount(batch.targets) / 40
    assert loss == pytest.approx(-(fractions * np.log(np.maximum(fractions, 1e-7))).sum(), rel=1e-4)


@pytest.mark.plugins("vision")
@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"device": "cuda:0"}, {"compile": True}], ids=str)
def test_unsupported_requests_are_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(harness.UnsupportedError, match="baseline"):
        session("logreg", **changes)


@pytest.mark.plugins("vision")
def test_predict_before_fitting_raises() -> None:
    bench, new = session("logreg")
    with pytest.raises(harness.UnsupportedError, match="is not fitted, so it cannot predict"):
        new.predict(bench.batch().inputs)


@pytest.mark.plugins("regression")
def test_runs_have_no_weights_to_save_or_compare(tmp_path: Path) -> None:
    records = run(tmp_path, "--task", "regression", "--backend", "baseline", "--seed", "0,1", "--save-weights")
    assert {record.provenance.initial_weights_digest for record in records} == {None}
    output = harness_("audit", "regression-ridge-baseline-s0", results=tmp_path)
    assert "FAILED" not in output
    command = ["evaluate", "regression-ridge-baseline-s0", "--backend", "baseline", "--results", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "harness", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "its model, 'ridge', is fitted at once" in done.stderr


@pytest.mark.plugins("regression")
def test_an_audit_fits_the_model_again(tmp_path: Path) -> None:
    run(tmp_path, "--task", "regression", "--backend", "baseline")
    output = harness_("audit", "regression-ridge", results=tmp_path)
    assert "the model has no canonical weights" in output
    assert "is not fitted" not in output
