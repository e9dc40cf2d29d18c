"""The runs in pytest-benchmark's JSON format.

``pytest-benchmark compare`` and continuous benchmarking services read this format. Each row of the table is written as
up to three benchmarks. Each benchmark contains the samples of all successful runs in the row. ``train`` and
``inference`` are in seconds per example, with one value for each window of the steady state. For a model that is fitted
in one call, ``fit`` replaces ``train``. The ``latency`` benchmark is in seconds per batch. ``extra_info`` contains the
quality and all other values of the row, rounded as in all other formats.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.analysis.differences import IDENTITY
from harness.analysis.formatting import one_line
from harness.analysis.metrics import fitted_in_one_call
from harness.analysis.table import Row
from harness.errors import UsageError
from harness.records import Success
from harness.records.samples import inference_windows, train_windows, usable
from harness.records.store import StoredRun
from harness.report.report import Report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAMED = (*IDENTITY, "options")


def render(report: Report) -> str:
    """Return the runs as a JSON document. Raises `harness.UsageError` if none of the runs has samples."""
    benchmarks = [benchmark for row in report.table.rows for benchmark in _benchmarks(row, report)]
    if not benchmarks:
        raise UsageError(
            "none of these runs has timing samples, so there is nothing to write; choose other runs or another --format"
        )
    last = report.runs[-1].record
    environment = last.environment
    commit = environment.git_commit or "unversioned"
    document = {
        "machine_info": {
            "node": "",
            "processor": environment.cpu,
            "machine": environment.kernel.rpartition(" ")[2],
            "python_implementation": environment.python.partition(" ")[0],
            "python_version": environment.python.partition(" ")[2],
            "system": environment.kernel.partition(" ")[0],
            "release": environment.os,
            "cpu": {"brand_raw": environment.cpu, "count": environment.cores},
            "gpus": [gpu.name for gpu in environment.gpus],
        },
        "commit_info": {
            "id": commit.removesuffix("+dirty"),
            "time": None,  # records contain only the hash of the commit
            "author_time": None,
            "dirty": commit.endswith("+dirty"),
            "project": "harness",
            "branch": "(unknown)",
        },
        "benchmarks": benchmarks,
        "datetime": last.started_at,
        "version": _stats_of([1.0])[1],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _benchmarks(row: Row, report: Report) -> Iterator[dict[str, Any]]:
    named = {name: one_line(row.text(name)) for name in _NAMED if row.text(name)}
    figures = {column.name: row.text(column.name) for column in report.table.columns if column.kind == "number"}
    extra = {
        "metric": row.text("metric"),
        "metric_unit": row.text("metric_unit"),
        "metric_better": row.text("metric_better"),
        "seeds": row.text("seeds"),
        "runs": row.text("runs"),
        "flags": row.text("flags"),
    }
    extra |= {name: value for name, value in figures.items() if value}
    collected: dict[str, list[float]] = {"train": [], "fit": [], "inference": [], "latency": []}
    for run in report.runs_of(row):
        for name, samples in _samples(run).items():
            collected[name] += [float(seconds) for seconds in samples]
    for name, seconds in collected.items():
        if not seconds:
            continue
        label = "-".join(named.values())
        yield {
            "group": " ".join([named["task"], named["dataset"], name]),
            "name": f"{name}[{label}]",
            "fullname": f"harness::{name}[{label}]",
            "params": named,
            "param": label,
            "extra_info": extra | {"unit": "s per batch" if name == "latency" else "s per sample"},
            "options": {
                "disable_gc": False,
                "timer": "perf_counter",
                "min_rounds": 1,
                "max_time": 0.0,
                "min_time": 0.0,
                "warmup": True,
            },
            "stats": _stats_of(seconds)[0] | {"data": seconds, "iterations": 1},
        }


def _samples(run: StoredRun) -> dict[str, NDArray[np.float64]]:
    if not isinstance(run.record.outcome, Success) or run.record.quality_only:
        return {}
    arrays = usable(run)
    training = "fit" if fitted_in_one_call(run.record) else "train"
    windows = {training: train_windows(run.record, arrays), "inference": inference_windows(run.record, arrays)}
    seconds = {name: 1 / w.samples_per_s[w.steady_from :] for name, w in windows.items() if w is not None}
    return seconds | ({"latency": arrays["latencies_s"]} if "latencies_s" in arrays else {})


def _stats_of(seconds: list[float]) -> tuple[dict[str, Any], str]:
    """Return the statistics that pytest-benchmark computes, and the version of pytest-benchmark."""
    from pytest_benchmark import __version__
    from pytest_benchmark.stats import Stats

    stats = Stats()
    for value in seconds:
        stats.update(value)
    return stats.as_dict(), __version__
