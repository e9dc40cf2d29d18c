"""The ``tensorboard`` tracker. Its event files are read with TensorBoard."""

from __future__ import annotations

import datetime
import io
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from recording_tracker import listening
from sample_records import failure, record, success
from toy_runs import toy_specs

from harness.errors import UsageError
from harness.execute.replay import replay
from harness.execute.runner import run_all
from harness.plugins.catalog import Catalog
from harness.records import RunRecord, StepsEnded, Trial
from harness.records.store import Store, StoredRun

pytest.importorskip("tensorboard")
from harness_tracking.tensorboard_log import TensorBoardLog, check

STEPS = StepsEnded(
    epoch=1,
    step=0,
    losses=(2.0, 1.0, 0.5),
    learning_rates=(0.25, 0.125, 0.0625),
    batch_size=4,
    window_steps=(1, 2),
    window_s=(8.0, 0.5),
    first_windows=(0,),
)


@pytest.fixture(autouse=True)
def _without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make TensorBoard read files without TensorFlow."""
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read_back = read(folder)
    return {tag: [(each.step, each.value) for each in read_back.Scalars(tag)] for tag in read_back.Tags()["scalars"]}


def log(folder: Path, finished: RunRecord, attempt_id: str = "1-a") -> TensorBoardLog:
    """Log a run with one epoch, and return the listener."""
    log = TensorBoardLog(folder, {})
    log.harness_run_started(spec=finished.spec, attempt_id=attempt_id, time_s=100.0)
    log.harness_steps_ended(steps=STEPS, attempt_id=attempt_id, time_s=101.0)
    for epoch in success().curves[:1]:
        log.harness_epoch_ended(epoch=epoch, attempt_id=attempt_id, time_s=102.0)
    log.harness_run_finished(record=finished, attempt_id=attempt_id, time_s=103.0)
    return log


def test_finished_run_has_curves_results_and_settings(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    finished = record()
    log(tmp_path, finished)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert folder.name == finished.run_id
    assert scalars(folder) == {
        "train/loss": [(1, 2.0), (2, 1.0), (3, 0.5)],
        "train/learning_rate": [(1, 0.25), (2, 0.125), (3, 0.0625)],
        "train/samples_per_s": [(3, 16.0)],
        "train/epoch_loss": [(10, 1.0)],
        "validation/accuracy": [(10, 0.5)],
        "wall_s": [(20, 12.5)],
        "test/accuracy": [(20, 0.75)],
        "test/f1_macro": [(20, pytest.approx(0.74))],
        "speed/train_samples_per_s": [(20, 1000.0)],
        "speed/inference_samples_per_s": [(20, 4000.0)],
        "speed/first_step_s": [(20, 0.5)],
        "latency/p50_ms": [(20, 12.0)],
        "latency/p90_ms": [(20, 14.0)],
        "memory/host_peak_bytes": [(20, 500.0 * 2**20)],
        "model/parameters": [(20, 4_400_000.0)],
    }
    events = read(folder)
    assert [event.wall_time for event in events.Scalars("train/loss")] == [101.0] * 3
    assert events.Tensors("outcome")[0].tensor_proto.string_val == [b"success"]
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = HParamsPluginData.FromString(plugin).session_start_info
    assert start.group_name == finished.run_id
    assert start.start_time_secs == datetime.datetime.fromisoformat(finished.started_at).timestamp()
    settings = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert settings["model"] == "bert-tiny"
    assert settings["recipe.epochs"] == 2
    assert settings["device"] == "cpu"
    end = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_end_info").plugin_data.content)
    assert end.session_end_info.status == api_pb2.STATUS_SUCCESS
    assert end.session_end_info.end_time_secs == 103.0


def test_confusion_image_has_a_cell_for_each_pair_of_classes(tmp_path: Path) -> None:
    from PIL import Image

    log(tmp_path, record())
    (event,) = read(tmp_path / "tensorboard" / record().run_id).Images("test/confusion")
    image = Image.open(io.BytesIO(event.encoded_image_string))
    assert image.size == (event.width, event.height) == (480, 480)
    corners = [image.getpixel(point)[0] for point in ((1, 1), (479, 1), (1, 479), (479, 479))]  # type: ignore[index]
    assert corners[0] < corners[1]  # 32 of 40 examples against 8
    assert corners[3] < corners[2]  # 30 of 40 examples against 10


@pytest.mark.parametrize("classes", [1, 17, 600])
def test_confusion_image_of_any_number_of_classes_is_square(classes: int) -> None:
    from harness_tracking.confusion import draw

    png, width = draw([[0] * classes for _ in range(classes)])
    assert png.startswith(b"\x89PNG")
    assert classes <= width <= max(480, classes)


def test_failed_run_has_its_reason_and_status(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    failed = record(failure("interrupted", "stopped by the user"))
    log(tmp_path, failed)
    events = read(tmp_path / "tensorboard" / failed.run_id)
    assert events.Tensors("outcome")[0].tensor_proto.string_val == [b"interrupted: stopped by the user"]
    end = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_end_info").plugin_data.content)
    assert end.session_end_info.status == api_pb2.STATUS_FAILURE
    assert scalars(tmp_path / "tensorboard" / failed.run_id)["train/loss"] == [(1, 2.0), (2, 1.0), (3, 0.5)]


def test_pruned_trial_has_its_curves(tmp_path: Path) -> None:
    trial = Trial(state="pruned", metric="accuracy", curves=success().curves[:1], train_samples_per_s=50.0)
    pruned = record(trial)
    log(tmp_path, pruned)
    found = scalars(tmp_path / "tensorboard" / pruned.run_id)
    assert found["validation/accuracy"] == [(10, 0.5)]
    assert found["speed/train_samples_per_s"] == [(10, 50.0)]


def test_run_logged_again_replaces_the_file_of_the_same_run_only(tmp_path: Path) -> None:
    other = record(started_at="2025-11-23T12:00:00Z")  # a run with the same id, in another results directory
    for finished in (record(), record(), other, other):
        log(tmp_path, finished)
    folders = {path.name: len(list(path.iterdir())) for path in (tmp_path / "tensorboard").iterdir()}
    assert folders == {record().run_id: 1, f"{record().run_id}-other-2": 1}


def test_simultaneous_runs_have_separate_files(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, {"directory": str(tmp_path / "logs")})
    runs = {"1-a": record(seed=0), "2-b": record(seed=1)}
    for attempt, run in runs.items():
        log.harness_run_started(spec=run.spec, attempt_id=attempt, time_s=1.0)
    assert len(list((tmp_path / "logs").iterdir())) == 2
    log.harness_steps_ended(steps=STEPS, attempt_id="2-b", time_s=2.0)
    log.harness_attempt_lost(attempt_id="1-a", time_s=3.0)
    log.harness_run_finished(record=runs["2-b"], attempt_id="2-b", time_s=3.0)
    for attempt in runs:  # events of attempts that have ended are ignored
        log.harness_steps_ended(steps=STEPS, attempt_id=attempt, time_s=4.0)
        log.harness_epoch_ended(epoch=success().curves[0], attempt_id=attempt, time_s=4.0)
        log.harness_run_finished(record=runs[attempt], attempt_id=attempt, time_s=4.0)
    lost, finished = sorted((tmp_path / "logs").iterdir(), key=lambda path: path.name == runs["2-b"].run_id)
    assert "attempt-1-a" in lost.name
    assert read(lost).Tensors("outcome")[0].tensor_proto.string_val == [b"the attempt was lost"]
    assert scalars(finished)["train/loss"] == [(1, 2.0), (2, 1.0), (3, 0.5)]


def test_check_rejects_a_directory_that_cannot_be_created_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/logs: cannot be written: .*/file is not a directory; choose another"):
        check(tmp_path / "results", {"directory": str(tmp_path / "file" / "logs")})
    check(tmp_path / "results", {})
    check(tmp_path / "results", {"directory": str(tmp_path / "logs" / "more")})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_directory_that_cannot_be_created_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        TensorBoardLog(tmp_path, {"directory": str(tmp_path / "file" / "logs")})


def test_replay_writes_the_same_scalars_as_the_run(catalog: Catalog, tmp_path: Path) -> None:
    live = TensorBoardLog(tmp_path, {})
    specs = toy_specs(catalog, "recipe.epochs=2", tasks=("toy-classify",))
    (finished,) = run_all(specs, listening(catalog, live), Store(tmp_path))
    again = TensorBoardLog(tmp_path, {"directory": str(tmp_path / "again")})
    replay(StoredRun(tmp_path / finished.run_id, finished), listening(catalog, again))
    first, second = tmp_path / "tensorboard" / finished.run_id, tmp_path / "again" / finished.run_id
    assert scalars(first) == scalars(second)
    assert len(scalars(first)["train/loss"]) == finished.outcome.curves[-1].step  # type: ignore[union-attr]
    images = [read(folder).Images("test/confusion")[0].encoded_image_string for folder in (first, second)]
    assert images[0] == images[1]


USE = """
import sys
sys.path[:0] = {helpers!r}
from pathlib import Path
from sample_records import record
from harness_tracking.tensorboard_log import TensorBoardLog
log = TensorBoardLog(Path(sys.argv[1]), {{}})
log.harness_run_started(spec=record().spec, attempt_id="1", time_s=1.0)
log.harness_run_finished(record=record(), attempt_id="1", time_s=2.0)
print(*sys.modules)
"""


def test_writing_imports_neither_framework(tmp_path: Path) -> None:
    code = USE.format(helpers=[str(Path(__file__).parents[2] / "helpers")])
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "tensorboard" in modules
    assert {"torch", "tensorflow", "keras"} & set(modules) == set()
