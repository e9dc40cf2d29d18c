"""Latency measurement of a stored run in a child process. The result is saved next to the run's record."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.checks.latency.child import LatencyJob, measure_latency
from harness.checks.latency.loadgen import DEFAULT_BOUND_MS
from harness.checks.latency.result import LatencyResult, Scenario, Settings
from harness.checks.latency.stored import FOLDER, RESULT
from harness.checks.latency.target import TIMEOUT_S, Target, check_url, described
from harness.checks.latency.target_child import TargetJob, measure_target
from harness.errors import HarnessError, RecordError, UsageError
from harness.execute.child import call_in_child
from harness.execute.variables import child_environment
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.records import Failure, RunSpec, Success
from harness.records.files import make_directory
from harness.records.reading import is_stored
from harness.records.recipe import for_inference
from harness.records.scratch import temporary
from harness.records.store import StoredRun, write_json

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
    target: str | None = None,
    query_timeout_s: float | None = None,
    find_qps: bool = False,
) -> Settings:
    """Return the settings of a measurement. Raises `harness.UsageError` if an option does not apply to the scenario."""
    if scenario != "server" and (target_qps is not None or latency_bound_ms is not None):
        raise UsageError(f"--target-qps and --latency-bound-ms require --scenario server, not {scenario}")
    if scenario != "server" and (target is not None or find_qps):
        raise UsageError(f"--target and --find-qps require --scenario server, not {scenario}")
    if find_qps and (target_qps is not None or latency_bound_ms is None):
        raise UsageError("--find-qps requires --latency-bound-ms and cannot be combined with --target-qps")
    bound_s = 1e-3 * (latency_bound_ms or DEFAULT_BOUND_MS)
    if query_timeout_s is not None and target is None:
        raise UsageError("--query-timeout limits the queries to a service; pass its address with --target")
    if query_timeout_s is not None and query_timeout_s < bound_s:
        raise UsageError(
            f"--query-timeout {query_timeout_s:g} is shorter than the latency bound of {bound_s:g} s; use a longer time"
        )
    if target is not None:
        query_timeout_s = query_timeout_s or max(TIMEOUT_S, 2 * bound_s)
        check_url(target)
        if batch_size is not None:
            raise UsageError("--batch-size cannot be combined with --target; pass it to harness serve")
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
        target=target,
        query_timeout_s=query_timeout_s,
    )


def engine_for(scenario: Scenario) -> Literal["loadgen", "loop"]:
    """Return ``loadgen`` if LoadGen is installed, otherwise ``loop``.

    Raises `harness.UsageError` if LoadGen is not installed and the scenario requires it.
    """
    if importlib.util.find_spec("mlperf_loadgen") is not None:
        return "loadgen"
    if scenario in ("single-stream", "offline"):
        return "loop"
    raise UsageError(f"the scenario {scenario} needs MLPerf's LoadGen; run: pip install mlcommons-loadgen")


def measure(
    run: StoredRun, chosen: Settings, catalog: Catalog, *, timeout_s: float, find_qps: bool = False
) -> tuple[LatencyResult, Path]:
    """Measure the latency and return the result and its directory, which also contains raw samples and LoadGen's logs.

    After a service is measured, the same model is measured in a child process at the same rate. With `find_qps`,
    the result is the measurement at the highest rate that meets the latency bound. Raises `harness.PluginError` if a
    plugin of the run is missing, and `harness.HarnessError` if the measurement fails. If an error is raised, all files
    of the measurement are removed.
    """
    folder = run.path / FOLDER
    with contextlib.ExitStack() as stack:
        try:
            make_directory(folder)
            stack.callback(_remove_empty, folder)
            scratch = stack.enter_context(temporary(folder)) / "result"
            scratch.mkdir()
        except OSError as error:
            raise RecordError(f"{folder}: cannot be written: {error.strerror}") from None
        if chosen.target is None:
            result = _in_process(run, chosen, catalog, scratch, timeout_s=timeout_s, find_qps=find_qps)
        else:
            result = _over_http(run, chosen, catalog, scratch, timeout_s=timeout_s, find_qps=find_qps)
        write_json(scratch / RESULT, result)
        return result, _saved(scratch, folder, chosen.scenario)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # raised if the folder is not empty
        folder.rmdir()


def _in_process(
    run: StoredRun,
    chosen: Settings,
    catalog: Catalog,
    directory: Path,
    *,
    timeout_s: float,
    find_qps: bool = False,
    small_batches: bool = False,
    threads: int | None = None,
) -> LatencyResult:
    spec = msgspec.structs.replace(run.record.spec, recipe=for_inference(run.record.spec.recipe))
    if threads is not None:
        spec = msgspec.structs.replace(spec, threads=threads)
    job = LatencyJob(
        run_id=run.record.run_id,
        spec=spec,
        plugins=catalog.for_run(run.record.provenance.plugins).refs_for(spec),
        run=str(run.path.absolute()),
        settings=chosen,
        engine=engine_for(chosen.scenario),
        small_batches=small_batches,
        find_qps=find_qps,
    )
    result = call_in_child(measure_latency, job, **_options(spec, directory, timeout_s))
    if isinstance(result, Failure):
        raise HarnessError(f"the latency could not be measured: {result.message}")
    return result


def _over_http(
    run: StoredRun, chosen: Settings, catalog: Catalog, directory: Path, *, timeout_s: float, find_qps: bool
) -> LatencyResult:
    """Measure a service, and then measure the model in a child process with the same rate, batch size and number of
    threads.

    The model is not measured in a child process if the service and the run use different backends.
    """
    engine_for(chosen.scenario)
    record = run.record
    target = Target.with_token(chosen.target or "", chosen.query_timeout_s)
    served = described(target)
    if served.run != record.run_id:
        raise UsageError(
            f"the service at {target.url} serves run {served.run!r}, not {record.run_id!r}; pass that run or a "
            "different --target"
        )
    own = catalog.for_run(record.provenance.plugins)
    job = TargetJob(
        run_id=record.run_id,
        spec=record.spec,
        plugins=own.refs_for(record.spec),
        run=str(run.path.absolute()),
        dataset_digest=record.provenance.dataset_digest or "",
        settings=msgspec.structs.replace(chosen, batch_size=served.batch_size),
        backend=served.backend,
        device=served.device,
        threads=served.threads,
        find_qps=find_qps,
    )
    result = call_in_child(measure_target, job, **_options(record.spec, directory, timeout_s))
    if isinstance(result, Failure):
        raise HarnessError(f"the service could not be measured: {result.message}")
    if result.served is None or served.backend != record.spec.backend:
        return result
    rate = result.measured.target_qps
    same = msgspec.structs.replace(result.settings, target=None, query_timeout_s=None, target_qps=rate)
    with tempfile.TemporaryDirectory(prefix="harness-latency-") as scratch:
        bare = _in_process(
            run, same, catalog, Path(scratch), timeout_s=timeout_s, small_batches=True, threads=served.threads
        )
    return msgspec.structs.replace(
        result, served=msgspec.structs.replace(result.served, in_process_ms=bare.percentiles_ms)
    )


def _options(spec: RunSpec, directory: Path, timeout_s: float) -> dict[str, Any]:
    """Return keyword arguments for `call_in_child`."""
    return {
        "timeout_s": timeout_s,
        "environment": child_environment(spec),
        "interpreter": interpreter(spec.env),
        "directory": directory,
        "limit_option": "--timeout",
        "raise_usage_errors": True,
    }


def _saved(scratch: Path, folder: Path, scenario: Scenario) -> Path:
    """Rename the directory `scratch` to the first unused name in `folder`, and return its new path."""
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
