"""Tests of whole runs in child processes: records of successes and failures, and independence of the runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from processes import gone
from toy_plugin import FAST, FAULTS_REF, TOY_REF, install_toy

from harness.checks.audit.from_record import on_record
from harness.errors import RecordError, UsageError
from harness.execute import child, failures
from harness.execute.devices import probe
from harness.execute.runner import Listener, run_all
from harness.plan import rerun
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.records import EpochEnded, Event, Failure, PhaseStarted, Progress, RunRecord, RunSpec, Success
from harness.records.arrays import read_arrays
from harness.records.store import ARRAYS, LOG, RECORD, Store


class EventLog(Listener):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, ...]] = []
        self.events: list[Event] = []

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self.lines.append(("started", f"{index}/{total}", spec.backend))

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        self.events.append(event)

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        self.lines.append(("finished", f"{index}/{total}", record.spec.backend))


def plan(catalog: Catalog, *overrides: str, backends: tuple[str, ...] = ("toy-numpy",), **selection: Any) -> Any:
    chosen = {"tasks": ("toy-regress",), "threads": 1} | selection
    return expand(Selection(backends=backends, overrides=(*FAST, *overrides), **chosen), catalog)


# ---- many runs in one call, most of which fail ------------------------------------------------------------

HEALTHY = "healthy"
EXPECTED = {
    "toy-segfault": ("crash", "killed by SIGSEGV"),
    "toy-killed": ("crash", "killed by SIGKILL (the kernel sends this signal when memory runs out)"),
    "toy-value-error": ("error", "ValueError: the toy broke"),
    "toy-memory-error": ("oom", "MemoryError"),
    "toy-unsupported": ("unsupported", "the toy does not support this"),
    "toy-nan-loss": ("bad_result", "the training loss became nan at step 5"),
    "toy-nan-predictions": ("bad_result", "3 of 40 predictions are not finite"),
    "toy-writes-inputs": ("error", "the validation input 'features' changed during the run"),
    "toy-few-predictions": ("bad_result", "have the shape (15, 2), not (16, 2)"),
    "toy-flat-predictions": ("bad_result", "have the shape (16,), not (16, 2)"),
    "toy-lost-weight": ("error", "the weights do not fit the model: missing linear.bias"),
    "toy-no-devices": ("unsupported", "finds no device 'auto' on this machine; available devices: none"),
    "toy-odd-device": ("error", "the device 'cpu' has precisions=('fp8',); use a tuple with some of 'fp32'"),
    "toy-exit-silently": ("crash", "exited with status 0 but returned no result"),
    "toy-exit-with-status": ("error", "exited with status 3"),
    "toy-sys-exit": ("error", "the toy exits"),
    "toy-write-garbage": ("crash", "exited with status 0 but returned no result"),
    "toy-close-pipe": ("error", "Bad file descriptor"),
    "toy-send-garbage": (HEALTHY, ""),
    "toy-change-directory": (HEALTHY, ""),
    "toy-remove-job": (HEALTHY, ""),
    "toy-leave-grandchild": (HEALTHY, ""),
    "toy-numpy": (HEALTHY, ""),
}


class Series:
    """The results of one call of `run_all` with all backends of `EXPECTED`."""

    def __init__(self, directory: Path) -> None:
        self.pid_file = directory / "pids"
        self.results = Path("Ergebnisse mit Leerzeichen – 結果")  # relative, to the directory that a backend leaves
        self.listener = EventLog()
        catalog = load([TOY_REF, FAULTS_REF])
        specs = plan(catalog, backends=tuple(EXPECTED))
        self.returned = run_all(specs, catalog, Store(self.results), timeout_s=60, listener=self.listener)
        self.loaded = Store(self.results.absolute()).load()
        self.runs = {run.record.spec.backend: run for run in self.loaded.runs}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Series]:
    directory = tmp_path_factory.mktemp("series")
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        patch.setenv("TOY_PID_FILE", str(directory / "pids"))
        patch.chdir(directory)
        yield Series(directory)


def test_every_run_is_saved(series: Series) -> None:
    assert [record.spec.backend for record in series.returned] == list(EXPECTED)
    assert [run.record for run in series.loaded.runs] == series.returned
    assert series.loaded.problems == []
    names = sorted(path.name for path in series.results.absolute().iterdir())
    assert names == sorted(record.run_id for record in series.returned)
    total = len(EXPECTED)
    assert series.listener.lines == [
        (what, f"{number}/{total}", backend)
        for number, backend in enumerate(EXPECTED, start=1)
        for what in ("started", "finished")
    ]


@pytest.mark.parametrize("backend", EXPECTED)
def test_outcome_is_as_expected(backend: str, series: Series) -> None:
    kind, message = EXPECTED[backend]
    run = series.runs[backend]
    outcome = run.record.outcome
    if kind == HEALTHY:
        assert isinstance(outcome, Success), outcome
        assert sorted(path.name for path in run.path.iterdir()) == sorted([ARRAYS, LOG, RECORD])
        return
    assert isinstance(outcome, Failure)
    assert outcome.kind == kind
    assert message in outcome.message
    assert "\n" not in outcome.message
    assert sorted(path.name for path in run.path.iterdir()) == sorted([LOG, RECORD])
    assert 0 < run.record.wall_s < 60
    assert run.record.environment.packages["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("backend", "line"),
    [
        ("toy-segfault", "Fatal Python error: Segmentation fault"),
        ("toy-value-error", "and this is its second line"),
        ("toy-memory-error", "Traceback (most recent call last):"),
        ("toy-sys-exit", "the toy exits"),
    ],
)
def test_log_tail_shows_the_error(backend: str, line: str, series: Series) -> None:
    outcome = series.runs[backend].record.outcome
    assert isinstance(outcome, Failure)
    assert line in outcome.log_tail.splitlines()
    if backend != "toy-sys-exit":
        assert "harness_toy_faults.py" in outcome.log_tail


@pytest.mark.parametrize(
    ("backend", "phase"),
    [
        ("toy-no-devices", "import"),
        ("toy-value-error", "train"),
        ("toy-nan-predictions", "validate"),
        ("toy-lost-weight", "score"),
    ],
)
def test_failure_records_its_phase_and_the_provenance_so_far(backend: str, phase: str, series: Series) -> None:
    record = series.runs[backend].record
    assert isinstance(record.outcome, Failure)
    assert record.outcome.phase == phase
    assert (record.provenance.dataset_digest is None) == (phase == "import")
    assert (record.provenance.initial_weights_digest is None) == (phase == "import")
    assert (record.provenance.final_weights_digest is None) is True


def test_success_is_complete(series: Series) -> None:
    run = series.runs["toy-numpy"]
    record, outcome = run.record, run.record.outcome
    assert isinstance(outcome, Success)
    assert record.spec.device == "cpu"
    assert record.key == record.spec.key
    assert record.provenance.plugins == [with_digest(TOY_REF)]
    assert len(record.provenance.plugins[0].code_digest) == 64
    assert record.provenance.device_name == "the host"
    assert record.provenance.data is not None
    assert record.provenance.data.label_names == ("height", "width")
    assert record.environment.packages["harness-toy"] == "1.0"
    assert set(outcome.scores.test) == set(outcome.scores.validation) == {"rmse", "mae", "r2"}
    assert outcome.scores.test["rmse"] < 1.5
    assert [epoch.step for epoch in outcome.curves] == [10, 20, 30]
    assert outcome.curves[-1].train_loss < 0.1 * outcome.curves[0].train_loss
    assert (outcome.model.parameters, outcome.model.flops_per_sample) == (10, 16.0)
    assert outcome.examples == {"train": 160, "validation": 40, "test": 40}
    phases = {"import", "data", "build", "train", "validate", "inference", "score", "sampling"}
    assert set(outcome.phases_s) == set(outcome.memory.host_peak_by_phase_bytes) == phases
    assert outcome.memory.host_peak_bytes == max(outcome.memory.host_peak_by_phase_bytes.values())
    assert sum(outcome.phases_s.values()) < record.wall_s
    assert outcome.latency.samples >= 12
    assert outcome.latency.p50_ms is not None
    assert outcome.speed.inference.windows >= 1
    assert outcome.speed.train_samples_per_s is not None
    assert outcome.speed.train_flops_per_s == pytest.approx(outcome.speed.train_samples_per_s * 3 * 16)
    assert outcome.speed.by_steps is True
    assert [(part.label, part.unit, set(part.scores)) for part in outcome.scores.per_target] == [
        ("height", "m", {"rmse", "mae", "r2"}),
        ("width", "m", {"rmse", "mae", "r2"}),
    ]


def test_reference_score_is_that_of_the_closed_form_solution(series: Series, catalog: Catalog) -> None:
    record = series.runs["toy-numpy"].record
    task, model = catalog.task("toy-regress"), catalog.model("toy")[0]
    data = task.prepare(catalog.dataset("toy-numbers").load(catalog.dataset("toy-numbers").Options()), task.Options())
    best = model.solve(model.Config(), data.info, data.train)
    assert best is not None
    error = data.test.inputs["features"] @ best["linear.weight"].T + best["linear.bias"] - data.test.targets
    rmse = np.sqrt(((error * data.info.target_scale) ** 2).mean(axis=0)).mean()
    assert isinstance(record.outcome, Success)
    assert record.outcome.scores.reference is not None
    assert record.outcome.scores.reference["rmse"] == pytest.approx(rmse, rel=1e-4)
    assert record.outcome.scores.test["rmse"] != pytest.approx(rmse, rel=1e-4)


def test_raw_samples_stand_behind_the_record(series: Series) -> None:
    run = series.runs["toy-numpy"]
    outcome = run.record.outcome
    arrays = read_arrays(run.path / ARRAYS)
    assert isinstance(outcome, Success)
    assert arrays["train_window_steps"].sum() == 30 == len(arrays["train_losses"])
    assert len(arrays["latencies_s"]) == outcome.latency.samples
    steady = outcome.speed.inference
    assert len(arrays["inference_window_s"]) == steady.warmup_windows + steady.windows
    assert outcome.speed.train is not None
    train_windows = len(arrays["train_window_s"]) - 1 + len(arrays["sampling_window_s"])
    assert train_windows == outcome.speed.train.warmup_windows + outcome.speed.train.windows
    assert arrays["test_outputs"].shape == arrays["test_targets"].shape == (40, 2)
    assert arrays["train_window_s"][0] == outcome.speed.first_step_s
    error = (arrays["test_outputs"].astype("f8") - arrays["test_targets"]) * run.record.provenance.data.target_scale
    assert np.sqrt((error**2).mean(axis=0)).mean() == pytest.approx(outcome.scores.test["rmse"])


def test_backends_start_alike_and_see_the_same_batches(series: Series) -> None:
    records = [series.runs[backend].record for backend in ("toy-numpy", "toy-send-garbage", "toy-remove-job")]
    for name in ("dataset_digest", "initial_weights_digest", "final_weights_digest"):
        assert len({getattr(record.provenance, name) for record in records}) == 1
    curves = [[epoch.train_loss for epoch in record.outcome.curves] for record in records]
    assert curves[0] == curves[1] == curves[2]


def test_events_arrive_in_order(series: Series) -> None:
    phases = [event.phase for event in series.listener.events if isinstance(event, PhaseStarted)]
    expected = ["import", "data", "build", *["train", "validate"] * 3, "inference", "score", "sampling", "score"]
    assert phases[-13:] == expected
    epochs = [event for event in series.listener.events if isinstance(event, EpochEnded)]
    assert epochs[-3:] == series.runs["toy-numpy"].record.outcome.curves
    assert [event for event in series.listener.events if isinstance(event, Progress)][-1].step == 30


def test_threads_and_the_backends_own_variables_reach_the_child(series: Series) -> None:
    notes = series.runs["toy-numpy"].record.provenance.notes
    variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOY_GREETING": "hello"}
    assert notes == variables | {"cores": str(sorted(os.sched_getaffinity(0)))}


def test_grandchild_of_a_finished_run_is_ended(series: Series) -> None:
    worker, grandchild = map(int, series.pid_file.read_text().split())
    assert gone(worker)
    assert gone(grandchild)


# ---- single runs ------------------------------------------------------------------------------------------


def run(catalog: Catalog, results: Path, *overrides: str, timeout_s: float = 60, **selection: Any) -> RunRecord:
    (spec,) = plan(catalog, *overrides, **selection)
    (record,) = run_all([spec], catalog, Store(results), timeout_s=timeout_s)
    return record


def test_classification_has_scores_per_class(catalog: Catalog, tmp_path: Path) -> None:
    record = run(catalog, tmp_path, "recipe.epochs=10", "recipe.label_smoothing=0.1", tasks=("toy-classify",))
    outcome = record.outcome
    assert isinstance(outcome, Success), outcome
    assert outcome.scores.primary == "accuracy"
    assert set(outcome.scores.test) == {"accuracy", "f1_macro", "roc_auc", "toy_share"}
    assert outcome.scores.test["accuracy"] > 0.8
    assert outcome.scores.reference is None
    assert [score.label for score in outcome.scores.per_class] == ["red", "green", "blue"]
    assert np.sum(outcome.scores.confusion) == 40


def test_seed_changes_weights_and_batches_but_not_data(catalog: Catalog, tmp_path: Path) -> None:
    specs = [*plan(catalog, seeds=(0, 1)), *plan(catalog)]
    first, second, again = run_all(specs, catalog, Store(tmp_path), timeout_s=60)
    assert [record.repeat for record in (first, second, again)] == [1, 1, 2]
    assert first.provenance.dataset_digest == second.provenance.dataset_digest
    assert first.provenance.initial_weights_digest != second.provenance.initial_weights_digest
    assert first.provenance.final_weights_digest == again.provenance.final_weights_digest
    assert first.outcome.scores == again.outcome.scores


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"devices": ("cuda",)}, "backend 'toy-numpy' finds no device 'cuda' on this machine; available devices: cpu"),
        (
            {"precisions": ("bf16",)},
            "backend 'toy-numpy' cannot compute in bf16 on cpu (the host); supported precisions: fp32",
        ),
        ({"compile": True}, "the toy backend supports only the optimizer sgd"),
    ],
)
def test_what_a_device_cannot_do_is_unsupported(
    selection: dict[str, Any], message: str, catalog: Catalog, tmp_path: Path
) -> None:
    outcome = run(catalog, tmp_path, **selection).outcome
    assert isinstance(outcome, Failure)
    assert outcome.kind == "unsupported"
    assert outcome.message.startswith(message)


def test_batch_larger_than_the_data_succeeds(catalog: Catalog, tmp_path: Path) -> None:
    outcome = run(catalog, tmp_path, "recipe.batch_size=1000", "recipe.epochs=1", "dataset.examples=9").outcome
    assert isinstance(outcome, Success), outcome
    assert outcome.speed.train_samples_per_s is not None  # The only step compiles; further steps are run for timing.
    assert outcome.examples == {"train": 9, "validation": 2, "test": 2}


def test_output_goes_to_the_log_only(catalog: Catalog, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    record = run(catalog, tmp_path, backends=("toy-chatter",))
    assert isinstance(record.outcome, Success)
    assert capfd.readouterr() == ("", "")
    log = (tmp_path / record.run_id / LOG).read_text()
    assert log.count("\n") == 4001
    assert "toy chatter past Python" in log


def test_timeout_ends_the_process_group_and_saves_the_log(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_PID_FILE", str(tmp_path / "pids"))
    record = run(catalog, tmp_path / "results", backends=("toy-hang-with-grandchild",), timeout_s=3)
    assert record.outcome == Failure(
        kind="timeout",
        message="did not finish within 3 s; raise the limit with --timeout",
        log_tail="hanging",
        phase="train",
    )
    assert 3 <= record.wall_s < 8
    assert [gone(int(pid)) for pid in (tmp_path / "pids").read_text().split()] == [True, True]


def test_run_after_a_timeout_that_ignores_sigterm_succeeds(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "TERM_WAIT_S", 0.2)
    specs = plan(catalog, backends=("toy-hang-ignoring-term", "toy-numpy"))
    hung, healthy = run_all(specs, catalog, Store(tmp_path), timeout_s=3)
    assert isinstance(hung.outcome, Failure)
    assert hung.outcome.kind == "timeout"
    assert isinstance(healthy.outcome, Success)


def interrupted_parent(tmp_path: Path, number: int) -> tuple[subprocess.Popen[str], list[int]]:
    """Run three backends in a script and send it a signal when the second one hangs.

    Return the script's process and the ids of its children.
    """
    script = f"""
import harness
harness.run("toy-regress", ["toy-numpy", "toy-hang-with-grandchild", "toy-chatter"], overrides={FAST}, threads=1)
"""
    environment = {
        **os.environ,
        "TOY_PID_FILE": str(tmp_path / "pids"),
        "HARNESS_RESULTS": str(tmp_path / "results"),
    }
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    end = time.monotonic() + 60
    while not (tmp_path / "pids").exists() and parent.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    parent.send_signal(number)
    return parent, [int(pid) for pid in (tmp_path / "pids").read_text().split()]


def test_interrupt_ends_the_child_and_saves_finished_runs(toy: Path, tmp_path: Path) -> None:
    parent, pids = interrupted_parent(tmp_path, signal.SIGINT)
    output, _ = parent.communicate(timeout=30)
    assert parent.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in output
    assert [gone(pid) for pid in pids] == [True, True]
    runs = [run.record for run in Store(tmp_path / "results").load().runs]
    assert [run.spec.backend for run in runs] == ["toy-numpy", "toy-hang-with-grandchild"]
    assert isinstance(runs[0].outcome, Success)
    assert runs[1].outcome == Failure(
        kind="interrupted", message="stopped by the user", log_tail="hanging", phase="train"
    )
    assert runs[1].wall_s > 0.1
    assert len(list((tmp_path / "results").glob("toy-*"))) == 2


def test_time_limit_that_is_not_positive_raises(catalog: Catalog, tmp_path: Path) -> None:
    for timeout_s in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="the time limit must be a positive, finite number"):
            run(catalog, tmp_path / "results", timeout_s=timeout_s)
    assert not (tmp_path / "results").exists()


def test_results_directory_that_cannot_be_written_raises_before_the_first_run(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    listener = EventLog()
    with pytest.raises(RecordError, match="results: cannot store results here"):
        run_all(plan(catalog), catalog, Store(tmp_path / "results"), listener=listener)
    assert listener.lines == []


def test_plugin_that_does_not_load_in_the_child_is_a_failure(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    outcome = run(catalog, tmp_path).outcome
    assert isinstance(outcome, Failure)
    assert outcome.kind == "error"
    assert "plugin 'toy': ModuleNotFoundError: No module named 'harness_toy'" in outcome.message


def test_out_of_memory_kill_is_distinguished_from_a_crash(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's counter covers the whole machine, so only a SIGKILL is attributed to it."""
    kills = iter(range(100))
    monkeypatch.setattr(failures, "kernel_oom_kills", lambda: next(kills))
    killed = run(catalog, tmp_path, backends=("toy-killed",)).outcome
    crashed = run(catalog, tmp_path, backends=("toy-segfault",)).outcome
    assert isinstance(killed, Failure)
    assert isinstance(crashed, Failure)
    assert (killed.kind, killed.message) == ("oom", "killed by SIGKILL: the kernel ran out of memory")
    assert (crashed.kind, crashed.message) == ("crash", "killed by SIGSEGV")


def test_log_tail_is_the_end_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / LOG
    log.write_bytes(b"\xff\xfe" + b"".join(b"line %d\n" % number for number in range(100_000)))
    tail = failures.tail(log).splitlines()
    assert tail == [f"line {number}" for number in range(100_000 - failures.LOG_TAIL_LINES, 100_000)]
    assert failures.tail(tmp_path / "absent") == ""


def test_regression_run_imports_no_scikit_learn(toy: Path, tmp_path: Path, catalog: Catalog) -> None:
    """Importing scikit-learn takes seconds, and regression metrics do not need it."""
    from harness.execute.worker import RunJob

    (spec,) = plan(catalog)
    job = RunJob(spec=spec, plugins=catalog.refs_for(spec))
    (tmp_path / "job.json").write_bytes(msgspec.json.encode(job))
    code = """
import sys
from pathlib import Path
import msgspec
from harness.execute.child import ChildContext
from harness.execute.worker import RunJob, carry_out
directory = Path(sys.argv[1])
job = msgspec.json.decode((directory / "job.json").read_bytes(), type=RunJob)
assert not hasattr(carry_out(job, ChildContext(directory, lambda event: None, lambda result: None)).outcome, "message")
print(sorted({"sklearn", "scipy", "pandas"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
    assert (tmp_path / ARRAYS).exists()


# ---- probes of devices ------------------------------------------------------------------------------------


def test_probe_lists_devices(catalog: Catalog) -> None:
    found = probe("toy-numpy", TOY_REF)
    assert found.error is None
    assert [device.name for device in found.devices] == ["cpu"]


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("toy-segfault-in-devices", "SIGSEGV"),
        ("toy-odd-device", "the device 'cpu' has precisions=('fp8',)"),
        ("toy-unheard-of", "unknown backend 'toy-unheard-of'"),
    ],
)
def test_probe_of_a_failing_backend_returns_the_error(backend: str, message: str, catalog: Catalog) -> None:
    found = probe(backend, FAULTS_REF)
    assert found.devices == []
    assert message in (found.error or "")


def test_run_is_judged_by_the_chosen_metric(catalog: Catalog, tmp_path: Path) -> None:
    """The best epoch, early stopping and the time to the target use the metric. The target of the dataset, which is
    that of the task's metric, is not used. An audit accepts the record, and the command that reproduces it has the
    option.
    """
    record = run(catalog, tmp_path, "recipe.keep_best=true", metric="mae")
    outcome = record.outcome
    assert isinstance(outcome, Success)
    assert outcome.scores.primary == "mae"
    assert set(outcome.scores.test) == {"rmse", "mae", "r2"}
    assert outcome.selection is not None
    assert outcome.selection.monitor == "mae"
    scores = [epoch.validation["mae"] for epoch in outcome.curves]
    assert outcome.selection.best == min(scores)
    assert outcome.time_to_target is None
    (stored,) = Store(tmp_path).load().runs
    findings = on_record(stored, [], {}, catalog)
    assert [finding for finding in findings if finding.passed is False] == []
    assert "--metric mae" in rerun.command(record.spec, [], catalog)


def test_run_reports_a_chosen_metric_that_its_task_does_not_list(catalog: Catalog, tmp_path: Path) -> None:
    record = run(catalog, tmp_path, tasks=("toy-classify",), metric="log_loss")
    assert isinstance(record.outcome, Success)
    assert record.outcome.scores.primary == "log_loss"
    assert set(record.outcome.scores.test) == {"accuracy", "f1_macro", "roc_auc", "toy_share", "log_loss"}
    (stored,) = Store(tmp_path).load().runs
    findings = on_record(stored, [], {}, catalog)
    assert [finding for finding in findings if finding.passed is False] == []
