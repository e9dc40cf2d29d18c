"""The roofs of a device: the matrix rate and the copy bandwidth that a backend attains on it, measured once and kept.

A run's share of the matrix rate is its model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B,
with the attainable rate in place of the maker's); rate / bandwidth is the roofline's ridge (Williams et al. 2009, CACM
52, 65-76).

``python -m harness.checks.roofline BACKEND PLUGIN DEVICE PRECISION THREADS FD`` is the child that measures.
"""

from __future__ import annotations

import datetime
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from harness.errors import HarnessError
from harness.measure.environment import versions
from harness.measure.roofline import hardware_of, save
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import missing
from harness.records import Environment, PluginRef, Precision, Roofline

MATRICES = {"cpu": (512, 1024, 2048, 4096), "gpu": (2048, 4096, 8192, 16384)}
"""Sizes that are tried; the best counts."""
COPY_BYTES = {"cpu": 512 * 2**20, "gpu": 2**30}
"""Far more than any cache holds, as STREAM asks for (McCalpin 1995)."""
WINDOW_S, WINDOWS = 0.3, 7
LIMIT_S = 600.0


class _Found(msgspec.Struct, frozen=True):
    matrix_flops_per_s: float
    copy_bytes_per_s: float


def measure(
    backend: str, catalog: Catalog, *, device: str, precision: Precision, threads: int, environment: Environment
) -> Roofline | None:
    """Measure in a child and keep it; None where the backend has no kernels for it.

    Raises `harness.HarnessError` where that fails, or where it cannot be kept.
    """
    from harness.execute.child import run_child
    from harness.execute.runner import explain_end, thread_environment

    provided = catalog.backends[backend]
    plugin = msgspec.json.encode(provided.plugin).decode()
    lines: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="harness-roofline-") as place:
        log = Path(place) / "log.txt"
        ended = run_child(
            "harness.checks.roofline",
            [backend, plugin, device, precision, str(threads)],
            log=log,
            timeout_s=LIMIT_S,
            on_line=lines.append,
            environment=thread_environment(threads) | dict(provided.value.environment),
        )
        if ended.status or ended.timed_out:
            raise HarnessError(f"{backend} on {device}: {explain_end(ended, LIMIT_S, log).message}")
    if not lines:
        return None
    found = msgspec.json.decode(lines[-1], type=_Found)
    roofline = Roofline(
        backend=backend,
        device=device,
        precision=precision,
        threads=threads,
        hardware=hardware_of(environment, device),
        versions=versions(provided.value.packages),
        matrix_flops_per_s=found.matrix_flops_per_s,
        copy_bytes_per_s=found.copy_bytes_per_s,
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


def _measure(name: str, plugin: PluginRef, device: str, precision: Precision, threads: int) -> _Found | None:
    from harness.execute.preparation import load_plugins

    backend = load_plugins([plugin]).backend(name)
    os.environ.update(backend.environment)
    kernels = backend.roofline_kernels(device, precision, threads)
    if kernels is None:
        return None
    kind = "cpu" if device == "cpu" else "gpu"
    best = max(2 * n**3 * rate(kernels.matrix(n), kernels.synchronize) for n in MATRICES[kind])
    size = COPY_BYTES[kind]
    return _Found(best, 2 * size * rate(kernels.copy(size), kernels.synchronize))


def main(name: str, plugin: str, device: str, precision: str, threads: str, fd: str) -> None:
    chosen = msgspec.convert(precision, Precision)
    found = _measure(name, msgspec.json.decode(plugin, type=PluginRef), device, chosen, int(threads))
    if found is not None:
        os.write(int(fd), msgspec.json.encode(found) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
