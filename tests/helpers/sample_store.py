"""Results directories with artificial records and matching raw samples."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sample_records import comparison, failure, record, success

from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import ClassScore, DataInfo, InputSpec, RunRecord, Success
from harness.records.files import safe_name
from harness.records.store import ARRAYS, LOG, RECORD, Store
from harness.report.report import Report

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&=1+1"
"""Name that runs a script in a page that does not escape names."""


def arrays_for(made: RunRecord) -> dict[str, Any]:
    """Return random raw samples with the names and shapes of a real run, generated from the seed of the run."""
    rng = np.random.default_rng(made.spec.seed)
    regression = isinstance(made.outcome, Success) and made.outcome.scores.primary == "rmse"
    targets = rng.normal(size=(80, 1)).astype("float32") if regression else rng.integers(0, 2, 80)
    outputs = targets + rng.normal(size=(80, 1)) / 2 if regression else rng.normal(size=(80, 2)) + np.eye(2)[targets]
    return {
        "train_window_steps": np.array([1, *[5] * 20]),
        "train_window_s": np.array([0.5, *rng.uniform(0.09, 0.11, 20)]),
        "train_losses": np.geomspace(2.0, 0.5, 400),
        "sampling_window_steps": np.full(4, 5),
        "sampling_window_s": rng.uniform(0.09, 0.11, 4),
        "inference_window_batches": np.full(14, 6),
        "inference_window_s": rng.uniform(0.09, 0.11, 14),
        "latencies_s": rng.gamma(20, 0.0005, 150),
        "test_outputs": outputs.astype("float32"),
        "test_targets": targets,
    }


def fitting(made: RunRecord) -> RunRecord:
    """Return the record with the additional fields that pages read: scores of both classes, or data of a regression."""
    if not isinstance(made.outcome, Success):
        return made
    scores = made.outcome.scores
    if scores.primary == "rmse":
        info = DataInfo(
            kind="features",
            inputs={"features": InputSpec(shape=(10,), dtype="float32")},
            objective="regression",
            outputs=1,
            target_mean=(150.0,),
            target_scale=(75.0,),
            details={"target_unit": "score"},
        )
        provenance = msgspec.structs.replace(made.provenance, data=info)
        plain = msgspec.structs.replace(scores, per_class=[], confusion=[])
        outcome = msgspec.structs.replace(made.outcome, scores=plain)
        return msgspec.structs.replace(made, provenance=provenance, outcome=outcome)
    labels = made.provenance.data.label_names if made.provenance.data else ("de", "fr")
    per_class = [
        ClassScore(label=label, precision=0.7, recall=0.8, f1=0.747, roc_auc=0.8, support=40) for label in labels
    ]
    interval = {scores.primary: (0.6, 0.8)}
    outcome = msgspec.structs.replace(
        made.outcome,
        scores=msgspec.structs.replace(scores, per_class=per_class, intervals=interval, interval_method=""),
    )
    return msgspec.structs.replace(made, outcome=outcome)


def write(path: Path, records: Sequence[RunRecord]) -> Path:
    """Write a results directory with these records, their arrays and a log, and return its path.

    Records with the default start time get increasing start times. Directory names are made safe; records keep the
    original names.
    """
    for number, made in enumerate(map(fitting, records)):
        if made.started_at == "2025-11-22T12:00:00Z":
            at = f"{datetime(2025, 11, 22, 12) + timedelta(seconds=10 * number):%Y-%m-%dT%H:%M:%S}Z"  # after the end
            made = msgspec.structs.replace(made, started_at=at)
        name = f"{made.run_id}-{number}"
        folder = path / safe_name(name)
        folder.mkdir(parents=True)
        (folder / RECORD).write_bytes(msgspec.json.encode(msgspec.structs.replace(made, run_id=name)))
        (folder / LOG).write_text("epoch 1\nepoch 2 <b>done</b>\n")
        if isinstance(made.outcome, Success):
            np.savez(folder / ARRAYS, **arrays_for(made))
    return path


def hostile() -> list[RunRecord]:
    """Return runs whose names, messages and classes contain scripts and formulas."""
    info = DataInfo(
        kind="tokens",
        inputs={"input_ids": InputSpec(shape=(32,), dtype="int32")},
        objective="classification",
        outputs=2,
        label_names=(HOSTILE, "=cmd|' /C calc'!A0"),
    )
    made = []
    for backend in ("torch", HOSTILE):
        one = record(success(), backend=backend, model=HOSTILE, dataset=HOSTILE, task=HOSTILE)
        made.append(msgspec.structs.replace(one, provenance=msgspec.structs.replace(one.provenance, data=info)))
    bad = msgspec.structs.replace(failure("error", HOSTILE), log_tail=HOSTILE)
    made.append(record(bad, backend="tensorflow", model="</script>", dataset="-1+1", task="safe"))
    return made


def many(count: int) -> list[RunRecord]:
    """Return `count` runs of two tasks and two backends with different seeds."""
    made = []
    for number in range(count):
        backend = ("torch", "tensorflow")[number % 2]
        changes: dict[str, Any] = {"backend": backend, "seed": number // 4}
        if number // 2 % 2:
            changes |= {"task": "vision", "dataset": "digits", "model": "resnet-20"}
        speed = 1000.0 + 13 * (number % 7) + 300 * (backend == "torch")
        made.append(record(success(0.7 + number % 5 / 100, train=speed, inference=4 * speed), **changes))
    return made


def report_of(path: Path, catalog: Catalog | None = None) -> Report:
    """Return the report of a results directory."""
    loaded = Store(path).load()
    return Report(runs=tuple(loaded.runs), catalog=catalog or load([]), problems=tuple(loaded.problems))


def example(path: Path) -> Report:
    """Write the runs of `comparison` to `path` and return their report."""
    return report_of(write(path, comparison()))
