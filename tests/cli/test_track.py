"""The option ``--tracker`` and the command ``harness track``."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Invoke
from toy_plugin import SET_FAST, TOY_REF

from harness.plugins import load
from harness.records import PluginRef

REF = PluginRef(name="file-tracker", value="file_tracker", distribution="file", version="")
SOURCE = """
import harness

class Lines:
    def __init__(self, results, options):
        self.path = results / options.get("name", "lines.txt")

    def write(self, text):
        if self.path.name == "fails":
            raise harness.HarnessError("no connection")
        with self.path.open("a") as file:
            print(text, file=file)

    @harness.hookimpl
    def harness_epoch_ended(self, epoch):
        self.write(f"epoch {epoch.epoch}")

    @harness.hookimpl
    def harness_run_finished(self, record, directory):
        self.write(f"{record.run_id} {directory.name} {record.outcome.__class__.__name__}")

@harness.hookimpl
def harness_trackers():
    yield harness.Tracker(
        name="lines", listener="file_tracker:Lines", summary="lines of text", options={"name": "name of the file"},
        check="file_tracker:check",
    )

def check(results, options):
    if "/" in options.get("name", ""):
        raise harness.UsageError("the name must not contain a slash")

@harness.hookimpl
def harness_reporters():
    yield harness.Reporter(
        name="count", render="file_tracker:count", summary="number of rows", options={"unit": "text after the number"}
    )

def count(table, unit="rows"):
    return f"{len(table.rows)} {unit}"
"""
RUN = ("run", "--task", "toy-regress", "--backend", "toy-numpy", "--threads", "1", "--quiet", *SET_FAST)


@pytest.fixture(autouse=True)
def _tracker(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "file_tracker.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))
    monkeypatch.setattr("harness.plugins.discover", lambda *_: load([TOY_REF, REF]))


def test_run_and_track_log_the_same_lines(invoke: Invoke, tmp_path: Path) -> None:
    arguments = ("--tracker", "lines:name=live.txt", "--set", "recipe.epochs=2", "--seed", "0,1")
    done = invoke(*RUN, *arguments)
    assert done.exit_code == 0, done.output
    live = (tmp_path / "results" / "live.txt").read_text().splitlines()
    ids = sorted(path.name for path in (tmp_path / "results").glob("toy-*"))
    assert len(ids) == 2
    assert live == [line for run in ids for line in ("epoch 1", "epoch 2", f"{run} {run} Success")]
    done = invoke("track", *ids, ids[0], "--tracker", "lines")
    assert done.exit_code == 0, done.output
    assert done.stderr == "".join(f"{run}: logged\n" for run in ids)
    assert (tmp_path / "results" / "lines.txt").read_text().splitlines() == live
    assert invoke("track", "--all", "--quiet", "--tracker", "lines:name=all.txt").stderr == ""
    assert (tmp_path / "results" / "all.txt").read_text().splitlines() == live


def test_track_names_the_run_that_was_not_logged(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke(*RUN).exit_code == 0
    (run,) = [path.name for path in (tmp_path / "results").glob("toy-*")]
    done = invoke("track", "--all", "--tracker", "lines:name=fails")
    assert (done.exit_code, done.stderr) == (1, f"Error: the run {run} was not logged completely: no connection\n")


def test_track_logs_readable_runs_and_reports_the_others(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke(*RUN, "--seed", "0,1").exit_code == 0
    broken, kept = sorted((tmp_path / "results").glob("toy-*"))
    (broken / "record.json").write_text("{}")
    done = invoke("track", "--all", "--tracker", "lines")
    assert done.exit_code == 1
    assert f"Warning: excluded: {Path('results') / broken.name}" in done.stderr
    assert f"{kept.name}: logged" in done.stderr
    assert "1 record could not be read; the other runs were logged" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("track --all", "pass --tracker NAME with one of the trackers: lines"),
        ("track --tracker lines", "pass the ids of runs, or --all"),
        ("track run --all --tracker lines", "pass the ids of runs, or --all"),
        ("track --all --tracker lines", "the results directory 'results' contains no runs"),
        ("track toy --tracker lines", "unknown run 'toy'"),
        ("track --all --tracker line", "unknown tracker 'line'; did you mean 'lines'?"),
        ("run --task toy-regress --tracker line", "unknown tracker 'line'; did you mean 'lines'?"),
        ("run --task toy-regress --tracker lines:nam=x", "unknown lines tracker option 'nam'; did you mean 'name'?"),
        ("run --task toy-regress --tracker lines:name", "write the option of a tracker as NAME:OPTION=VALUE"),
        ("run --task toy-regress --tracker line --dry-run", "unknown tracker 'line'"),
        ("run --task toy-regress --tracker lines:name=a/b", "the name must not contain a slash"),
        ("run --task toy-regress --tracker lines:name=a/b --dry-run", "the name must not contain a slash"),
        ("track --all --tracker lines:name=a/b", "the name must not contain a slash"),
        ("tune --task toy-regress --search recipe.epochs=1,2 --tracker lines:name=a/b", "must not contain a slash"),
        (
            "tune --task toy-regress --lr-range --tracker lines",
            "--lr-range does not perform a search; remove --tracker",
        ),
    ],
)
def test_invalid_requests_are_rejected(invoke: Invoke, arguments: str, message: str, tmp_path: Path) -> None:
    done = invoke(*arguments.split())
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "results").exists()


def test_list_shows_trackers_and_reporters_with_their_options(invoke: Invoke) -> None:
    assert invoke("list", "trackers").stdout.splitlines()[-1].split(maxsplit=1) == [
        "lines",
        "name: name of the file  lines of text",
    ]
    assert "unit: text after the number" in invoke("list", "reporters").stdout
    assert "tracker lines" in invoke("plugin", "list").stdout


def test_report_passes_options_to_the_format(invoke: Invoke, results: Path) -> None:
    report = ("report", "--results", str(results), "--format", "count")
    rows = invoke(*report).stdout
    assert rows.endswith(" rows\n")
    assert invoke(*report, "--format-option", "unit=lines").stdout == rows.replace("rows", "lines")
    unknown = invoke(*report, "--format-option", "units=lines")
    assert (unknown.exit_code, "unknown count format option 'units'; did you mean 'unit'?" in unknown.stderr) == (
        2,
        True,
    )
    assert invoke(*report, "--format-option", "unit").exit_code == 2
    plotted = invoke("report", "--results", str(results), "--plot", "pareto", "--format-option", "unit=x")
    assert (plotted.exit_code, "cannot be combined" in plotted.stderr) == (2, True)
