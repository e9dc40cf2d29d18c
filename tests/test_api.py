"""Tests of the public names, their import, the hooks, and the functions `run` and `load`."""

from __future__ import annotations

import ast
import doctest
import functools
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from sample_records import record, success
from sample_store import write
from toy_plugin import FAST, install_toy

import harness
from harness.cli.root import cli
from harness.plugins import hookspecs, resolve
from harness.plugins.catalog import Catalog
from harness.records import RunRecord

runner = CliRunner()

HOOKS = {
    "harness_tasks": [],
    "harness_datasets": [],
    "harness_models": [],
    "harness_networks": [],
    "harness_backends": [],
    "harness_metrics": [],
    "harness_reporters": [],
    "harness_executors": [],
    "harness_trackers": [],
    "harness_run_started": ["spec", "attempt_id", "time_s"],
    "harness_steps_ended": ["spec", "steps", "attempt_id", "time_s"],
    "harness_epoch_ended": ["spec", "epoch", "attempt_id", "time_s"],
    "harness_run_finished": ["record", "directory", "attempt_id", "time_s"],
    "harness_attempt_lost": ["spec", "attempt_id", "time_s"],
}
"""All hooks with their arguments, which third-party plugins depend on."""


# ---- names ------------------------------------------------------------------------------------------------


def test_dir_lists_the_public_names() -> None:
    """The tests of the documentation check that the list is complete."""
    assert dir(harness) == harness.__all__ == sorted(harness.__all__)


def test_star_import_defines_every_public_name() -> None:
    namespace: dict[str, object] = {}
    exec("from harness import *", namespace)
    assert set(harness.__all__) <= set(namespace)


@pytest.mark.parametrize("name", harness.__all__)
def test_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(harness, name)
    if name not in ("__version__", "hookimpl"):
        assert value.__doc__


def test_stub_lists_the_public_names() -> None:
    """Type checkers parse the stub; `harness` itself reads it with a regular expression."""
    tree = ast.parse(Path(harness.__file__).with_suffix(".pyi").read_text())
    listed = {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert listed == set(harness.__all__) - {"__version__"}


def test_unknown_attribute_raises() -> None:
    with pytest.raises(AttributeError, match="module 'harness' has no attribute 'runn'"):
        _ = harness.runn  # type: ignore[attr-defined]


def modules_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_import_loads_no_other_module() -> None:
    heavy = {
        "numpy",
        "pandas",
        "scipy",
        "sklearn",
        "torch",
        "tensorflow",
        "keras",
        "msgspec",
        "pluggy",
        "click",
        "rich",
    }
    assert not heavy & modules_after("import harness")
    assert {name for name in modules_after("import harness") if name.startswith("harness")} <= {"harness"}


@pytest.mark.parametrize("name", sorted(set(harness.__all__) - {"__version__"}))
def test_importing_a_name_loads_no_slow_module(name: str, loaded_modules: dict[str, set[str]]) -> None:
    assert not {"numpy", "pandas", "scipy", "sklearn", "torch", "tensorflow", "keras"} & loaded_modules[name]


@pytest.fixture(scope="module")
def loaded_modules() -> dict[str, set[str]]:
    """Return the modules that are loaded after each public name was imported, in order and in one process."""
    code = """
import sys, harness
for name in harness.__all__:
    getattr(harness, name)
    print(name, *sys.modules)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {line.split()[0]: set(line.split()[1:]) for line in output.splitlines()}


def test_discovery_and_planning_load_no_slow_module(toy: Path) -> None:
    code = """
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover
expand(Selection(tasks=("toy-regress",), backends=("toy-numpy",)), discover())
"""
    assert not {"numpy", "pandas", "scipy", "sklearn", "torch", "tensorflow"} & modules_after(code)


# ---- hooks ------------------------------------------------------------------------------------------------


def test_hooks_have_the_documented_arguments() -> None:
    specified = {name: value for name, value in vars(hookspecs).items() if name.startswith("harness_")}
    assert {name: list(inspect.signature(hook).parameters) for name, hook in specified.items()} == HOOKS


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_documented_with_an_example_that_compiles(name: str) -> None:
    text = inspect.getdoc(getattr(hookspecs, name))
    assert text is not None
    (example,) = doctest.DocTestParser().get_examples(text)
    code = example.source
    assert code.startswith("@harness.hookimpl\ndef " + name + "(")
    module: dict[str, Any] = {"harness": harness}
    exec(compile(code, name, "exec"), module)
    assert hookspecs.GROUP + "_impl" in vars(module[name])
    assert set(inspect.signature(module[name]).parameters) <= set(HOOKS[name])


def test_plural_hooks_of_the_toy_are_called(catalog: Catalog) -> None:
    assert catalog.task("toy-regress").summary == "two numbers from a point"
    assert catalog.dataset("toy-numbers").license == "CC0-1.0"
    assert catalog.model("toy")[0].summary == "outputs = W x + b"
    assert catalog.network("toy", "toy-numpy") == harness.NetworkRef(
        model="toy", backend="toy-numpy", build="harness_toy:build"
    )
    assert catalog.backend("toy-numpy").packages == ("numpy", "harness-toy")
    assert resolve(catalog.metric("toy_share").function).__name__ == "share"
    assert resolve(catalog.reporter("toy-count").render).__name__ == "render"


def test_toy_implements_every_hook(catalog: Catalog) -> None:
    modules = [plugin.module for plugin in catalog.plugins]
    missing = {name for name in HOOKS if not any(hasattr(module, name) for module in modules)}
    # The tracker in tests/helpers/recording_tracker.py and `harness_tracking` implement these hooks.
    assert missing == {"harness_trackers", "harness_steps_ended", "harness_attempt_lost"}


# ---- keywords and options ---------------------------------------------------------------------------------

KEYWORDS = {
    "set": "overrides",
    "plugin": "plugins",
    "timeout": "timeout_s",
    "tracker": "trackers",
    "executor_option": "executor_options",
    "quiet": "progress",
}
"""Keywords of functions whose names differ from those of the options."""
ELSEWHERE = {
    "run": {"price_per_hour": "Results.table", "plot": "Results.plot"},
    "compare": {"format_": "Comparisons.to_frame", "fail_on": "", "allow_missing": ""},
    "tune": {"price_per_hour": "Results.table", "format_": "TuningResults.best", "lr_range": ""},
}
"""Options without a keyword, with the public name that has the same effect, or an empty string if there is none."""


@pytest.mark.parametrize("name", ELSEWHERE)
def test_function_has_a_keyword_for_every_option_of_its_command(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = {parameter.name or "" for parameter in command.params}
    assert set(ELSEWHERE[name]) <= options
    expected = {KEYWORDS.get(option, option) for option in options - set(ELSEWHERE[name])}
    assert set(inspect.signature(getattr(harness, name)).parameters) == expected
    for public in filter(None, ELSEWHERE[name].values()):
        assert functools.reduce(getattr, public.split("."), harness)


# ---- run and load -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[harness.Results, Path, list[str]]:
    """Return the results of two seeds under a working and a failing backend, their directory, and the events."""
    directory = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        patch.setenv("TOY_TRACKER", str(directory / "events"))
        results = harness.run(
            "toy-regress",
            ["toy-numpy", "toy-value-error"],
            seed=range(2),
            threads=1,
            overrides=FAST,
            results=directory / "results",
        )
    return results, directory / "results", (directory / "events").read_text().splitlines()


def test_run_returns_records_in_order(ran: tuple[harness.Results, Path, list[str]]) -> None:
    results, _, _ = ran
    assert [(record.spec.backend, record.spec.seed) for record in results] == [
        ("toy-numpy", 0),
        ("toy-value-error", 0),
        ("toy-value-error", 1),
        ("toy-numpy", 1),
    ]
    success, failure = harness.Success, harness.Failure
    assert [type(record.outcome) for record in results] == [success, failure, failure, success]
    assert isinstance(results[0], RunRecord)
    assert len(results) == 4
    assert results[-1] in results
    assert [record.spec.seed for record in results[2:]] == [1, 1]
    assert isinstance(results[1:], harness.Results)


def test_load_returns_the_same_records(
    ran: tuple[harness.Results, Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, directory, _ = ran
    loaded = harness.load(directory)
    assert list(loaded) == list(results)
    assert loaded.problems == ()
    monkeypatch.setenv("HARNESS_RESULTS", str(directory))
    assert list(harness.load()) == list(results)


def test_to_frame_has_a_row_per_backend(ran: tuple[harness.Results, Path, list[str]]) -> None:
    import pandas as pd

    frame = ran[0].to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame["backend"].tolist() == ["toy-numpy", "toy-value-error"]
    assert frame["model"].tolist() == ["toy-linear"] * 2


def test_repr_of_results_is_the_table(ran: tuple[harness.Results, Path, list[str]]) -> None:
    assert "toy-numpy" in repr(ran[0])
    assert repr(ran[0][:0]) == "no runs"


def test_html_of_results_is_the_table_and_escaped(ran: tuple[harness.Results, Path, list[str]]) -> None:
    results = ran[0]
    shown = results._repr_html_()
    assert shown.count("<table>") == 1
    assert "toy-numpy" in shown
    spec = msgspec.structs.replace(results[0].spec, dataset="<script>alert(1)</script>")
    harmful = harness.Results([msgspec.structs.replace(results[0], spec=spec)])
    assert "<script" not in harmful._repr_html_()
    assert results[:0]._repr_html_() == "<p>no runs</p>"
    assert results.runs[0]._repr_html_().startswith(f"<pre>{results[0].run_id}")


def test_filter_selects_by_fields_status_and_function(ran: tuple[harness.Results, Path, list[str]]) -> None:
    results = ran[0]
    assert list(results.filter(backend="toy-numpy")) == [results[0], results[3]]
    assert list(results.filter(status="failure", seed=1)) == [results[2]]
    assert list(results.filter(status=["success", "error"])) == list(results)
    assert list(results.filter(lambda record: record.spec.seed == 0, status="success")) == [results[0]]
    assert list(results.filter(backend="torch")) == []
    assert results.filter(backend="toy-numpy").runs[0].record == results[0]
    with pytest.raises(harness.UnknownNameError, match="unknown status 'sucess'; did you mean 'success'"):
        results.filter(status="sucess")


def test_compare_results_equals_the_command(
    ran: tuple[harness.Results, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_toy(monkeypatch)
    results = ran[0]
    found = harness.compare(results.filter(seed=0), results.filter(seed=1), "quality")
    assert len(found) == 1
    assert [comparison.verdict for comparison in found[0].comparisons] == ["inconclusive"]
    assert found.to_frame()["setting"].tolist() == [found[0].name]
    assert found.warnings[0].startswith("BASE: failed runs are excluded: toy-regress-")
    assert "<table><caption>toy-regress" in found._repr_html_()
    sides = [results.filter(seed=seed) for seed in (0, 1)]
    paths = [tmp_path / str(seed) for seed in (0, 1)]
    for runs, path in zip(sides, paths, strict=True):
        for run in runs.runs:
            shutil.copytree(run.path, path / run.path.name)
    command = runner.invoke(cli, ["compare", *map(str, paths), "--metric", "quality"])
    assert command.output.partition("\n\n")[2].rstrip() in repr(harness.compare(paths[0], sides[1], "quality"))
    with pytest.raises(harness.UsageError, match="no successful runs of BASE and NEW match; all runs of NEW failed"):
        harness.compare(results, results.filter(status="failure"))


def test_run_gives_access_to_its_files(ran: tuple[harness.Results, Path, list[str]]) -> None:
    run, failed = ran[0].runs[:2]
    assert "train_losses" in run.arrays()
    assert run.weights_path is None
    assert "ValueError" in failed.log


def test_plot_writes_a_file(ran: tuple[harness.Results, Path, list[str]], tmp_path: Path) -> None:
    path = ran[0].plot(tmp_path / "pareto.json")
    assert path.read_text().startswith("{")


def test_run_dry_run_prints_the_plan_and_starts_nothing(
    ran: tuple[harness.Results, Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install_toy(monkeypatch)
    planned = harness.run("toy-regress", "toy-numpy", seed=range(2), dry_run=True, results=tmp_path / "r")
    assert len(planned) == 0
    assert "2 runs planned; none was started" in capsys.readouterr().out
    assert not (tmp_path / "r").exists()


def test_run_suite_selects_the_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install_toy(monkeypatch)
    suite = tmp_path / "suite.toml"
    suite.write_text('[[run]]\ntask = "toy-regress"\nbackend = "toy-numpy"\nseed = [0, 1, 2]\n')
    harness.run(suite=suite, dry_run=True, results=tmp_path / "r")
    assert "3 runs planned" in capsys.readouterr().out
    with pytest.raises(harness.UsageError, match="the suite selects the runs; remove task, overrides"):
        harness.run("toy-regress", suite=suite, overrides={"recipe.epochs": 1}, results=tmp_path / "r")


def test_run_data_in_memory_is_recorded_and_can_be_predicted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pandas as pd

    install_toy(monkeypatch)
    frame = pd.DataFrame({"x": [n % 7 for n in range(60)], "y": [n % 5 for n in range(60)]})
    frame["price"] = 2.0 * frame.x - frame.y
    results = harness.run(
        "regression",
        "toy-numpy",
        dataset=frame[1:],
        model="toy-linear",
        target_column="price",
        save_weights=True,
        threads=1,
        overrides=[*FAST, "recipe.optimizer=sgd"],
        results=tmp_path / "r",
    )
    (run,) = results.runs
    source = run.record.spec.source
    assert source is not None
    assert source.memory == "DataFrame"
    assert run.record.spec.dataset_options["target_column"] == ["price"]
    assert "the index of the DataFrame (integers without a name) was ignored" in capsys.readouterr().err
    assert run.weights_path is not None
    predicted = run.predict(frame[["x", "y"]])
    assert len(predicted) == 60


def test_events_are_called_in_order(ran: tuple[harness.Results, Path, list[str]]) -> None:
    results, _, events = ran
    one_seed = [
        ["started toy-numpy", "epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3", f"finished {results[0].run_id}"],
        ["started toy-value-error", f"finished {results[1].run_id}"],
    ]
    assert events[:7] == [*one_seed[0], *one_seed[1]]
    assert len(events) == 14


def test_load_lists_problems(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "record.json").write_text("{")
    loaded = harness.load(tmp_path)
    assert list(loaded) == []
    assert loaded.problems[0].startswith(str(tmp_path / "damaged" / "record.json"))


def test_load_without_directory_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(harness.UsageError, match="this results directory does not exist"):
            harness.load(path)


def test_run_wrong_request_starts_nothing(toy: Path, tmp_path: Path) -> None:
    for arguments in (
        {"task": "toy-regres"},
        {"task": "toy-regress", "backend": "toy-absent"},
        {"task": "toy-regress", "backend": "toy-numpy", "overrides": ["recipe.epoch=1"]},
        {"task": "toy-regress", "backend": "toy-numpy", "overrides": {"recipe.epoch": 1}},
        {"task": "toy-regress", "backend": "toy-numpy", "timeout_s": 0},
        {"task": "toy-regress", "backend": "toy-numpy", "timeout_s": float("inf")},
        {"task": []},
    ):
        with pytest.raises(harness.UsageError):
            harness.run(**arguments, results=tmp_path / "results")  # type: ignore[arg-type]
    assert not (tmp_path / "results").exists()


def test_run_accepts_overrides_as_a_mapping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_toy(monkeypatch)
    values = {text.partition("=")[0]: float(text.partition("=")[2]) for text in FAST} | {"recipe.schedule": "cosine"}
    values["protocol.latency_batches"] = 12
    (record,) = harness.run("toy-regress", "toy-numpy", threads=1, overrides=values, results=tmp_path)
    assert (record.spec.recipe.schedule, record.spec.protocol.window_s) == ("cosine", 0.005)


def test_run_loads_plugins_that_are_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_toy(monkeypatch)
    file = tmp_path / "more_points.py"
    file.write_text(
        """
import harness
from harness_toy import ToyRegression

class Again(ToyRegression):
    name = "again"

@harness.hookimpl
def harness_tasks():
    yield Again()
"""
    )
    (record,) = harness.run(
        "again", "toy-numpy", threads=1, overrides=FAST, results=tmp_path / "r", plugins=[str(file)]
    )
    assert isinstance(record.outcome, harness.Success)
    assert ("more_points", "file") in {(ref.name, ref.distribution) for ref in record.provenance.plugins}


def test_run_raises_for_a_passed_plugin_that_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_toy(monkeypatch)
    file = tmp_path / "broken.py"
    file.write_text("import no_such_module_anywhere\n")
    with pytest.raises(harness.PluginError, match=r"plugin 'broken' \(.*broken.py\) is not loaded: ModuleNotFound"):
        harness.run("toy-regress", "toy-numpy", plugins=iter([str(file)]), results=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_table_has_the_direction_of_a_metric_from_a_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_toy(monkeypatch)
    outcome = success()
    scores = msgspec.structs.replace(outcome.scores, primary="toy_share", test={"toy_share": 0.5}, intervals={})
    write(tmp_path, [record(msgspec.structs.replace(outcome, scores=scores))])
    results = harness.load(tmp_path)
    for shown in (results, results[:]):
        assert [row.text("metric_better") for row in shown.table().rows] == ["lower"]


def test_run_checks_the_time_limit_before_the_parity_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_toy(monkeypatch)
    monkeypatch.setattr("harness.checks.parity.check.marks_for", None)
    with pytest.raises(harness.UsageError, match="time limit must be a positive, finite number"):
        harness.run("toy-regress", "toy-numpy", parity=True, timeout_s=0, results=tmp_path / "r")
    assert not (tmp_path / "r").exists()
