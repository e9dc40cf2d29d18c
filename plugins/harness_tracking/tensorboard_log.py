"""The event listener of the ``tensorboard`` tracker.

The event files are written with TensorBoard's own record writer and protocol buffers. The modules imported here do not
import PyTorch or TensorFlow, unlike ``tensorboard.plugins.hparams.summary`` and TensorBoard's functions for opening
files.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
from harness import EpochEnded, Failure, RunRecord, RunSpec, StepsEnded, Success, UsageError
from harness_tracking import confusion
from harness_tracking.content import (
    describe,
    epoch_scalars,
    final_scalars,
    last_step,
    live_name,
    parameters,
    unwritable,
)

_ANOTHER = "choose another directory with --tracker tensorboard:directory=DIR"


def check(results: Path, options: Mapping[str, str]) -> None:
    """Raise `harness.UsageError` if the directory of the event files cannot be written."""
    directory = _directory(results, options)
    if reason := unwritable(directory):
        raise UsageError(f"{directory}: cannot be written: {reason}; {_ANOTHER}")


def _directory(results: Path, options: Mapping[str, str]) -> Path:
    return Path(options.get("directory", results / "tensorboard")).absolute()


class TensorBoardLog:
    """A directory of event files. Each run has a subdirectory, whose name is the run's id.

    While a run is in progress, its id is not known, and the name of the subdirectory contains the attempt id.
    """

    def __init__(self, results: Path, options: Mapping[str, str]) -> None:
        import tensorboard.plugins.hparams.summary_v2
        import tensorboard.summary.writer.record_writer  # noqa: F401 - import before the runs

        self._directory = _directory(results, options)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self._directory}: cannot be written: {error.strerror}; {_ANOTHER}") from None
        self._open: dict[str, EventFile] = {}

    @harness.hookimpl
    def harness_run_started(self, spec: RunSpec, attempt_id: str, time_s: float) -> None:
        self._open[attempt_id] = EventFile(self._directory / live_name(spec, attempt_id), time_s)

    @harness.hookimpl
    def harness_steps_ended(self, steps: StepsEnded, attempt_id: str, time_s: float) -> None:
        if file := self._open.get(attempt_id):
            pairs = zip(steps.losses, steps.learning_rates, strict=True)
            for step, (loss, rate) in enumerate(pairs, start=steps.step + 1):
                file.scalars({"train/loss": loss, "train/learning_rate": rate}, step, time_s)
            for step, rate in steps.throughput:
                file.scalars({"train/samples_per_s": rate}, step, time_s)
            file.flush()

    @harness.hookimpl
    def harness_epoch_ended(self, epoch: EpochEnded, attempt_id: str, time_s: float) -> None:
        if file := self._open.get(attempt_id):
            file.scalars(epoch_scalars(epoch), epoch.step, time_s)
            file.flush()

    @harness.hookimpl
    def harness_run_finished(self, record: RunRecord, attempt_id: str, time_s: float) -> None:
        if (file := self._open.pop(attempt_id, None)) is None:
            return
        step, outcome = last_step(record), record.outcome
        file.scalars(final_scalars(record), step, time_s)
        if isinstance(outcome, Success) and outcome.scores.confusion:
            file.image("test/confusion", *confusion.draw(outcome.scores.confusion), step, time_s)
        file.text("outcome", describe(record), step, time_s)
        started_s = datetime.datetime.fromisoformat(record.started_at).timestamp()
        file.parameters(record, started_s, time_s)
        file.close()
        # The same run always has the same file name, so that it is replaced if it is logged again.
        name = f"events.out.tfevents.{started_s:.3f}"
        for number in itertools.count(1):
            suffix = "" if number == 1 else f"-other-{number}"
            folder = self._directory / f"{record.run_id}{suffix}"
            folder.mkdir(exist_ok=True)
            if not any("tfevents" in each.name and each.name != name for each in folder.iterdir()):
                break  # The directory does not contain a different run with the same id.
        file.move(folder / name)

    @harness.hookimpl
    def harness_attempt_lost(self, attempt_id: str, time_s: float) -> None:
        if file := self._open.pop(attempt_id, None):
            file.text("outcome", "the attempt was lost", 0, time_s)
            file.close()


class EventFile:
    """An event file in a new directory."""

    def __init__(self, folder: Path, time_s: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"events.out.tfevents.{time_s:.3f}"
        self._records = RecordWriter(self._path.open("wb"))
        self._write(Event(wall_time=time_s, file_version="brain.Event:2"))

    def scalars(self, values: Mapping[str, float], step: int, time_s: float) -> None:
        """Write values by tag."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._summary([Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()], step, time_s)

    def image(self, tag: str, png: bytes, width: int, step: int, time_s: float) -> None:
        """Write a square image."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        image = Summary.Image(height=width, width=width, colorspace=3, encoded_image_string=png)
        self._summary([Summary.Value(tag=tag, image=image)], step, time_s)

    def text(self, tag: str, text: str, step: int, time_s: float) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
        self._summary([Summary.Value(tag=tag, tensor=tensor, metadata=metadata)], step, time_s)

    def parameters(self, record: RunRecord, started_s: float, time_s: float) -> None:
        """Write the settings and the status of a run for the HPARAMS tab."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        start = hparams_pb(parameters(record.spec), trial_id=record.run_id, start_time_secs=started_s)
        failed = isinstance(record.outcome, Failure)
        status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
        end = HParamsPluginData(session_end_info=SessionEndInfo(status=status, end_time_secs=time_s))
        value = Summary.Value(
            tag=metadata.SESSION_END_INFO_TAG,
            metadata=metadata.create_summary_metadata(end),
            tensor=metadata.NULL_TENSOR,
        )
        self._summary([*start.value, value], 0, time_s)

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        self._records.close()

    def move(self, path: Path) -> None:
        """Move the closed file, and remove its directory."""
        self._path.replace(path)
        with contextlib.suppress(OSError):  # The directory may contain files of other programs.
            self._path.parent.rmdir()

    def _summary(self, values: list[Any], step: int, time_s: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(Event(wall_time=time_s, step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
