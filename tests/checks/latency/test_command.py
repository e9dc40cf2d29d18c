"""``harness latency`` on stored runs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_plugin import FAST

from harness.checks.latency import measure

pytestmark = pytest.mark.usefixtures("toy")


def harness(*arguments: str, results: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *arguments, "--results", str(results)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def trained(results: Path, *arguments: str, backend: str = "toy-numpy", task: str = "toy-classify") -> Path:
    quick = [text for setting in FAST for text in ("--set", setting)]
    chosen = ("run", "--task", task, "--backend", backend, "-q", *quick, "--threads", "1", *arguments)
    done = harness(*chosen, results=results)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (path for path in results.iterdir() if path.is_dir())
    return run


def measured(run: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    done = harness("latency", str(run), "--seconds", "0.2", "--format", "json", *arguments, results=run.parent)
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("weights", ["trained", "initial"])
def test_what_is_found_is_kept_beside_the_run(tmp_path: Path, weights: str) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    run = trained(tmp_path, *(["--save-weights"] if weights == "trained" else []))
    found = measured(run)
    assert found["weights"] == weights
    assert found["measured"]["valid"] is True
    folder = run / "latency" / "single-stream-1"
    assert json.loads((folder / "result.json").read_text()) == found
    latencies = np.load(folder / "latencies.npz")["latencies_s"]
    assert len(latencies) == found["measured"]["queries"] >= 662
    assert found["percentiles_ms"]["p99"] is not None
    assert sorted(path.name for path in folder.iterdir()) == [
        "latencies.npz",
        "log.txt",
        "mlperf_log_detail.txt",
        "mlperf_log_summary.txt",
        "result.json",
    ]
    assert measured(run)["measured"]["queries"] >= 662
    assert sorted(path.name for path in (run / "latency").iterdir()) == ["single-stream-1", "single-stream-2"]
    assert harness("show", run.name, results=tmp_path).returncode == 0


@pytest.mark.parametrize("scenario", ["multi-stream", "server", "offline"])
def test_every_scenario_prints_its_table(tmp_path: Path, scenario: str) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    run = trained(tmp_path)
    extra = ["--target-qps", "500", "--latency-bound-ms", "1000"] if scenario == "server" else []
    done = harness("latency", run.name, "--scenario", scenario, "--seconds", "0.3", *extra, results=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{run.name} · {scenario}\n")
    assert "samples/s" in done.stdout
    assert ("p99.9" in done.stdout) == (scenario != "offline")


def test_without_loadgen_the_own_loop_does_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.plugins import discover
    from harness.records.store import Store

    trained(tmp_path)
    (run,) = Store(tmp_path).load().runs
    find_spec = measure.importlib.util.find_spec
    monkeypatch.setattr(
        measure.importlib.util, "find_spec", lambda name: None if name == "mlperf_loadgen" else find_spec(name)
    )
    chosen = measure.settings(run, "single-stream", seconds=0.1)
    found, folder = measure.measure(run, chosen, discover(), timeout_s=60)
    assert (found.measured.engine, found.measured.valid) == ("harness loop", None)
    assert sorted(path.name for path in folder.iterdir()) == ["latencies.npz", "log.txt", "result.json"]
    server = measure.settings(run, "server", seconds=0.1)
    with pytest.raises(measure.UsageError, match=r"scenario server needs MLPerf's LoadGen: pip install"):
        measure.measure(run, server, discover(), timeout_s=60)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target-qps", "5"), "belong to --scenario server"),
        (("--scenario", "offline", "--latency-bound-ms", "5"), "belong to --scenario server"),
        (("--scenario", "multi-stream", "--batch-size", "5"), "multi-stream has its own"),
        (("--scenario", "servr"), "'servr' is not one of"),
        (("--seconds", "0"), "--seconds"),
    ],
)
def test_options_that_do_not_belong_are_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    run = trained(tmp_path)
    done = harness("latency", run.name, *arguments, results=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (run / "latency").exists()


def test_a_model_that_breaks_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    run = trained(tmp_path)
    record = json.loads((run / "record.json").read_text())
    record["spec"]["dataset_options"] = {"no_such_option": 1}
    (run / "record.json").write_text(json.dumps(record))
    done = harness("latency", run.name, results=tmp_path)
    assert done.returncode == 1
    assert "the latency could not be measured: " in done.stderr
    assert "no_such_option" in done.stderr
    assert not (run / "latency").exists()


def test_a_failed_run_has_no_model(tmp_path: Path) -> None:
    harness("run", "--task", "toy-classify", "--backend", "toy-value-error", "-q", results=tmp_path)
    (run,) = tmp_path.iterdir()
    done = harness("latency", run.name, results=tmp_path)
    assert done.returncode == 2
    assert "failed; there is no model to measure" in done.stderr


def test_it_ends_with_its_time_limit(tmp_path: Path) -> None:
    run = trained(tmp_path)
    done = harness("latency", run.name, "--seconds", "60", "--timeout", "2", results=tmp_path)
    assert done.returncode == 1
    assert "did not end within 2 s" in done.stderr
    assert not (run / "latency").exists()


REAL = ("--task", "regression", "--model", "mlp", "--protocol", "quick", "--set", "recipe.epochs=2", "--threads", "2")


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("torch", marks=pytest.mark.plugins("regression", "torch")),
        pytest.param("tensorflow", marks=pytest.mark.plugins("regression", "tensorflow")),
    ],
)
def test_a_real_model_is_measured(tmp_path: Path, backend: str) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"not installed: {backend}")
    done = harness("run", *REAL, "--backend", backend, "-q", "--save-weights", results=tmp_path)
    assert done.returncode == 0, done.stdout
    (run,) = tmp_path.iterdir()
    found = measured(run, "--scenario", "multi-stream")
    assert (found["weights"], found["settings"]["batch_size"]) == ("trained", 8)
    assert found["measured"]["samples"] == 8 * found["measured"]["queries"]
