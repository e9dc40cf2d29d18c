"""Tests of ``harness run`` with the toy backends, which execute runs in child processes."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from command_line import MAIN, Invoke, harness_process
from toy_plugin import FAST, SET_FAST

from harness.records import Failure, Success
from harness.records.store import Store

TOY = ("--task", "toy-classify", "--threads", "1", *SET_FAST)


def outcomes(path: Path) -> list[str]:
    runs = Store(path).load().runs
    return ["ok" if isinstance(run.record.outcome, Success) else run.record.outcome.kind for run in runs]


def test_run_prints_the_table_and_saves_the_records(toy: Path, tmp_path: Path) -> None:
    done = harness_process("run", *TOY, "--backend", "toy-numpy", "--seed", "0,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    heading = "toy-classify · toy-colors · toy-linear · cpu · fp32 · batch 16 · 2 seeds · parity unchecked\n"
    assert done.stdout.startswith(heading)
    assert done.stdout.count("\ntoy-numpy ") == 1
    assert "[1/2] toy-classify · toy-linear · toy-numpy · seed 0: train\n" in done.stderr
    assert "[2/2] toy-classify · toy-linear · toy-numpy · seed 1: epoch 3/3  training loss" in done.stderr
    assert "Saved 2 runs to results/" in done.stderr
    assert outcomes(tmp_path / "results") == ["ok", "ok"]


def test_run_table_has_only_the_runs_of_the_command(invoke: Invoke) -> None:
    assert invoke("run", *TOY, "--backend", "toy-numpy", "--seed", "0").exit_code == 0
    again = invoke("run", *TOY, "--backend", "toy-numpy", "--seed", "1")
    assert "· 1 seed · parity unchecked\n" in again.stdout
    report = invoke("report")
    assert "· 2 seeds · parity unchecked\n" in report.stdout


def test_run_reports_a_failure_and_continues(toy: Path, tmp_path: Path) -> None:
    done = harness_process("run", *TOY, "--backend", "toy-segfault,toy-chatter", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "failed: crash" in done.stdout
    assert "SIGSEGV" in done.stdout
    assert "chatter on" not in done.stdout
    assert outcomes(tmp_path / "results") == ["crash", "ok"]


def test_run_timeout_is_recorded(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("run", *TOY, "--backend", "toy-hang", "--timeout", "2", "--results", "here")
    assert done.exit_code == 1
    assert "failed: timeout" in done.stdout
    assert outcomes(tmp_path / "here") == ["timeout"]


def test_run_results_directory_that_cannot_be_written_fails(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("run", *TOY, "--backend", "toy-numpy", "--results", "file/results")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "file/results" in result.stderr
    assert "--results DIR" in result.stderr


def test_run_interrupted_keeps_finished_runs(toy: Path, tmp_path: Path) -> None:
    arguments = ["run", *TOY, "--backend", "toy-numpy,toy-hang,toy-chatter"]
    with subprocess.Popen(
        [*MAIN, *arguments], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        output = ""
        while "[2/3] toy-classify · toy-linear · toy-hang · seed 0: train" not in output:
            line = process.stderr.readline()
            assert line, output
            output += line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "toy-numpy" in out
    assert "failed: interrupted" in out
    assert "toy-chatter" not in out
    assert outcomes(tmp_path / "results") == ["ok", "interrupted"]


def test_show_prints_a_failed_run(invoke: Invoke) -> None:
    invoke("run", *TOY, "--backend", "toy-value-error")
    result = invoke("show", "toy-classify")
    assert result.exit_code == 0
    assert "FAILED in phase train: error: ValueError: the toy broke" in result.stdout
    assert "  | ValueError: the toy broke" in result.stdout
    assert isinstance(Store(Path("results")).load().runs[0].record.outcome, Failure)


def test_run_suite_executes_its_runs(invoke: Invoke, tmp_path: Path) -> None:
    settings = ", ".join(f'"{k}" = {v}' for k, _, v in (setting.partition("=") for setting in FAST))
    (tmp_path / "suite.toml").write_text(
        f'backend = "toy-numpy"\nthreads = 1\n[[run]]\ntask = "toy-classify"\nrepeat = 2\nset = {{ {settings} }}\n'
    )
    done = invoke("run", "--suite", "suite.toml", "--quiet")
    assert done.exit_code == 0, done.output
    assert outcomes(tmp_path / "results") == ["ok", "ok"]
    planned = invoke("run", "--suite", "suite.toml", "--dry-run")
    assert "2 runs planned, 2 of them already done; none was started" in planned.stdout
    mixed = invoke("run", "--suite", "suite.toml", "--task", "nlp", "--set", "recipe.epochs=1")
    assert mixed.exit_code == 2
    assert "--suite selects the runs; remove --task, --set" in mixed.stderr
