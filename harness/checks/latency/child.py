"""The child process that measures the latency of a run's model."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

import msgspec
import numpy as np

from harness.checks.latency import loadgen, loop
from harness.checks.latency.result import LatencyResult, Measured, Settings, percentiles_ms
from harness.checks.latency.search import Found, Probe, find_rate
from harness.checks.latency.service import Service
from harness.data.batches import batch_sizes
from harness.execute.child import ChildContext
from harness.execute.environment import collect
from harness.execute.exporting import executable_model
from harness.execute.preparation import fit_at_once, opened_session, prepare, saved_weights, starting_weights
from harness.measure.environment import CORE_PACKAGES, versions
from harness.measure.machine import Machine, difference
from harness.measure.nvml import gpu_processes
from harness.records import PluginRef, RunSpec
from harness.records.arrays import write_arrays
from harness.records.store import WEIGHTS

LATENCIES = "latencies.npz"
MAX_BYTES = 256 * 2**20
"""Maximum total size of the samples kept in memory, in bytes."""
CALIBRATION_S = 0.5
"""Duration of the calibration that estimates the time per query, in seconds."""


class LatencyJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a child process that measures a run's latency."""

    run_id: str
    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    run: str
    """Path of the run's directory."""
    settings: Settings
    engine: Literal["loadgen", "loop"]
    small_batches: bool = False
    """If True, pad an incomplete batch to the next of several allowed sizes, as a service does, instead of to the full
    batch size."""
    find_qps: bool = False
    """True to search for the highest rate that meets the latency bound."""


def measure_latency(job: LatencyJob, context: ChildContext) -> LatencyResult:
    """Measure the latency of the run's model, and save raw latencies and LoadGen's logs in the call's directory."""
    settings = job.settings
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    environment = collect()  # read before loading the model, so that the load average excludes the measurement
    running = gpu_processes() if job.spec.device != "cpu" else {}
    prepared = prepare(job.spec, job.plugins, executable_model)
    machine = Machine(prepared.device.name, gpu_uuid=prepared.device.uuid, gpu_processes=running)
    saved = Path(job.run) / WEIGHTS
    is_saved = saved.is_file()
    weights = saved_weights(saved, prepared) if is_saved else starting_weights(prepared)[0]
    test = prepared.data.test
    with opened_session(prepared, weights) as session:
        if not is_saved:
            fit_at_once(session, prepared)
        size = sum(array[:1].nbytes for array in test.inputs.values())
        sizes = batch_sizes(settings.batch_size) if job.small_batches else ()
        service = Service(session, test, settings.batch_size, max(1, MAX_BYTES // max(1, size)), sizes)
        before = machine.read()
        measured, latencies, search = _measure(service, job, context.directory)
        flags = machine.suspicions(difference(before, machine.read()))
    write_arrays(context.directory / LATENCIES, {"latencies_s": np.array(latencies)})
    one_query = settings.scenario == "offline"
    packages = versions((*CORE_PACKAGES, *prepared.backend.packages))
    return LatencyResult(
        run_id=job.run_id,
        settings=settings,
        measured=measured,
        samples_per_s=measured.samples / measured.seconds if one_query else None,
        percentiles_ms={} if one_query else percentiles_ms(latencies),
        mean_ms=None if one_query else 1e3 * fmean(latencies),
        weights="trained" if is_saved or job.spec.weights or not prepared.backend.trains_by_steps else "initial",
        device=prepared.spec.device,
        started_at=started_at,
        environment=msgspec.structs.replace(environment, packages=packages),
        flags=[f"{kind.replace('_', ' ')}: {detail}" for kind, detail in flags],
        search=search,
    )


def _measure(service: Service, job: LatencyJob, directory: Path) -> tuple[Measured, list[float], Found | None]:
    """Return the results, the latency of each query in seconds, and the result of the search, if any."""
    settings = job.settings
    if job.engine == "loop":
        return *loop.run(service.answer, service.samples, settings), None
    per_query = service.batch_size if settings.scenario == "offline" else settings.samples_per_query
    expected_s = _seconds(lambda: service.answer([n % service.samples for n in range(per_query)]))
    if settings.scenario == "offline":
        expected_s /= per_query

    def run(settings: Settings, logs: Path) -> tuple[Measured, list[float]]:
        return loadgen.run(service.answer, service.samples, settings, expected_s, logs)

    if not job.find_qps:
        return *run(settings, directory), None
    batch_s = _seconds(lambda: service.answer([n % service.samples for n in range(service.batch_size)]))
    return searched(settings, run, START * service.batch_size / batch_s, directory)


START = 0.7
"""Ratio of the first rate in a search to the measured throughput."""


def searched(
    settings: Settings,
    run: Callable[[Settings, Path], tuple[Measured, list[float]]],
    start_qps: float,
    directory: Path,
    failed_s: Callable[[], Sequence[float]] = lambda: (),
    problem: Callable[[], str] = str,
) -> tuple[Measured, list[float], Found]:
    """Search for the highest rate that meets the latency bound, and return the measurement at this rate. If no rate
    meets the bound, return the last measurement.

    The logs of each measurement are written to a new folder in `directory`. After each measurement, `failed_s` returns
    the latencies of the failed queries, in seconds. `problem` returns the reason why the answers cannot be used, or an
    empty string.
    """
    results: dict[float, tuple[Measured, list[float]]] = {}

    def probe(rate: float) -> Probe:
        logs = directory / f"probe-{len(results) + 1}"
        logs.mkdir()
        measured, latencies = results[rate] = run(msgspec.structs.replace(settings, target_qps=rate), logs)
        return Probe(
            target_qps=rate,
            queries=measured.queries,
            late=late(latencies, failed_s(), settings),
            p99_ms=percentiles_ms(latencies)["p99"],
            problem=problem(),
        )

    found = find_rate(probe, start_qps)
    return *results[found.qps or found.probes[-1].target_qps], found


def late(latencies: Sequence[float], failed_s: Sequence[float], settings: Settings) -> int:
    """Return the number of queries that were late or failed. `failed_s` contains the latencies of the queries that
    failed, in seconds. These latencies are also included in `latencies`."""
    bound_s = 1e-3 * (settings.latency_bound_ms or loadgen.DEFAULT_BOUND_MS)
    return sum(latency > bound_s for latency in latencies) + sum(latency <= bound_s for latency in failed_s)


def _seconds(work: Callable[[], Any]) -> float:
    """Return the median duration of `work`, in seconds."""
    times: list[float] = []
    end = time.perf_counter() + CALIBRATION_S
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)
