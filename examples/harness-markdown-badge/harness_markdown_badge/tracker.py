"""An event tracker that writes learning curves and results for TensorBoard if ``HARNESS_TENSORBOARD_DIR`` is set."""

import os
from pathlib import Path
from typing import Any

import harness
from harness import EpochEnded, Failure, RunRecord, RunSpec, Success

HARNESS_API_VERSION = "1.0"

_open: list[Any] = []
"""List containing the writer for the current run. The list is empty between runs. Runs are executed one after
another."""


@harness.hookimpl
def harness_run_started(spec: RunSpec) -> None:
    directory = os.environ.get("HARNESS_TENSORBOARD_DIR")
    if directory:
        from tensorboardX import SummaryWriter

        name = f"{spec.stem}-s{spec.seed}-{spec.key[:8]}"
        repeat = 1 + len(list(Path(directory).glob(f"{name}-*")))
        _open.append(SummaryWriter(str(Path(directory, f"{name}-{repeat}"))))


@harness.hookimpl
def harness_epoch_ended(epoch: EpochEnded) -> None:
    for writer in _open:
        writer.add_scalar("train/loss", epoch.train_loss, epoch.step)
        for metric, value in epoch.validation.items():
            if value is not None:
                writer.add_scalar(f"validation/{metric}", value, epoch.step)


@harness.hookimpl
def harness_run_finished(record: RunRecord) -> None:
    while _open:
        writer = _open.pop()
        if isinstance(record.outcome, Success):
            speed = record.outcome.speed
            scalars = {f"test/{metric}": value for metric, value in record.outcome.scores.test.items()}
            scalars["speed/train_samples_per_s"] = speed.train_samples_per_s
            scalars["speed/inference_samples_per_s"] = speed.inference_samples_per_s
            for name, value in scalars.items():
                if value is not None:
                    writer.add_scalar(name, value)
        elif isinstance(record.outcome, Failure):
            writer.add_text("failure", f"{record.outcome.kind}: {record.outcome.message}")
        writer.close()
