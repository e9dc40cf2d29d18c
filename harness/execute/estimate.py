"""Estimates of the duration and disk space of planned runs, based on similar runs in the results directory."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.records import RunSpec, Success
from harness.records.store import StoredRun


@dataclass(frozen=True)
class Estimate:
    """Estimated duration and disk space of a run."""

    seconds: float
    """Duration, in seconds."""
    disk_bytes: int
    """Size of the run's directory, in bytes."""


def estimates(
    specs: Sequence[RunSpec], runs: Iterable[StoredRun], *, quality_only: bool = False
) -> list[Estimate | None]:
    """Return an estimate for each spec: the median over the most similar successful runs.

    Only runs with the same `quality_only` value are considered.

    The most similar runs have specifications that differ only in the seed, the split and the device. If there are no
    such runs, runs with the same task, dataset, model, backend and protocol are used instead. The estimate is None if
    there are no similar runs.
    """
    done = [run for run in runs if isinstance(run.record.outcome, Success) and run.record.quality_only == quality_only]
    levels = []
    for similar in (setting_of, kind_of):
        groups: dict[str, list[StoredRun]] = defaultdict(list)
        for run in done:
            groups[similar(run.record.spec)].append(run)
        levels.append((similar, groups))
    known: dict[str, Estimate | None] = {}
    for spec in specs:
        if (setting := setting_of(spec)) not in known:
            found = next((groups[key] for similar, groups in levels if (key := similar(spec)) in groups), None)
            known[setting] = _estimate(found) if found else None
    return [known[setting_of(spec)] for spec in specs]


def _estimate(runs: Sequence[StoredRun]) -> Estimate:
    return Estimate(
        seconds=statistics.median(run.record.wall_s for run in runs),
        disk_bytes=int(statistics.median(_size(run.path) for run in runs)),
    )


def _size(directory: Path) -> int:
    try:
        with os.scandir(directory) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0


def setting_of(spec: RunSpec) -> str:
    """Return an identifier of the specification without its seed, split and device."""
    return msgspec.structs.replace(spec, device="auto").group_key


def kind_of(spec: RunSpec) -> str:
    """Return an identifier of the task, dataset, model, backend and protocol."""
    return "\0".join((spec.task, spec.dataset, spec.model, spec.backend, spec.protocol.name))
