"""Measure a stored run's latency in a child, and keep what it found beside the run's record."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from harness.checks.latency.child import LatencyJob, measure_latency
from harness.checks.latency.result import LatencyResult, Scenario, Settings
from harness.errors import HarnessError, RecordError, UsageError
from harness.execute.child import call_in_child
from harness.execute.runner import child_environment
from harness.plugins.catalog import Catalog
from harness.records import Failure, Success
from harness.records.store import StoredRun, write_json

FOLDER, RESULT = "latency", "result.json"
STREAMS = 8
"""Samples of a ``multi-stream`` query (MLPerf Inference rules, edge)."""


def settings(
    run: StoredRun,
    scenario: Scenario,
    *,
    seconds: float,
    batch_size: int | None = None,
    target_qps: float | None = None,
    latency_bound_ms: float | None = None,
) -> Settings:
    """Raises `harness.UsageError` for options that this scenario does not have."""
    if scenario != "server" and (target_qps is not None or latency_bound_ms is not None):
        raise UsageError(f"--target-qps and --latency-bound-ms belong to --scenario server, not {scenario}")
    if batch_size is not None and scenario not in ("server", "offline"):
        raise UsageError(f"--batch-size belongs to --scenario server or offline; {scenario} has its own")
    outcome = run.record.outcome
    if not isinstance(outcome, Success):
        raise UsageError(f"run {run.record.run_id!r} failed; there is no model to measure")
    per_query = {"multi-stream": STREAMS, "offline": outcome.examples["test"]}.get(scenario, 1)
    usual = {"multi-stream": STREAMS, "offline": outcome.latency.batch_size}.get(scenario, 1)
    return Settings(
        scenario=scenario,
        seconds=seconds,
        batch_size=batch_size or usual,
        samples_per_query=per_query,
        target_qps=target_qps,
        latency_bound_ms=latency_bound_ms,
    )


def engine_for(scenario: Scenario) -> Literal["loadgen", "loop"]:
    """LoadGen where it is installed. Raises `harness.UsageError` for a scenario that needs it where it is not."""
    if importlib.util.find_spec("mlperf_loadgen") is not None:
        return "loadgen"
    if scenario in ("single-stream", "offline"):
        return "loop"
    raise UsageError(f"the scenario {scenario} needs MLPerf's LoadGen: pip install mlcommons-loadgen")


def measure(run: StoredRun, chosen: Settings, catalog: Catalog, *, timeout_s: float) -> tuple[LatencyResult, Path]:
    """The result, and the folder that it is kept in, with its raw samples and LoadGen's logs.

    Raises `harness.HarnessError` where it could not be measured; nothing is kept then.
    """
    spec = run.record.spec
    engine = engine_for(chosen.scenario)
    place = run.path / FOLDER
    try:
        place.mkdir(exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=place, prefix=".partial-"))
    except OSError as error:
        raise RecordError(f"{place}: cannot be written: {error.strerror}") from None
    try:
        result = call_in_child(
            measure_latency,
            LatencyJob(
                run_id=run.record.run_id,
                spec=spec,
                plugins=catalog.refs_for(spec),
                run=str(run.path.absolute()),
                settings=chosen,
                engine=engine,
            ),
            timeout_s=timeout_s,
            environment=child_environment(spec),
            directory=scratch,
        )
        if isinstance(result, Failure):
            raise HarnessError(f"the latency could not be measured: {result.message}")
        write_json(scratch / RESULT, result)
        return result, _kept(scratch, place, chosen.scenario)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            place.rmdir()  # where nothing is kept


def _kept(scratch: Path, place: Path, scenario: Scenario) -> Path:
    scratch.chmod(0o755)
    number = 1
    while True:
        final = place / f"{scenario}-{number}"
        if not final.exists():
            try:
                return scratch.rename(final)
            except OSError as error:
                if not final.exists():
                    raise RecordError(f"{final}: cannot be written: {error.strerror}") from None
        number += 1
