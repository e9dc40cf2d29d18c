"""The roofs of a device: the matrix rate and the copy bandwidth that a backend attains on it, measured once and kept.

A run's share of the matrix rate is its model FLOPs utilization (Chowdhery et al. 2022, arXiv:2204.02311, appendix B,
with the attainable rate in place of the maker's); rate / bandwidth is the roofline's ridge (Williams et al. 2009, CACM
52, 65-76).
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
from harness.measure.environment import versions
from harness.measure.roofline import hardware_of, save
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import missing
from harness.records import Environment, Failure, PluginRef, Precision, Roofline

MATRICES = {"cpu": (512, 1024, 2048, 4096), "gpu": (2048, 4096, 8192, 16384)}
"""Sizes that are tried; the best counts."""
COPY_BYTES = {"cpu": 512 * 2**20, "gpu": 2**30}
"""Far more than any cache holds, as STREAM asks for (McCalpin 1995)."""
WINDOW_S, WINDOWS = 0.3, 7
LIMIT_S = 600.0


class RooflineJob(msgspec.Struct, frozen=True, kw_only=True):
    backend: str
    plugin: PluginRef
    device: str
    precision: Precision
    threads: int


class Rates(msgspec.Struct, frozen=True):
    matrix_flops_per_s: float
    copy_bytes_per_s: float


def measure(
    backend: str, catalog: Catalog, *, device: str, precision: Precision, threads: int, environment: Environment
) -> Roofline | None:
    """Measure in a child and save the result; return None where the backend has no kernels for it.

    Raises `harness.HarnessError` where that fails, or where it cannot be saved.
    """
    from harness.execute.runner import thread_environment

    provided = catalog.backends[backend]
    rates = call_in_child(
        measure_rates,
        RooflineJob(backend=backend, plugin=provided.plugin, device=device, precision=precision, threads=threads),
        timeout_s=LIMIT_S,
        environment=thread_environment(threads) | dict(provided.value.environment),
    )
    if isinstance(rates, Failure):
        raise HarnessError(f"{backend} on {device}: {rates.message}")
    if rates is None:
        return None
    roofline = Roofline(
        backend=backend,
        device=device,
        precision=precision,
        threads=threads,
        hardware=hardware_of(environment, device),
        versions=versions(provided.value.packages),
        matrix_flops_per_s=rates.matrix_flops_per_s,
        copy_bytes_per_s=rates.copy_bytes_per_s,
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    save(roofline)
    return roofline


def usable(catalog: Catalog) -> list[str]:
    return sorted(name for name, provided in catalog.backends.items() if not missing(provided.value.requires))


def rate(work: Callable[[], Any], synchronize: Callable[[], None], window_s: float = WINDOW_S) -> float:
    """Calls a second, the median of `WINDOWS` windows after one that is not counted."""
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
    """Measure in this process; return None where the backend has no kernels for it."""
    from harness.execute.preparation import backend_of

    backend = backend_of(job.plugin, job.backend)
    kernels = backend.roofline_kernels(job.device, job.precision, job.threads)
    if kernels is None:
        return None
    kind = "cpu" if job.device == "cpu" else "gpu"
    best = max(2 * n**3 * rate(kernels.matrix(n), kernels.synchronize) for n in MATRICES[kind])
    size = COPY_BYTES[kind]
    return Rates(best, 2 * size * rate(kernels.copy(size), kernels.synchronize))
