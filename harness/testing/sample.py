"""A small synthetic report for testing report formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness.records import (
    EpochEnded,
    Failure,
    Latency,
    Memory,
    ModelInfo,
    Provenance,
    Recipe,
    RunRecord,
    RunSpec,
    Scores,
    Speed,
    Steady,
    Success,
)
from harness.records.arrays import write_arrays
from harness.records.files import write_new
from harness.records.store import ARRAYS, RECORD, StoredRun

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog
    from harness.report.report import Report

HOSTILE = '<script>alert("owned")</script>|a|b\x1b[31m\n=1+1'
"""Name that must be escaped. The name contains an HTML script, a table column separator and a terminal control
sequence."""


def sample_report(directory: Path, catalog: Catalog | None = None) -> Report:
    """Create a small report from synthetic records for testing report formats.

    The report compares two backends with two seeds each, and contains a failed run. One backend has a name with special
    characters, which report formats must escape. The records and their raw samples are written to `directory`.

    Parameters
    ----------
    directory : Path
        Empty folder to which the records are written.
    catalog : Catalog, default: None
        Loaded plugins. If None, the installed plugins are discovered.

    Returns
    -------
    Report
        The report. The `table` attribute is the argument for a reporter with ``takes="table"``.

    Examples
    --------
    >>> def test_my_format_escapes_names(tmp_path):
    ...     assert "<script>" not in render(harness.testing.sample_report(tmp_path).table)
    """
    from harness.plugins import discover
    from harness.report.report import Report

    records = [_record(backend, seed, failed=False) for backend in ("torch", HOSTILE) for seed in (0, 1)]
    records.append(_record("torch", 2, failed=True))
    runs = [StoredRun(directory / record.run_id, record) for record in records]
    for run in runs:
        run.path.mkdir(parents=True)
        write_new(run.path / RECORD, msgspec.json.encode(run.record))
        if isinstance(run.record.outcome, Success):
            _write_samples(run.path / ARRAYS)
    return Report(runs=tuple(runs), catalog=discover() if catalog is None else catalog)


def _write_samples(path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    samples = {
        "train_window_steps": np.array([1, *[5] * 21]),
        "train_window_s": np.array([0.5, *rng.uniform(0.15, 0.17, 21)]),
        "train_losses": np.geomspace(2.0, 0.5, 106),
        "sampling_window_steps": np.full(4, 5),
        "sampling_window_s": rng.uniform(0.15, 0.17, 4),
        "inference_window_batches": np.full(21, 40),
        "inference_window_s": rng.uniform(0.25, 0.26, 21),
        "latencies_s": rng.gamma(20, 0.0005, 700),
    }
    write_arrays(path, samples)


def _record(backend: str, seed: int, *, failed: bool) -> RunRecord:
    from harness.measure.environment import collect

    spec = RunSpec(task="sample", dataset="sample", model="sample", backend=backend, seed=seed, recipe=Recipe())
    score: dict[str, float | None] = {"accuracy": 0.9 - seed / 100, "f1_macro": 0.88}
    steady = Steady(windows=20, seconds=5.0, warmup_windows=1, low=980.0, high=1020.0, ended="target")
    success = Success(
        scores=Scores(primary="accuracy", test=score, validation=score),
        curves=[
            EpochEnded(
                epoch=epoch, epochs=3, step=35 * epoch, train_s=epoch / 3, train_loss=1 / epoch, validation=score
            )
            for epoch in (1, 2, 3)
        ],
        speed=Speed(
            train_samples_per_s=1000.0 + seed,
            inference_samples_per_s=5000.0,
            first_step_s=0.1,
            train=steady,
            inference=steady,
        ),
        latency=Latency(batch_size=32, samples=700, p50_ms=6.4, p90_ms=6.8, p99_ms=7.5),
        memory=Memory(host_peak_bytes=2**29, host_peak_by_phase_bytes={"train": 2**29}, host_counter="VmHWM"),
        model=ModelInfo(parameters=1000, flops_per_sample=2000.0),
        phases_s={"train": 1.0},
        examples={"train": 100, "validation": 20, "test": 20},
    )
    return RunRecord(
        run_id=f"sample-{seed}-{len(backend)}{'-failed' * failed}",
        key=spec.key,
        repeat=1,
        started_at="2026-01-01T00:00:00.000+00:00",
        wall_s=2.0,
        spec=spec,
        environment=collect(),
        provenance=Provenance(),
        outcome=Failure(kind="error", message=HOSTILE) if failed else success,
    )
