"""The child's main: ``python -m harness.checks.latency.child JOB DIRECTORY FD`` opens a run's model and measures it."""

from __future__ import annotations

import datetime
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

import msgspec
import numpy as np

from harness.checks.latency import loadgen, loop
from harness.checks.latency.result import LatencyResult, Measured, Settings, percentiles_ms
from harness.checks.latency.service import Service
from harness.execute.preparation import (
    choose_device,
    explain,
    load_plugins,
    prepare_data,
    ready,
    session_request,
    starting_weights,
)
from harness.interfaces import DeviceInfo, PreparedData, Session
from harness.measure.environment import CORE_PACKAGES, collect, versions
from harness.measure.machine import Machine, difference
from harness.plugins.catalog import Catalog
from harness.records import Failure, PluginRef, RunRecord
from harness.records.store import WEIGHTS, write_json

RESULT, LATENCIES = "result.json", "latencies.npz"
MAX_BYTES = 256 * 2**20
"""Of samples that are held in memory."""
CALIBRATION_S = 0.5


class Job(msgspec.Struct, frozen=True, kw_only=True):
    record: RunRecord
    plugins: tuple[PluginRef, ...]
    run: str
    """The run's directory."""
    settings: Settings
    engine: Literal["loadgen", "loop"]


def _measure(job: Job, directory: Path) -> LatencyResult:
    spec, settings = job.record.spec, job.settings
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    environment = collect()  # before the model is there, so that the load average is not our own
    catalog = load_plugins(job.plugins)
    backend = catalog.backend(spec.backend)
    os.environ.update(backend.environment)
    device = choose_device(backend, spec)
    machine = Machine(device.name)
    data = prepare_data(catalog, spec)
    session, weights = _open(catalog, job, data, device)
    try:
        size = sum(array[:1].nbytes for array in data.test.inputs.values())
        service = Service(session, data.test, settings.batch_size, max(1, MAX_BYTES // max(1, size)))
        before = machine.read()
        measured, latencies = _ask(service, job, directory)
        flags = machine.suspicions(difference(before, machine.read()))
    finally:
        session.close()
    np.savez(directory / LATENCIES, latencies_s=np.array(latencies))
    one_query = settings.scenario == "offline"
    packages = versions((*CORE_PACKAGES, *backend.packages))
    return LatencyResult(
        run_id=job.record.run_id,
        settings=settings,
        measured=measured,
        samples_per_s=measured.samples / measured.seconds,
        percentiles_ms={} if one_query else percentiles_ms(latencies),
        mean_ms=None if one_query else 1e3 * fmean(latencies),
        weights=weights,
        device=device.name,
        started_at=started_at,
        environment=msgspec.structs.replace(environment, packages=packages),
        flags=[f"{kind.replace('_', ' ')}: {detail}" for kind, detail in flags],
    )


def _open(
    catalog: Catalog, job: Job, data: PreparedData, device: DeviceInfo
) -> tuple[Session, Literal["trained", "initial"]]:
    from harness.execute.weights import check, load

    model, _, request = session_request(catalog, job.record.spec, data, device)
    saved = Path(job.run) / WEIGHTS
    is_saved = saved.is_file()
    weights = load(saved) if is_saved else starting_weights(model, request, job.record.spec)[0]
    check(weights, request.parameters)
    backend = catalog.backend(job.record.spec.backend)
    session = backend.open(request)
    ready(session, backend, weights, data)
    return session, "trained" if is_saved or not backend.trains_by_steps else "initial"


def _ask(service: Service, job: Job, directory: Path) -> tuple[Measured, list[float]]:
    if job.engine == "loop":
        return loop.run(service.answer, service.samples, job.settings)
    per_query = service.batch_size if job.settings.scenario == "offline" else job.settings.samples_per_query
    expected_s = _seconds(lambda: service.answer([n % service.samples for n in range(per_query)]))
    if job.settings.scenario == "offline":
        expected_s /= per_query
    return loadgen.run(service.answer, service.samples, job.settings, expected_s, directory)


def _seconds(work: Callable[[], Any]) -> float:
    """Median seconds of a query, for LoadGen to know what to expect."""
    times: list[float] = []
    end = time.perf_counter() + CALIBRATION_S
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def main(job_path: str, directory: str, fd: int) -> None:
    os.set_inheritable(fd, False)
    job = msgspec.json.decode(Path(job_path).read_bytes(), type=Job)
    result: LatencyResult | Failure
    try:
        result = _measure(job, Path(directory))
    except Exception as error:
        traceback.print_exc()
        kind, message = explain(error, None)
        os.write(fd, msgspec.json.encode(Failure(kind=kind, message=message)) + b"\n")
        sys.exit(1)
    write_json(Path(directory) / RESULT, result)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
