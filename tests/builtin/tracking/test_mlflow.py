"""The ``mlflow`` tracker. The runs are read with MLflow's client."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from recording_tracker import listening
from sample_records import failure, record, spec, success
from toy_runs import toy_specs

from harness.errors import HarnessError, UsageError
from harness.execute.replay import replay
from harness.execute.runner import run_all
from harness.plugins.catalog import Catalog
from harness.records import Failure, FailureKind, RunRecord, StepsEnded, Success, Trial
from harness.records.spec import DataSource
from harness.records.store import Store, StoredRun

pytest.importorskip("mlflow")
from harness_tracking.content import parameters
from harness_tracking.mlflow_log import MlflowLog, _name, _params, check

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
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("url", ["mlruns", "file:///tmp/mlruns", "./mlruns", "ftp://host", "/tmp/x.db"])
def test_url_of_a_file_store_is_a_usage_error(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for use in (MlflowLog, check):
        with pytest.raises(UsageError, match="needs the URL of a server"):
            use(tmp_path, {"url": url})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with pytest.raises(UsageError, match="needs the URL of a server"):
        MlflowLog(tmp_path, {})


def test_results_directory_with_question_mark_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot contain a question mark"):
        MlflowLog(tmp_path / "what?", {})


@pytest.mark.parametrize("option", ["steps", "artifacts"])
def test_option_that_is_neither_yes_nor_no_is_a_usage_error(option: str, tmp_path: Path) -> None:
    for use in (MlflowLog, check):
        with pytest.raises(UsageError, match=f"option '{option}' must be yes or no, got 'true'"):
            use(tmp_path, {"url": "http://localhost:1", option: "true"})


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:///{folder}/absent/mlflow.db", "the directory .*/absent does not exist"),
        ("sqlite:///{folder}/text/mlflow.db", "the directory .*/text/mlflow.db does not exist|text is not a directory"),
        ("sqlite:///{folder}/text", "file is not a database"),
    ],
)
def test_check_rejects_an_unusable_database_and_writes_nothing(url: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database " * 100)
    with pytest.raises(UsageError, match=rf"the database .* cannot be used: {reason}"):
        check(tmp_path / "results", {"url": url.format(folder=tmp_path)})
    check(tmp_path / "results" / "nightly", {})
    check(tmp_path / "results", {"url": f"sqlite:///{tmp_path}/new.db"})
    check(tmp_path / "results", {"url": "http://localhost:1"})
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_parameters_have_flat_names_and_no_paths() -> None:
    found = parameters(
        spec(source=DataSource(path="/home/me/data.csv"), dataset_options={"digest": "d", "columns": ["a", "b"]})
    )
    assert found["recipe.epochs"] == 2
    assert found["compile"] is False
    assert found["dataset_options.columns"] == '["a", "b"]'
    assert "/home/me" not in json.dumps(found)
    assert None not in found.values()


def test_names_and_values_are_limited_to_what_mlflow_accepts() -> None:
    assert _name("test/f1+macro@k") == "test/f1_macro_k"
    (long,) = _params({"x" * 300: "y" * 9000})
    assert (len(long.key), len(long.value)) == (250, 6000)


def test_server_that_is_down_gives_one_error_per_run(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = MlflowLog(tmp_path, {"url": f"http://127.0.0.1:{port}"})
    for attempt in ("1-a", "2-b"):
        with pytest.raises(HarnessError, match="this run is no longer logged; log it later with `harness track`"):
            log.harness_run_started(spec=spec(), attempt_id=attempt, time_s=1.0)
        log.harness_steps_ended(steps=STEPS, attempt_id=attempt)
        log.harness_epoch_ended(epoch=success().curves[0], attempt_id=attempt, time_s=1.0)
        log.harness_run_finished(record=record(), directory=tmp_path, attempt_id=attempt, time_s=1.0)


def test_server_that_does_not_answer_does_not_break_a_run(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "0.5")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        log = MlflowLog(tmp_path, {"url": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        start = time.monotonic()
        (finished,) = run_all(toy_specs(catalog), listening(catalog, log), Store(tmp_path))
        elapsed_s = time.monotonic() - start
    assert isinstance(finished.outcome, Success)
    assert elapsed_s - finished.wall_s < 5
    lines = [each for each in capsys.readouterr().err.splitlines() if "failed in harness_run_started: did not" in each]
    assert len(lines) == 1
    assert lines[0].endswith("it will receive no further events; log the runs later with `harness track`")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results directory with a database. Creating the tables takes several seconds."""
    folder = tmp_path_factory.mktemp("results")
    MlflowLog(folder, {})
    return folder


def opened(database: Path, experiment: str, **options: str) -> MlflowLog:
    return MlflowLog(database, {"experiment": experiment, **options})


def runs(database: Path, experiment: str) -> list[Any]:
    """Return the runs of an experiment, in the order in which they were created."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], order_by=["attributes.start_time"]))


def history(database: Path, run: Any) -> dict[str, list[tuple[int, float]]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database / 'mlflow.db'}")
    names = run.data.metrics
    return {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in names}


def log_run(log: MlflowLog, finished: RunRecord, folder: Path, attempt_id: str = "1-a") -> None:
    log.harness_run_started(spec=finished.spec, attempt_id=attempt_id, time_s=100.0)
    log.harness_steps_ended(steps=STEPS, attempt_id=attempt_id)
    log.harness_epoch_ended(epoch=success().curves[0], attempt_id=attempt_id, time_s=102.0)
    log.harness_run_finished(record=finished, directory=folder, attempt_id=attempt_id, time_s=103.0)


@pytest.mark.slow
class TestDatabase:
    def test_finished_run_has_metrics_parameters_and_tags(self, database: Path, tmp_path: Path) -> None:
        finished = record()
        log_run(opened(database, "finished"), finished, tmp_path)
        (run,) = runs(database, "finished")
        info = run.info
        assert (info.run_name, info.status, info.start_time, info.end_time) == (
            finished.run_id,
            "FINISHED",
            100_000,
            103_000,
        )
        assert run.data.params == {name: str(value) for name, value in parameters(finished.spec).items()}
        assert run.data.tags["harness.run_id"] == finished.run_id
        assert run.data.tags["harness.outcome"] == "success"
        assert history(database, run) == {
            "train/epoch_loss": [(10, 1.0)],
            "validation/accuracy": [(10, 0.5)],
            "train/learning_rate": [(3, 0.0625)],
            "train/samples_per_s": [(3, 16.0)],
            "wall_s": [(20, 12.5)],
            "test/accuracy": [(20, 0.75)],
            "test/f1_macro": [(20, 0.74)],
            "speed/train_samples_per_s": [(20, 1000.0)],
            "speed/inference_samples_per_s": [(20, 4000.0)],
            "speed/first_step_s": [(20, 0.5)],
            "latency/p50_ms": [(20, 12.0)],
            "latency/p90_ms": [(20, 14.0)],
            "memory/host_peak_bytes": [(20, 500.0 * 2**20)],
            "model/parameters": [(20, 4_400_000.0)],
        }

    @pytest.mark.parametrize(
        ("kind", "status"), [("interrupted", "KILLED"), ("oom", "FAILED"), ("bad_result", "FAILED")]
    )
    def test_failed_run_has_its_status_and_reason(
        self, kind: FailureKind, status: str, database: Path, tmp_path: Path
    ) -> None:
        log_run(opened(database, kind), record(failure(kind, "why")), tmp_path)
        (run,) = runs(database, kind)
        assert (run.info.status, run.data.tags["harness.outcome"]) == (status, f"{kind}: why")

    def test_pruned_trial_is_killed(self, database: Path, tmp_path: Path) -> None:
        trial = Trial(state="pruned", metric="accuracy", curves=success().curves[:1])
        log_run(opened(database, "pruned"), record(trial), tmp_path)
        (run,) = runs(database, "pruned")
        assert (run.info.status, run.data.tags["harness.outcome"]) == ("KILLED", "trial pruned")

    def test_lost_attempt_is_killed(self, database: Path, tmp_path: Path) -> None:
        log = opened(database, "lost")
        log.harness_run_started(spec=spec(), attempt_id="1-a", time_s=1.0)
        log.harness_attempt_lost(attempt_id="1-a", time_s=2.0)
        (run,) = runs(database, "lost")
        assert run.info.status == "KILLED"
        assert run.info.run_name.endswith("attempt-1-a")

    def test_chosen_device_is_logged(self, database: Path, tmp_path: Path) -> None:
        log, finished = opened(database, "device"), record()
        log.harness_run_started(spec=spec(device="auto"), attempt_id="1-a", time_s=1.0)
        log.harness_run_finished(record=finished, directory=tmp_path, attempt_id="1-a", time_s=2.0)
        (run,) = runs(database, "device")
        assert run.data.params["device"] == "cpu"

    def test_run_logged_again_replaces_the_same_run_only(self, database: Path, tmp_path: Path) -> None:
        log, other = opened(database, "again"), record(started_at="2025-11-23T12:00:00Z")
        for finished in (record(), record(), other, other):
            log_run(log, finished, tmp_path)
        found = [run.data.tags["harness.started_at"] for run in runs(database, "again")]
        assert sorted(found) == [record().started_at, other.started_at]

    def test_steps_and_artifacts_are_logged_if_requested(self, database: Path, tmp_path: Path) -> None:
        from mlflow import MlflowClient

        (tmp_path / "record.json").write_text("{}")
        count = 1500
        steps = msgspec.structs.replace(STEPS, losses=(1.0,) * count, learning_rates=(0.1,) * count)
        log = opened(database, "steps", steps="yes", artifacts="yes")
        log.harness_run_started(spec=spec(), attempt_id="1-a", time_s=1.0)
        log.harness_steps_ended(steps=steps, attempt_id="1-a")
        log.harness_epoch_ended(epoch=success().curves[0], attempt_id="1-a", time_s=1.0)
        log.harness_run_finished(record=record(), directory=tmp_path, attempt_id="1-a", time_s=1.0)
        (run,) = runs(database, "steps")
        client = MlflowClient(f"sqlite:///{database / 'mlflow.db'}")
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [metric.step for metric in history] == list(range(1, count + 1))
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["record.json"]
        assert (database / "mlflow-artifacts").is_dir()

    def test_replay_logs_the_same_content_as_the_run(self, catalog: Catalog, database: Path, tmp_path: Path) -> None:
        live, again = opened(database, "live", steps="yes"), opened(database, "replayed", steps="yes")
        specs = toy_specs(catalog, "recipe.epochs=2")
        (finished,) = run_all(specs, listening(catalog, live), Store(tmp_path))
        replay(StoredRun(tmp_path / finished.run_id, finished), listening(catalog, again))
        (first,), (second,) = runs(database, "live"), runs(database, "replayed")
        assert history(database, first) == history(database, second)
        assert len(history(database, first)["train/loss"]) > 2
        assert first.data.params == second.data.params
        assert first.data.tags == second.data.tags
        assert (first.info.run_name, first.info.status) == (second.info.run_name, second.info.status)

    def test_database_that_cannot_be_used_is_a_usage_error(self, tmp_path: Path) -> None:
        (tmp_path / "mlflow.db").write_text("not a database" * 100)
        with pytest.raises(UsageError, match=r"mlflow\.db cannot be used: "):
            MlflowLog(tmp_path, {})

    def test_name_of_an_experiment_that_mlflow_rejects_is_a_usage_error(self, database: Path, tmp_path: Path) -> None:
        options = {"url": f"sqlite:///{database / 'mlflow.db'}", "experiment": "x" * 501}
        with pytest.raises(UsageError, match=r"the MLflow experiment 'x+' cannot be used: .* 500 .*experiment=NAME"):
            MlflowLog(tmp_path, options)

    def test_deleted_experiment_is_a_usage_error_until_it_is_restored(self, database: Path, tmp_path: Path) -> None:
        options = {"url": f"sqlite:///{database / 'mlflow.db'}", "experiment": "removed"}
        log = MlflowLog(tmp_path, options)
        log._client.delete_experiment(log._experiment_id)
        for use in (MlflowLog, check):
            with pytest.raises(UsageError, match="the MLflow experiment 'removed' was deleted; restore it with"):
                use(tmp_path, options)
        log._client.restore_experiment(log._experiment_id)
        for use in (MlflowLog, check):
            use(tmp_path, options)


def test_failure_kind_of_ctrl_c_is_interrupted() -> None:
    from harness_tracking.content import is_killed

    assert is_killed(record(Failure(kind="interrupted", message="")))
    assert not is_killed(record(Failure(kind="timeout", message="")))


@pytest.mark.slow
def test_client_imports_neither_framework() -> None:
    code = (
        "import sys; from pathlib import Path; from harness_tracking.mlflow_log import MlflowLog; "
        "MlflowLog(Path('.'), {'url': 'http://127.0.0.1:1'}); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "mlflow" in modules
    assert {"torch", "tensorflow", "keras"} & set(modules) == set()
