"""Tests of ``harness latency`` on stored runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import harness_cli, harness_process
from sample_records import ENVIRONMENT
from toy_plugin import SET_FAST, install_toy

from harness.checks.latency import measure
from harness.checks.latency.result import LatencyResult, Measured, Settings
from harness.cli.latency import render
from harness.records.store import WEIGHTS, Store

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results directory with one run and its weights."""
    results = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        chosen = ("--task", "toy-regress", "--backend", "toy-numpy", "--threads", "1", *SET_FAST)
        harness_cli("run", *chosen, "-q", "--save-weights", results=results)
    return results


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return the path of a copy of the run, alone in its results directory."""
    shutil.copytree(trained, tmp_path / "results")
    (run,) = (tmp_path / "results").glob("toy-*")
    return run


def measured(run: Path, *arguments: str) -> dict[str, Any]:
    done = harness_cli("latency", run, "--seconds", "0.2", "--format", "json", *arguments, results=run.parent)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("weights", ["trained", "initial"])
def test_result_is_saved_next_to_the_run(run: Path, weights: str) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    if weights == "initial":
        (run / WEIGHTS).unlink()
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
    harness_cli("show", run.name, results=run.parent)


@pytest.mark.parametrize("scenario", ["multi-stream", "server", "offline"])
def test_every_scenario_prints_a_table(run: Path, scenario: str) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    extra = ["--target-qps", "500", "--latency-bound-ms", "1000"] if scenario == "server" else []
    done = harness_cli("latency", run.name, "--scenario", scenario, "--seconds", "0.3", *extra, results=run.parent)
    assert done.stdout.startswith(f"{run.name} · {scenario}\n")
    assert ("samples/s" in done.stdout) == (scenario != "server")
    assert ("p99.9" in done.stdout) == (scenario != "offline")


def test_without_loadgen_only_single_stream_and_offline_work(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.plugins import discover

    (stored,) = Store(run.parent).load().runs
    find_spec = measure.importlib.util.find_spec
    monkeypatch.setattr(
        measure.importlib.util, "find_spec", lambda name: None if name == "mlperf_loadgen" else find_spec(name)
    )
    chosen = measure.settings(stored, "single-stream", seconds=0.1)
    found, folder = measure.measure(stored, chosen, discover(), timeout_s=60)
    assert (found.measured.engine, found.measured.valid) == ("harness loop", None)
    assert sorted(path.name for path in folder.iterdir()) == ["latencies.npz", "log.txt", "result.json"]
    server = measure.settings(stored, "server", seconds=0.1)
    with pytest.raises(measure.UsageError, match=r"scenario server needs MLPerf's LoadGen; run: pip install"):
        measure.measure(stored, server, discover(), timeout_s=60)


@pytest.mark.parametrize(
    ("scenario", "samples_per_query", "lines"),
    [
        ("single-stream", 1, ["mean        2 ms", "1 / mean    500 samples/s, excluding time between queries"]),
        ("multi-stream", 8, ["mean        2 ms", "8 / mean    4000 samples/s, excluding time between queries"]),
        ("server", 1, ["mean        2 ms"]),
        ("offline", 400, ["throughput  40 samples/s"]),
    ],
)
def test_time_between_queries_is_in_no_throughput(scenario: Any, samples_per_query: int, lines: list[str]) -> None:
    # 400 samples took 10 s, of which most was spent between queries: a rate of 40 samples/s would be misleading.
    offline = scenario == "offline"
    result = LatencyResult(
        run_id="a-run",
        settings=Settings(scenario=scenario, seconds=10, batch_size=1, samples_per_query=samples_per_query),
        measured=Measured(engine="harness loop", valid=None, reasons=[], seconds=10, queries=400, samples=400),
        samples_per_s=40.0 if offline else None,
        percentiles_ms={},
        mean_ms=None if offline else 2.0,
        weights="trained",
        device="cpu",
        started_at="2026-01-01T00:00:00Z",
        environment=ENVIRONMENT,
        flags=[],
    )
    shown = [line for line in render(result).splitlines() if line.startswith("mean") or "samples/s" in line]
    assert shown == lines


@pytest.mark.parametrize("scenario", ["single-stream", "offline"])
def test_only_offline_has_a_throughput(run: Path, scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.plugins import discover

    monkeypatch.setattr(measure, "engine_for", lambda scenario: "loop")
    (stored,) = Store(run.parent).load().runs
    chosen = measure.settings(stored, scenario, seconds=0.1)
    found, _ = measure.measure(stored, chosen, discover(), timeout_s=60)
    assert (found.samples_per_s is not None) == (found.mean_ms is None) == (scenario == "offline")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target-qps", "5"), "require --scenario server"),
        (("--scenario", "offline", "--latency-bound-ms", "5"), "require --scenario server"),
        (("--scenario", "multi-stream", "--batch-size", "5"), "multi-stream has a fixed batch size"),
        (("--scenario", "servr"), "'servr' is not one of"),
        (("--seconds", "0"), "--seconds"),
    ],
)
def test_options_of_other_scenarios_are_refused(run: Path, arguments: tuple[str, ...], words: str) -> None:
    done = harness_cli("latency", run.name, *arguments, results=run.parent, status=2)
    assert words in done.stderr
    assert not (run / "latency").exists()


def test_failing_model_is_reported_and_leaves_no_files(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    record["spec"]["dataset_options"] = {"no_such_option": 1}
    (run / "record.json").write_text(json.dumps(record))
    done = harness_cli("latency", run.name, results=run.parent, status=1)
    assert "the latency could not be measured: " in done.stderr
    assert "no_such_option" in done.stderr
    assert not (run / "latency").exists()


def test_latency_of_a_failed_run_is_refused(tmp_path: Path) -> None:
    harness_cli("run", "--task", "toy-regress", "--backend", "toy-value-error", "-q", results=tmp_path, status=1)
    (run,) = tmp_path.glob("toy-*")
    done = harness_cli("latency", run.name, results=tmp_path, status=2)
    assert "failed; there is no model to measure" in done.stderr


def test_measurement_ends_at_its_time_limit(run: Path) -> None:
    command = ("latency", run.name, "--seconds", "60", "--timeout", "2", "--results", str(run.parent))
    done = harness_process(*command, cwd=run)
    assert done.returncode == 1
    assert "did not finish within 2 s; raise the limit with --timeout" in done.stderr
    assert not (run / "latency").exists()
