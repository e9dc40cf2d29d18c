"""Tests of ``harness tune`` with the toy backend, which executes trials in child processes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import MAIN, Invoke
from toy_plugin import SET_FAST

import harness
from harness.measure.cgroup import available_cores
from harness.records import Success, Trial
from harness.records.store import Store
from harness.tuning.request import Tuning
from harness.tuning.study import Study, directory, load_all

TOY = ("--task", "toy-classify", "--backend", "toy-numpy", "--threads", "1", *SET_FAST)
SEARCH = ("--search", "recipe.learning_rate=log:1e-3:1.0", "--search", "recipe.batch_size=8,16")


def study_in(results: Path) -> Study:
    (study,), problems = load_all(results)
    assert problems == []
    return study


def test_tune_reports_the_study_and_continues_it(invoke: Invoke, tmp_path: Path) -> None:
    space = ("--search", "recipe.learning_rate=log:0.3:1.0")  # without the default, so that there are two rows
    words = ("tune", *TOY, *space, "--trials", "2", "--confirm", "1", "--results", "here", "--quiet")
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    study = study_in(tmp_path / "here")
    assert "Cost: 2 trials (2 complete, 0 pruned, 0 failed), " in done.stdout
    assert "\nBest: trial " in done.stdout
    trials = Store(directory(tmp_path / "here", study.name) / "trials").load().runs
    assert all(isinstance(run.record.outcome, Trial) for run in trials)
    runs = Store(tmp_path / "here").load().runs
    assert all(isinstance(run.record.outcome, Success) for run in runs)
    assert {run.record.spec.seed for run in runs} == {1}
    assert [run.record.tuning for run in runs if run.record.tuning] == [study.cost(study.best[0])]

    again = invoke(*words)
    assert again.stdout == done.stdout
    assert study_in(tmp_path / "here") == study
    assert Store(tmp_path / "here").load().runs == runs

    default, tuned = csv.DictReader(invoke("report", "--results", "here", "--format", "csv").stdout.splitlines())
    assert [default["tuning_trials"], float(tuned["tuning_trials"])] == ["", 2.0]
    assert float(tuned["tuning_steps"]) == study.steps
    assert invoke("report", "--results", "here", "--format", "html", "--output", "site").exit_code == 0
    page = (tmp_path / "site" / "tuning.html").read_text()
    assert f"Study {study.name}" in page
    assert "History of the trials" in page
    trial = trials[0].record.run_id
    shown = invoke("show", trial, "--results", str(trials[0].path.parent))
    assert "trial of harness tune (validation split only)" in shown.stdout
    assert "trial, complete" in invoke("report", "--results", str(trials[0].path.parent)).stdout
    audited = invoke("audit", trial, "--results", str(trials[0].path.parent))
    assert (audited.exit_code, "is a trial of `harness tune`" in audited.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the search space is empty"),
        (("--search", "recipe.learning_rte=1,2"), "did you mean 'recipe.learning_rate'?"),
        ((*SEARCH, "--pruner", "median", "--objective", "quality,train_throughput"), "not supported by Optuna"),
        ((*SEARCH, "--objective", "quality,quality"), "the objective 'quality' is given twice; remove one of them"),
        ((*SEARCH, "--objective", "loss", "--objective", "loss"), "the objective 'loss' is given twice"),
        ((*SEARCH, "--objective", ""), "empty name"),
        ((*SEARCH, "--sampler", "best"), "'best' is not one of"),
        ((*SEARCH, "--jobs", "9999"), "--jobs 9999 with 1 thread per run needs 9999 x 1 = 9999 cores"),
        ((*SEARCH, "--executor", "ry"), "unknown executor 'ry'"),
        (("--search", "recipe.batch_size=8,16", "--objective", "train_throughput", "--jobs", "2"), "--jobs 2"),
        (
            ("--lr-range", "--jobs", "2", "--executor", "local"),
            "--lr-range does not perform a search; remove --jobs, --executor",
        ),
    ],
)
def test_tune_with_an_invalid_request_starts_nothing(
    words: tuple[str, ...], message: str, invoke: Invoke, tmp_path: Path
) -> None:
    done = invoke("tune", *TOY, *words, "--results", "here")
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "here").exists()


def test_tune_without_optuna_names_the_command_to_install_it(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plugins.requirements._importable", lambda module: module != "optuna")
    done = invoke("tune", *TOY, *SEARCH)
    assert (done.exit_code, "optuna is not installed; run: pip install " in done.stderr) == (2, True)


def test_tune_in_python_makes_the_same_request(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Tuning] = []

    def plan(request: Tuning, catalog: Any) -> list[Any]:
        requests.append(request)
        raise harness.UsageError("stop")

    monkeypatch.setattr("harness.tuning.request.plan", plan)
    monkeypatch.setattr("harness.plugins.check_loaded", lambda *arguments: None)
    invoke(
        "tune",
        *TOY,
        *SEARCH,
        "--trials",
        "7",
        "--sampler",
        "random",
        "--confirm",
        "0",
        "--objective",
        "loss",
        "--jobs",
        "2",
    )
    fast = [word for word in SET_FAST if word != "--set"]
    search: dict[str, Any] = {"recipe.learning_rate": "log:1e-3:1.0", "recipe.batch_size": [8, 16]}
    with pytest.raises(harness.UsageError, match="stop"):
        harness.tune(
            "toy-classify",
            "toy-numpy",
            threads=1,
            overrides=fast,
            search=search,
            trials=7,
            sampler="random",
            confirm=0,
            objective="loss",
            jobs=2,
            seed=None,  # type: ignore[arg-type]  # the default of the command is the protocol's seed
        )
    assert requests[0] == requests[1]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_tune_that_was_killed_continues_like_an_undisturbed_one(jobs: int, toy: Path, tmp_path: Path) -> None:
    if available_cores() < jobs:
        pytest.skip("needs one core per job")

    def words(place: str) -> list[str]:
        search = [*SEARCH, "--trials", "8", "--confirm", "0", "--quiet", "--set", "recipe.epochs=6"]
        search += ["--jobs", str(jobs)]
        return [*MAIN, "tune", *TOY, *search, "--results", place]

    subprocess.run(words("whole"), cwd=tmp_path, check=True, capture_output=True, timeout=250)
    for count in (1, 3, 6):
        process = subprocess.Popen(words("killed"), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(list(tmp_path.glob("killed/tuning/*/trials/toy-*"))) < count and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(words("killed"), cwd=tmp_path, check=True, capture_output=True, timeout=250)
    whole, killed = (
        [
            msgspec.structs.replace(each, number=0, seconds=0.0, repeated=False)
            for each in study_in(tmp_path / place).trials
        ]
        for place in ("whole", "killed")
    )
    assert killed == whole
