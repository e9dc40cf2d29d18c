"""The roofline of a device, which consists of the highest matrix multiplication rate and the highest copy bandwidth of
a backend.

A run's model FLOPs utilization is the fraction of the matrix multiplication rate that the run achieves (Chowdhery et
al. 2022, arXiv:2204.02311, appendix B). The measured rate is used instead of the manufacturer's peak. The matrix
multiplication rate divided by the bandwidth is the ridge point of the roofline (Williams et al. 2009, CACM 52, 65-76).
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec

from harness.errors import HarnessError
from harness.execute.child import ChildContext, call_in_child
from harness.interfaces import DeviceInfo
from harness.measure.environment import versions
from harness.measure.roofline import hardware_of, save
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import missing
from harness.records import Environment, Failure, PluginRef, Precision, Roofline

MATRICES = {"cpu": (512, 1024, 2048, 4096), "gpu": (2048, 4096, 8192, 16384)}
"""Sizes of the square matrices. The result is the highest rate over all sizes."""
COPY_BYTES = {"cpu": 512 * 2**20, "gpu": 2**30}
"""Size of the copied array in bytes. The array must be much larger than the caches, as in STREAM (McCalpin 1995)."""
WINDOW_S, WINDOWS = 0.3, 7
"""Approximate duration of a timed window in seconds, and number of windows."""
LIMIT_S = 600.0
"""Time limit for a measurement, in seconds."""


class RooflineJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that measures a roofline."""

    backend: str
    plugin: PluginRef
    device: str
    precision: Precision
    threads: int


class Rates(msgspec.Struct, frozen=True):
    """Rates achieved by a backend on a device."""

    matrix_flops_per_s: float
    copy_bytes_per_s: float


def measure(
    backend: str, catalog: Catalog, *, device: DeviceInfo, precision: Precision, threads: int, environment: Environment
) -> Roofline | None:
    """Measure a roofline in a child process, then save and return the result.

    Returns None if the backend has no kernels for the measurement. Raises `harness.HarnessError` if the measurement
    fails or its result cannot be saved.
    """
    from harness.execute.variables import thread_environment

    provided = catalog.backends[backend]
    rates = call_in_child(
        measure_rates,
        RooflineJob(backend=backend, plugin=provided.plugin, device=device.name, precision=precision, threads=threads),
        timeout_s=LIMIT_S,
        environment=thread_environment(threads) | dict(provided.value.environment),
    )
    if isinstance(rates, Failure):
        raise HarnessError(f"{backend} on {device.name}: {rates.message}")
    if rates is None:
        return None
    roofline = Roofline(
        backend=backend,
        device=device.name,
        precision=precision,
        threads=threads,
        hardware=hardware_of(environment, device.name, device.description),
        versions=versions(provided.value.packages),
        matrix_flops_per_s=rates.matrix_flops_per_s,
        copy_bytes_per_s=rates.copy_bytes_per_s,
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    save(roofline)
    return roofline


def usable(catalog: Catalog) -> list[str]:
    """Return the names of the backends whose requirements are installed."""
    return sorted(name for name, provided in catalog.backends.items() if not missing(provided.value.requires))


def rate(work: Callable[[], Any], synchronize: Callable[[], None], window_s: float = WINDOW_S) -> float:
    """Return the median number of calls per second over `WINDOWS` windows, excluding an initial warm-up window."""
    count = 1
    rates: list[float] = []
    while len(rates) <= WINDOWS:
        synchronize()
        start = time.perf_counter()
        for _ in range(count):
            work()
        synchronize()
        seconds = time.perf_counter() - start
        if seconds < window_s / 2:
            count *= 2
            continue
        rates.append(count / seconds)
    return median(rates[1:])


def measure_rates(job: RooflineJob, context: ChildContext) -> Rates | None:
    """Measure compute and copy rates in this process. Return None if the backend has no kernels for the measurement."""
    from harness.execute.preparation import backend_of

    backend = backend_of(job.plugin, job.backend)
    kernels = backend.roofline_kernels(job.device, job.precision, job.threads)
    if kernels is None:
        return None
    kind = "cpu" if job.device == "cpu" else "gpu"
    best = max(2 * n**3 * rate(kernels.matrix(n), kernels.synchronize) for n in MATRICES[kind])
    size = COPY_BYTES[kind]
    return Rates(best, 2 * size * rate(kernels.copy(size), kernels.synchronize))
