"""The child process of a latency measurement, which opens a run's model and measures it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

import msgspec
import numpy as np

from harness.checks.latency import loadgen, loop
from harness.checks.latency.result import LatencyResult, Measured, Settings, percentiles_ms
from harness.checks.latency.service import Service
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
"""Maximum size of the samples kept in memory, in bytes."""
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
        fit_at_once(session, prepared)
        size = sum(array[:1].nbytes for array in test.inputs.values())
        service = Service(session, test, settings.batch_size, max(1, MAX_BYTES // max(1, size)))
        before = machine.read()
        measured, latencies = _measure(service, job, context.directory)
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
    )


def _measure(service: Service, job: LatencyJob, directory: Path) -> tuple[Measured, list[float]]:
    """Return the results and the latency of each query, in seconds."""
    if job.engine == "loop":
        return loop.run(service.answer, service.samples, job.settings)
    per_query = service.batch_size if job.settings.scenario == "offline" else job.settings.samples_per_query
    expected_s = _seconds(lambda: service.answer([n % service.samples for n in range(per_query)]))
    if job.settings.scenario == "offline":
        expected_s /= per_query
    return loadgen.run(service.answer, service.samples, job.settings, expected_s, directory)


def _seconds(work: Callable[[], Any]) -> float:
    """Return the median duration of `work`, in seconds."""
    times: list[float] = []
    end = time.perf_counter() + CALIBRATION_S
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)
