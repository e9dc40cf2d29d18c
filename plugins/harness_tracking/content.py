"""Values that are logged for each run, with the same names in every tracker."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from harness import EpochEnded, Failure, RunRecord, RunSpec, Success, Trial

_PATHS = {"source", "pretrained.path", "weights.path", "weights.exported.path", "teacher.path"}
"""Settings that contain paths on the user's machine. These settings are not part of a run's key, and are not logged."""


def unwritable(directory: Path) -> str:
    """Return the reason why a directory cannot be created or written, or an empty string. Nothing is written."""
    existing = next(each for each in (directory, *directory.parents) if os.path.lexists(each))
    if not existing.is_dir():
        return f"{existing} is not a directory"
    return "" if os.access(existing, os.W_OK | os.X_OK) else f"{existing} is not writable"


def parameters(spec: RunSpec) -> dict[str, bool | int | float | str]:
    """Return the settings of a run, with names such as ``recipe.learning_rate``. Unset settings are omitted, and lists
    are written as JSON."""
    found: dict[str, bool | int | float | str] = {}

    def add(prefix: str, value: Any) -> None:
        if prefix in _PATHS or value is None:
            return
        if isinstance(value, dict):
            for name, part in value.items():
                add(f"{prefix}.{name}" if prefix else str(name), part)
        else:
            found[prefix] = value if isinstance(value, bool | int | float | str) else json.dumps(value)

    add("", msgspec.to_builtins(spec))
    return found


def epoch_scalars(epoch: EpochEnded) -> dict[str, float]:
    """Return the training loss and the validation scores of an epoch."""
    scores = {f"validation/{name}": value for name, value in epoch.validation.items() if value is not None}
    return {"train/epoch_loss": epoch.train_loss, **scores}


def final_scalars(record: RunRecord) -> dict[str, float]:
    """Return the scores and costs of a finished run. Values that were not measured are omitted."""
    outcome = record.outcome
    found: dict[str, float | None] = {"wall_s": record.wall_s}
    if isinstance(outcome, Success):
        speed, latency, memory = outcome.speed, outcome.latency, outcome.memory
        found |= {f"test/{name}": value for name, value in outcome.scores.test.items()}
        found |= {
            "speed/train_samples_per_s": speed.train_samples_per_s,
            "speed/inference_samples_per_s": speed.inference_samples_per_s,
            "speed/first_step_s": speed.first_step_s,
            "latency/p50_ms": latency.p50_ms,
            "latency/p90_ms": latency.p90_ms,
            "latency/p99_ms": latency.p99_ms,
            "memory/host_peak_bytes": memory.host_peak_bytes,
            "memory/device_peak_bytes": memory.device.allocator_peak_bytes if memory.device else None,
            "model/parameters": outcome.model.parameters,
        }
    elif isinstance(outcome, Trial):
        found |= {f"trial/{name}": value for name, value in outcome.validation.items()}
        found["speed/train_samples_per_s"] = outcome.train_samples_per_s
    return {name: float(value) for name, value in found.items() if value is not None}


def last_step(record: RunRecord) -> int:
    """Return the number of optimizer steps, or 0 if it is not known."""
    curves = [] if isinstance(record.outcome, Failure) else record.outcome.curves
    return curves[-1].step if curves else 0


def is_killed(record: RunRecord) -> bool:
    """Return True if the user stopped the run, or if the run is a pruned trial."""
    outcome = record.outcome
    if isinstance(outcome, Trial):
        return outcome.state == "pruned"
    return isinstance(outcome, Failure) and outcome.kind == "interrupted"


def describe(record: RunRecord) -> str:
    """Return the outcome of a run on one line, such as ``oom: ...`` for a failure."""
    outcome = record.outcome
    if isinstance(outcome, Failure):
        return f"{outcome.kind}: {outcome.message}"
    return f"trial {outcome.state}" if isinstance(outcome, Trial) else "success"


def live_name(spec: RunSpec, attempt_id: str) -> str:
    """Return the name of an unfinished run, which does not have a run id yet."""
    return f"{spec.stem}-s{spec.seed}-attempt-{attempt_id}"
