"""Whole runs on the user's own data: from the command line, from Python, and afterwards without the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from own_files import houses, reviews, write_csv
from toy_plugin import FAST

import harness
from harness.plugins.catalog import Catalog
from harness.records import RunRecord, Success
from harness.records.store import Store

SHORT = (*FAST, "recipe.optimizer=sgd", "recipe.epochs=2")
OVERRIDES = {
    **{name: msgspec.json.decode(value) for name, value in (setting.split("=") for setting in FAST)},
    "recipe.optimizer": "sgd",
    "recipe.epochs": 2,
    "dataset.target_column": "price",
}
MODEL = ("--model", "toy-linear", "--backend", "toy-numpy")


@pytest.fixture
def here(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to be in, with nothing installed but `catalog`."""
    monkeypatch.setattr("harness.plugins.discover", lambda *_: catalog)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> Result:
    from harness.cli.root import cli

    settings = [part for setting in SHORT for part in ("--set", setting)] if arguments[0] == "run" else []
    return CliRunner().invoke(cli, [*arguments, *settings], prog_name="harness")


def record_of(results: Path) -> RunRecord:
    (run,) = Store(results).load().runs
    return run.record


def test_a_file_is_run_and_told_of_when_it_is_gone(here: Path) -> None:
    columns: dict[str, Any] = {**houses(), "owner": [f"p{n // 2}" for n in range(40)]}
    columns["price"][3] = "?"
    path = write_csv(here / "my data" / "houses, old.csv", columns)
    columns_said = ("--target-column", "price,rooms", "--group-column", "owner", "--on-bad-row", "skip")
    done = invoke("run", "--task", "regression", "--dataset", str(path), *MODEL, *columns_said)
    assert done.exit_code == 0, done.output
    record = record_of(here / "results")
    assert isinstance(record.outcome, Success)
    assert sum(record.outcome.examples.values()) == 39
    assert (record.spec.dataset, record.spec.dataset_options["target_column"]) == (
        "houses, old.csv",
        ["price", "rooms"],
    )
    assert record.provenance.data is not None
    details = record.provenance.data.details
    assert details["skipped_rows"] == 1
    assert details["skipped"] == "row 4 (line 5): target 'price' is '?', not a number"
    assert details["splits"] == "validation and test drawn by group, seed 0"

    path.unlink()
    shown = invoke("show", record.run_id)
    assert shown.exit_code == 0
    for text in ("houses, old.csv", "inferred options", "feature_columns", "row 4 (line 5)"):
        assert text in shown.stdout
    assert "houses, old.csv" in invoke("report").stdout


def test_python_takes_paths_too(here: Path) -> None:
    Path("houses.csv").write_bytes(write_csv(here / "t.csv", houses()).read_bytes())
    (record,) = harness.run(
        task="regression",
        dataset=Path("houses.csv"),
        model="toy-linear",
        backend="toy-numpy",
        overrides=OVERRIDES,
    )
    assert isinstance(record.outcome, Success), record.outcome
    assert record.spec.source is not None
    assert record.spec.source.path == str(here / "houses.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target-column", "prize"), "unknown column 'prize'; did you mean 'price'? (of t.csv)"),
        (("--target-column", "town"), "t.csv: 40 bad rows: row 1 (line 2): target 'town' is 'Ulm', not a number"),
        ((), "cannot tell which column is the target column: give --target-column (dataset.target_column); columns:"),
        (("--text-column", "town"), "unknown option 'dataset.text_column'"),
        (("--target-column", "price", "--set", "dataset.test_share=1.5"), "test_share must lie between 0 and 1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(here: Path, arguments: tuple[str, ...], message: str) -> None:
    write_csv(here / "t.csv", houses())
    done = invoke("run", "--task", "regression", "--dataset", "t.csv", *MODEL, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert not (here / "results").exists()


def test_a_file_that_vanishes_is_a_failed_run_with_its_reason(here: Path, catalog: Catalog) -> None:
    from harness.execute.runner import run_all
    from harness.plan.expand import expand
    from harness.plan.selection import Selection

    path = write_csv(here / "t.csv", houses())
    (spec,) = expand(
        Selection(
            tasks=("regression",),
            datasets=("t.csv",),
            models=("toy-linear",),
            backends=("toy-numpy",),
            overrides=(*SHORT, "dataset.target_column=price"),
        ),
        catalog,
    )
    path.unlink()
    (record,) = run_all([spec], catalog, Store(here / "results"))
    assert msgspec.to_builtins(record.outcome)["message"] == f"{path}: there is no such file or folder"


def test_texts_reach_their_task(here: Path, catalog: Catalog) -> None:
    from harness.execute.preparation import prepare_data
    from harness.plan.expand import expand
    from harness.plan.selection import Selection

    write_csv(here / "t.csv", reviews())
    # No toy model takes tokens; preparation is the same for every model.
    selection = Selection(tasks=("nlp",), datasets=("t.csv",), models=("lstm",))
    catalog.networks["lstm", "toy-numpy"] = catalog.networks["toy", "toy-numpy"]
    spec = expand(selection, catalog)[0]
    data = prepare_data(catalog, spec)
    assert data.info.label_names == ("neg", "pos")
    assert data.info.details["splits"] == "validation and test drawn stratified, seed 0"
    assert {"vocab_size", "skipped_rows"} <= data.info.details.keys()


def test_columns_are_scored_by_themselves_and_stay_features(here: Path) -> None:
    columns: dict[str, Any] = {**houses(), "side": ["left", "right", "right", ""] * 10}
    path = write_csv(here / "houses.csv", columns)
    asked = ("--target-column", "price", "--slice-columns", "side,rooms")
    done = invoke("run", "--task", "regression", "--dataset", str(path), *MODEL, *asked)
    assert done.exit_code == 0, done.output
    record = record_of(here / "results")
    assert isinstance(record.outcome, Success)
    slices = record.outcome.scores.slices
    assert {part.group for part in slices} == {"side", "rooms"}
    assert {part.value for part in slices if part.group == "side"} <= {"left", "right", "missing"}
    for group in ("side", "rooms"):
        parts = [part for part in slices if part.group == group]
        assert sum(part.support for part in parts) == record.outcome.examples["test"]
        squares = sum(part.support * (part.score or 0) ** 2 for part in parts)
        whole = record.outcome.scores.test["rmse"]
        assert whole is not None
        assert squares == pytest.approx(record.outcome.examples["test"] * whole**2, rel=1e-6)
    assert "rooms" in record.spec.dataset_options["feature_columns"]


def test_an_unknown_slice_column_is_refused(here: Path) -> None:
    path = write_csv(here / "houses.csv", houses())
    asked = ("--target-column", "price", "--slice-columns", "room")
    done = invoke("run", "--task", "regression", "--dataset", str(path), *MODEL, *asked)
    assert done.exit_code == 2
    assert "did you mean 'rooms'" in done.output
