"""Latency measurement of a stored run in a child process. The result is saved next to the run's record."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import msgspec

from harness.checks.latency.child import LatencyJob, measure_latency
from harness.checks.latency.result import LatencyResult, Scenario, Settings
from harness.errors import HarnessError, RecordError, UsageError
from harness.execute.child import call_in_child
from harness.execute.variables import child_environment
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.records import Failure, Success
from harness.records.files import make_directory
from harness.records.reading import is_stored
from harness.records.recipe import for_inference
from harness.records.store import StoredRun, write_json

FOLDER, RESULT = "latency", "result.json"
STREAMS = 8
"""Number of samples in a ``multi-stream`` query (MLPerf Inference rules for edge systems)."""


def settings(
    run: StoredRun,
    scenario: Scenario,
    *,
    seconds: float,
    batch_size: int | None = None,
    target_qps: float | None = None,
    latency_bound_ms: float | None = None,
) -> Settings:
    """Return the settings for a measurement. Raises `harness.UsageError` if an option does not apply to the
    scenario."""
    if scenario != "server" and (target_qps is not None or latency_bound_ms is not None):
        raise UsageError(f"--target-qps and --latency-bound-ms require --scenario server, not {scenario}")
    if batch_size is not None and scenario not in ("server", "offline"):
        raise UsageError(f"--batch-size requires --scenario server or offline; {scenario} has a fixed batch size")
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
    """Return ``loadgen`` if LoadGen is installed, otherwise ``loop``.

    Raises `harness.UsageError` if LoadGen is not installed and the scenario needs it.
    """
    if importlib.util.find_spec("mlperf_loadgen") is not None:
        return "loadgen"
    if scenario in ("single-stream", "offline"):
        return "loop"
    raise UsageError(f"the scenario {scenario} needs MLPerf's LoadGen; run: pip install mlcommons-loadgen")


def measure(run: StoredRun, chosen: Settings, catalog: Catalog, *, timeout_s: float) -> tuple[LatencyResult, Path]:
    """Measure the latency and return the result and its directory, which also contains raw samples and LoadGen's logs.

    Raises `harness.PluginError` if a plugin of the run is missing, and `harness.HarnessError` if the measurement fails.
    No files are left behind if an error is raised.
    """
    spec = msgspec.structs.replace(run.record.spec, recipe=for_inference(run.record.spec.recipe))
    plugins = catalog.for_run(run.record.provenance.plugins).refs_for(spec)
    engine = engine_for(chosen.scenario)
    folder = run.path / FOLDER
    try:
        make_directory(folder)
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".partial-"))
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written: {error.strerror}") from None
    try:
        result = call_in_child(
            measure_latency,
            LatencyJob(
                run_id=run.record.run_id,
                spec=spec,
                plugins=plugins,
                run=str(run.path.absolute()),
                settings=chosen,
                engine=engine,
            ),
            timeout_s=timeout_s,
            environment=child_environment(spec),
            interpreter=interpreter(spec.env),
            directory=scratch,
            limit_option="--timeout",
        )
        if isinstance(result, Failure):
            raise HarnessError(f"the latency could not be measured: {result.message}")
        write_json(scratch / RESULT, result)
        return result, _saved(scratch, folder, chosen.scenario)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.rmdir()  # fails if the folder is not empty


def _saved(scratch: Path, folder: Path, scenario: Scenario) -> Path:
    """Rename the directory `scratch` to the first unused name in `folder`, and return its new path."""
    scratch.chmod(0o755)
    number = 1
    while True:
        final = folder / f"{scenario}-{number}"
        if not is_stored(final):
            try:
                return scratch.rename(final)
            except OSError as error:
                if not is_stored(final):
                    raise RecordError(f"{final}: cannot be written: {error.strerror}") from None
        number += 1
