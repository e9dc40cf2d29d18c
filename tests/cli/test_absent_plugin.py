"""Tests of the commands that read records of a plugin that is not installed."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import click.testing
import loss_plugin
import msgspec
import pytest
from command_line import Invoke

from harness.analysis.compare import baseline
from harness.analysis.history import histories
from harness.plugins import load
from harness.records import MetricInfo, RunRecord, Success
from harness.records.store import RECORD, Store
from harness.report.best import best
from harness.report.plots.points import panels, pareto, time_to_quality
from harness.report.report import Report

GOOD, BAD = "toy-linear", "toy-through-origin"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results directory with a good and a bad model, two seeds each."""
    results = tmp_path_factory.mktemp("results")
    records = loss_plugin.run(results, tmp_path_factory.mktemp("plugin"), seeds=(0, 1, 2))
    assert all(isinstance(record.outcome, Success) for record in records), records
    return results


@pytest.fixture
def without(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Return a function that runs a command on the results, without any plugin but the core's."""
    from harness.cli.root import cli

    monkeypatch.setattr("harness.plugins.discover", lambda *_: load([]))
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object, status: int = 0) -> click.testing.Result:
        words = [*map(str, arguments), *(["--results", str(stored)] if "compare" not in arguments else [])]
        done = click.testing.CliRunner().invoke(cli, words, prog_name="harness")
        assert done.exit_code == status, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done

    return invoke


def forget(record: RunRecord) -> RunRecord:
    """Return the record as it was written before records stored the meaning of metrics."""
    assert isinstance(record.outcome, Success)
    scores = msgspec.structs.replace(record.outcome.scores, metrics={})
    return msgspec.structs.replace(record, outcome=msgspec.structs.replace(record.outcome, scores=scores))


def report(stored: Path, *, older: bool = False) -> Report:
    runs = Store(stored).load().runs
    if older:
        runs = [type(run)(run.path, forget(run.record)) for run in runs]
    return Report(runs=tuple(runs), catalog=load([]))


def winners(of: Report) -> set[str]:
    (column,) = [column for column in of.table.columns if column.name == "quality"]
    return {of.table.rows[index].text("model") for index in best(of.table.rows, column)}


def test_record_has_the_meaning_of_every_metric(stored: Path) -> None:
    for run in Store(stored).load().runs:
        assert isinstance(run.record.outcome, Success)
        assert run.record.outcome.scores.metrics == {
            "toy_log_loss": MetricInfo(
                higher_is_better=False,
                title="toy log loss",
                unit="nat",
                bounds=(0.0, None),
                summary="mean negative logarithm of the probability of the true class",
            ),
            "accuracy": MetricInfo(
                higher_is_better=True,
                title="accuracy",
                bounds=(0.0, 1.0),
                summary="fraction of examples whose predicted class is correct",
            ),
        }


def test_lower_loss_is_the_best(stored: Path) -> None:
    found = report(stored)
    assert winners(found) == {GOOD}
    (panel,) = panels(found)
    assert (panel.quality, panel.better) == ("toy log loss (nat)", "lower")
    front = pareto(panel, "train_samples_per_s")
    assert {point["model"]: point["front"] for point in front}[GOOD]
    level, _ = time_to_quality(panel)
    assert level is not None


def test_metric_of_an_older_record_is_shown_but_not_ranked(stored: Path) -> None:
    from harness.report.text import render

    found = report(stored, older=True)
    assert winners(found) == set()
    (panel,) = panels(found)
    assert panel.better == ""
    assert not any(point["front"] for point in pareto(panel, "train_samples_per_s"))
    assert time_to_quality(panel) == (None, ())
    text = render(found.table)
    assert "toy_log_loss: not ranked, because it is unknown whether higher values are better" in text
    assert all(row.text("quality") in text for row in found.table.rows)
    assert "not ranked" not in render(report(stored).table)


@pytest.mark.parametrize("disagreeing", ["all rows", "within a row"])
def test_metric_whose_records_disagree_is_not_ranked(stored: Path, disagreeing: str) -> None:
    def turned(record: RunRecord) -> RunRecord:
        assert isinstance(record.outcome, Success)
        if record.spec.seed and disagreeing == "within a row":
            return record
        if record.spec.model == GOOD and disagreeing == "all rows":
            return record
        other = MetricInfo(higher_is_better=True)
        scores = msgspec.structs.replace(record.outcome.scores, metrics={"toy_log_loss": other})
        return msgspec.structs.replace(record, outcome=msgspec.structs.replace(record.outcome, scores=scores))

    runs = [type(run)(run.path, turned(run.record)) for run in Store(stored).load().runs]
    found = Report(runs=tuple(runs), catalog=load([]))
    assert winners(found) == set()
    assert panels(found)[0].better == ""


@pytest.mark.parametrize("format_", ["text", "markdown", "latex", "csv", "json", "pytest-benchmark"])
def test_report_has_the_metric_and_its_direction(without: Invoke, format_: str) -> None:
    shown = without("report", "--format", format_).stdout
    assert "log" in shown
    if format_ == "csv":
        rows = list(csv.DictReader(io.StringIO(shown)))
        assert {(row["metric"], row["metric_unit"], row["metric_better"]) for row in rows} == {
            ("toy_log_loss", "nat", "lower")
        }
    elif format_ == "json":
        document = json.loads(shown)
        assert {row["metric_better"] for row in document["rows"]} == {"lower"}
        better = {column["name"]: column["better"] for column in document["columns"]}
        assert (better["train_samples_per_s"], better["latency_p50_ms"], better["quality"]) == ("higher", "lower", "")
    elif format_ == "pytest-benchmark":
        assert {one["extra_info"]["metric_better"] for one in json.loads(shown)["benchmarks"]} == {"lower"}
    elif format_ == "latex":
        lines = [line.split("&") for line in shown.splitlines()]
        (column,) = {place for line in lines for place, cell in enumerate(line) if "log loss" in cell}
        bold = [line[0].strip() for line in lines if len(line) > column and "textbf" in line[column]]
        assert bold == [GOOD]
    else:
        assert "nat" in shown


def test_site_marks_the_lower_loss_as_the_best(without: Invoke, tmp_path: Path) -> None:
    without("report", "--format", "html", "--output", tmp_path / "site")
    page = (tmp_path / "site" / "tasks" / "toy-loss.html").read_text()
    (column,) = [
        place for place, cell in enumerate(page.partition("</thead>")[0].split("<th ")) if "toy log loss" in cell
    ]
    rows = {name: next(row for row in page.split("<tr>") if f">{name}<" in row) for name in (GOOD, BAD)}
    best_ones = [name for name, row in rows.items() if "best" in row.split("<td")[column]]
    assert best_ones == [GOOD]
    assert "not ranked" not in (tmp_path / "site" / "index.html").read_text()
    run, *_ = (tmp_path / "site" / "runs").glob("*toy-linear*")
    assert "lower" in run.read_text()


def test_site_of_an_unknown_direction_states_that_it_is_not_ranked(stored: Path) -> None:
    from harness.report.layout import unranked
    from harness.report.site.render import page

    found = report(stored, older=True)
    (note,) = unranked(found.table.rows)
    empty: dict[str, Any] = {name: [] for name in ("problems", "notices", "contests", "panels", "failures")}
    summary: dict[str, Any] = {name: [] for name in ("tasks", "backends", "machines", "versions", "commits")}
    summary |= {"runs": 1, "failed": 0, "since": ""}
    shown = {
        "title": "x",
        "site_title": "x",
        "pages": {},
        "best": None,
        "ranks": [],
        "summary": summary,
        "notes": [note],
        **empty,
    }
    assert "toy_log_loss: not ranked" in page("index.html", "", **shown).decode()
    assert unranked(report(stored).table.rows) == []


def test_plot_of_an_unknown_direction_states_that_it_is_not_ranked(stored: Path) -> None:
    from harness.report.plots.figure import figure

    text = figure(report(stored, older=True), "pareto", ".json").decode()
    assert "toy log loss, not ranked" in text
    assert '"reverse": true' not in text


@pytest.mark.parametrize("plot", ["pareto", "curves"])
def test_plots_have_the_better_values_at_the_top(without: Invoke, tmp_path: Path, plot: str) -> None:
    without("report", "--plot", plot, "--output", tmp_path / "plot.json")
    text = (tmp_path / "plot.json").read_text()
    assert "toy log loss (nat), lower is better" in text
    assert '"reverse": true' in text


def test_compare_knows_which_side_is_better(without: Invoke, stored: Path, tmp_path: Path) -> None:
    done = without("compare", *sides(stored, tmp_path), "--metric", "toy_log_loss,accuracy", "--format", "json")
    found = {one["metric"]: one for one in json.loads(done.stdout)[0]["comparisons"]}
    assert (found["toy_log_loss"]["higher_is_better"], found["toy_log_loss"]["unit"]) == (False, "nat")


def sides(stored: Path, folder: Path, *, older: bool = False) -> tuple[Path, Path]:
    """Return one directory with the bad model's records and one with the good model's."""
    for run in Store(stored).load().runs:
        side = folder / ("base" if run.record.spec.model == BAD else "new") / run.path.name
        side.mkdir(parents=True)
        record = forget(run.record) if older else run.record
        (side / RECORD).write_bytes(msgspec.json.encode(record))
    return folder / "base", folder / "new"


def test_compare_with_a_lower_loss_is_better(without: Invoke, stored: Path, tmp_path: Path) -> None:
    base, new = sides(stored, tmp_path)
    comparison = json.loads(without("compare", base, new, "--metric", "toy_log_loss", "--format", "json").stdout)[0]
    assert comparison["comparisons"][0]["verdict"] == "better"
    gate = ("--metric", "toy_log_loss", "--fail-on", "toy_log_loss:+5%")
    without("compare", base, new, *gate)
    done = without("compare", new, base, *gate, status=1)
    assert "Failed: toy_log_loss:+5%: toy-loss" in done.stderr


def test_compare_with_an_unknown_direction_is_neither_better_nor_worse(
    without: Invoke, stored: Path, tmp_path: Path
) -> None:
    base, new = sides(stored, tmp_path, older=True)
    done = without("compare", base, new, "--metric", "toy_log_loss", "--fail-on", "toy_log_loss:+5%")
    assert "differs" in done.stdout
    assert "toy_log_loss: not ranked" in done.stdout
    assert not {"better", "worse"} & set(done.stdout.split("\n\n")[1].split())


def test_history_and_show_have_the_metric(without: Invoke, stored: Path) -> None:
    assert "quality (nat)" in without("history", "--all").stdout
    (history, *_) = histories(Store(stored).load().runs, load([]), ["toy_log_loss"])
    assert history.points[0].figures[0].unit == "nat"
    shown = without("show", "toy-linear-toy-numpy-s0").stdout
    (line,) = [line for line in shown.splitlines() if line.strip().startswith("toy_log_loss (nat) *")]
    assert "lower" in line


HOW = "plugin 'loss' (harness-loss 2.5) is not loaded; run: pip install harness-loss"


def test_audit_names_the_missing_plugin(without: Invoke) -> None:
    done = without("audit", "toy-linear-toy-numpy-s0", "--format", "json")
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    for check in ("scores match the predictions", "the data match the record"):
        assert findings[check]["passed"] is None
        assert HOW in findings[check]["detail"]
    assert findings["throughputs match the durations of the windows"]["passed"] is True


@pytest.mark.parametrize("command", ["latency", "evaluate"])
def test_measurement_names_the_missing_plugin(
    without: Invoke, stored: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toy_plugin import TOY_REF, install_toy

    if command == "evaluate":  # the backend to evaluate with is installed
        install_toy(monkeypatch)
        monkeypatch.setattr("harness.plugins.discover", lambda *_: load([TOY_REF]))
    options = ["--backend", "toy-numpy"] if command == "evaluate" else []
    done = without(command, "toy-linear-toy-numpy-s0", *options, status=2)
    assert "the task 'toy-loss' of the run is not available: " in done.stderr
    assert HOW in done.stderr
    run = Store(stored).find("toy-linear-toy-numpy-s0")
    assert not (run.path / "latency").exists()


def test_baseline_is_saved_without_the_plugin(without: Invoke, stored: Path, tmp_path: Path) -> None:
    done = without("baseline", GOOD, tmp_path / "saved.json")
    assert done.stdout.startswith("Saved 3 runs to ")
    saved = [run.record for run in baseline.load(tmp_path / "saved.json")]
    assert sorted(one.run_id for one in saved) == sorted(
        run.record.run_id for run in Store(stored).load().runs if GOOD in run.path.name
    )


def test_reproduce_names_the_missing_plugin_before_anything_runs(without: Invoke, tmp_path: Path) -> None:
    without("bundle", "--output", tmp_path / "all.zip")
    done = without("reproduce", tmp_path / "all.zip", status=2)
    assert "the task 'toy-loss' of the run is not available: " in done.stderr
    assert HOW in done.stderr


@pytest.mark.parametrize(
    ("distribution", "value", "how"),
    [
        ("file", "/x/toy_loss.py", "(file /x/toy_loss.py) is not loaded; pass --plugin /x/toy_loss.py or another path"),
        (
            "module",
            "toy_loss",
            "(module toy_loss) is not loaded; pass --plugin toy_loss, or list it in HARNESS_PLUGINS",
        ),
        ("toy-dist", "loss", "(toy-dist 1) is not loaded; run: pip install toy-dist, and pass --plugin loss"),
        ("t; rm -r x", "toy_loss", "(t; rm -r x 1) is not loaded; install the distribution that contains 'toy_loss'"),
        ("../toy", "toy_loss", "(../toy) is not loaded; install the distribution that contains 'toy_loss'"),
    ],
)
def test_error_states_how_to_load_plugins_of_every_origin(distribution: str, value: str, how: str) -> None:
    from harness.errors import PluginError
    from harness.records import PluginRef

    ref = PluginRef(name="loss", value=value, distribution=distribution, version="1" if distribution[0] == "t" else "")
    with pytest.raises(PluginError) as error:
        load([]).for_run([ref]).task("toy-loss")
    assert f"plugin 'loss' {how}" in str(error.value)


@pytest.mark.parametrize("distribution", ["harness", "ml-harness"])
def test_hint_for_a_built_in_plugin_never_names_a_foreign_distribution(distribution: str) -> None:
    """Older records name the distribution ``harness``, which is another project on PyPI."""
    from harness.errors import PluginError
    from harness.records import PluginRef

    ref = PluginRef(name="loss", value="harness_loss", distribution=distribution, version="0.1.0")
    with pytest.raises(PluginError) as error:
        load([]).for_run([ref]).task("toy-loss")
    assert "remove it from HARNESS_DISABLE_PLUGINS, or install it again: pip install " in str(error.value)
    assert not re.search(r"pip install harness\b", str(error.value))


def test_error_states_that_another_version_of_the_plugin_is_loaded(toy: Any) -> None:
    from toy_plugin import TOY_REF

    from harness.errors import PluginError

    older = msgspec.structs.replace(TOY_REF, version="0.9")
    with pytest.raises(PluginError, match=r"plugin 'toy' is from harness-toy 1.0, but the run used harness-toy 0.9"):
        load([TOY_REF]).for_run([older]).task("toy-gone")
