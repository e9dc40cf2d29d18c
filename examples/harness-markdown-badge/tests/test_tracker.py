import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

import harness
from harness.testing import PluginSuite

RUN = ["run", "--task", "regression", "--backend", "baseline", "--model", "ridge", "--quiet"]
QUICK = ["--set", "protocol.throughput_budget_s=0.1", "--set", "protocol.latency_budget_s=0.1"]


class TestPlugin(PluginSuite):
    name = "tensorboard"


def events(file: Path) -> list[Event]:
    """Read the events in a file.

    Each record consists of the length of the event (8 bytes), the checksum of the length (4 bytes), the event, and the
    checksum of the event (4 bytes).
    """
    content, records = file.read_bytes(), []
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        records.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return records


def run(tmp_path: Path, **environment: str) -> None:
    command = [sys.executable, "-m", "harness", *RUN, *QUICK, "--rerun", "--results", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_curves_and_results_of_each_run_are_written(tmp_path: Path) -> None:
    for _ in range(2):
        run(tmp_path, HARNESS_TENSORBOARD_DIR=str(tmp_path / "logs"))
    folders = sorted((tmp_path / "logs").iterdir())
    assert [folder.name[-2:] for folder in folders] == ["-1", "-2"]
    (file,) = folders[0].iterdir()
    scalars = {value.tag: value.simple_value for event in events(file) for value in event.summary.value}
    first = min(harness.load(tmp_path / "results").records, key=lambda record: record.started_at)
    assert isinstance(first.outcome, harness.Success)
    assert scalars["test/rmse"] == pytest.approx(first.outcome.scores.test["rmse"])
    assert scalars["validation/rmse"] == pytest.approx(first.outcome.curves[0].validation["rmse"])
    assert scalars["train/loss"] == pytest.approx(first.outcome.curves[0].train_loss)
    assert scalars["speed/train_samples_per_s"] == pytest.approx(first.outcome.speed.train_samples_per_s)


def test_nothing_is_written_without_a_directory(tmp_path: Path) -> None:
    run(tmp_path, HARNESS_TENSORBOARD_DIR="")
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
