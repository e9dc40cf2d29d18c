"""Weights on their way from one backend to another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.errors import RecordError
from harness.execute.weights import load, save
from harness.records.store import WEIGHTS

pytestmark = pytest.mark.usefixtures("toy", "faulty")


def harness_(*arguments: str, results: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *arguments, "--results", str(results)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def trained(results: Path, *arguments: str) -> Path:
    quick = [
        text for key in ("throughput_budget_s=0.01", "latency_budget_s=0.02") for text in ("--set", f"protocol.{key}")
    ]
    done = harness_(
        "run", "--task", "toy-classify", "--backend", "toy-numpy", "-q", *quick, *arguments, results=results
    )
    assert done.returncode == 0, done.stderr
    (run,) = [path for path in results.iterdir() if path.is_dir()]
    return run


def test_weights_survive_the_file(tmp_path: Path) -> None:
    weights = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.zeros((), np.float32)}
    save(tmp_path / WEIGHTS, weights)
    read = load(tmp_path / WEIGHTS)
    assert read.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array)
    (tmp_path / WEIGHTS).write_bytes(b"not a checkpoint")
    with pytest.raises(RecordError, match=r"weights\.safetensors: cannot be read"):
        load(tmp_path / WEIGHTS)


def test_the_other_backend_predicts_the_same(tmp_path: Path) -> None:
    run = trained(tmp_path, "--save-weights")
    done = harness_("evaluate", run.name, "--backend", "peer-wide", "--format", "json", results=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["same_class"] == found["examples"] == 40
    assert found["evaluated_scores"]["accuracy"] == found["trained_scores"]["accuracy"]
    text = harness_("evaluate", run.name, "--backend", "peer-wide", results=tmp_path).stdout
    assert "40 of 40 examples are put into the same class" in text
    assert "the predictions agree" in text


def test_other_weights_are_noticed(tmp_path: Path) -> None:
    run = trained(tmp_path, "--save-weights")
    weights = load(run / WEIGHTS)
    save(run / WEIGHTS, {name: -array for name, array in weights.items()})
    done = harness_("evaluate", run.name, "--backend", "peer-wide", results=tmp_path)
    assert done.returncode == 1
    assert "the predictions DIFFER" in done.stdout


def test_a_run_without_weights_says_what_to_do(tmp_path: Path) -> None:
    run = trained(tmp_path)
    done = harness_("evaluate", run.name, "--backend", "peer-wide", results=tmp_path)
    assert done.returncode == 2
    assert "--save-weights" in done.stderr


def test_a_backend_that_fails_is_an_error(tmp_path: Path) -> None:
    run = trained(tmp_path, "--save-weights")
    done = harness_("evaluate", run.name, "--backend", "peer-broken", results=tmp_path)
    assert done.returncode == 1
    assert "peer-broken could not evaluate the run: no wheels" in done.stderr
