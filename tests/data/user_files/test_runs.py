"""Complete runs on the user's files: from the command line, from Python, and reports after the file is deleted."""

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

OPTIONS = (*FAST, "recipe.optimizer=sgd", "recipe.epochs=2")
OVERRIDES = {
    **{name: msgspec.json.decode(value) for name, value in (setting.split("=") for setting in FAST)},
    "recipe.optimizer": "sgd",
    "recipe.epochs": 2,
    "dataset.target_column": "price",
}
MODEL = ("--model", "toy-linear", "--backend", "toy-numpy")


@pytest.fixture
def here(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty directory, with only the plugins in `catalog` installed."""
    monkeypatch.setattr("harness.plugins.discover", lambda *_: catalog)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> Result:
    from harness.cli.root import cli

    settings = [part for setting in OPTIONS for part in ("--set", setting)] if arguments[0] == "run" else []
    return CliRunner().invoke(cli, [*arguments, *settings], prog_name="harness")


def record_of(results: Path) -> RunRecord:
    (run,) = Store(results).load().runs
    return run.record


def test_run_on_a_file_is_reported_after_the_file_is_deleted(here: Path) -> None:
    columns: dict[str, Any] = {**houses(), "owner": [f"p{n // 2}" for n in range(40)]}
    columns["price"][3] = "?"
    path = write_csv(here / "my data" / "houses, old.csv", columns)
    column_options = ("--target-column", "price,rooms", "--group-column", "owner", "--on-bad-row", "skip")
    done = invoke("run", "--task", "regression", "--dataset", str(path), *MODEL, *column_options)
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
    assert details["skipped"] == "row 4 (line 5): target column 'price' has no value ('?')"
    assert details["splits"] == "validation and test drawn at random by group, duplicates kept in one split, seed 0"

    path.unlink()
    shown = invoke("show", record.run_id)
    assert shown.exit_code == 0
    for text in ("houses, old.csv", "inferred options", "feature_columns", "row 4 (line 5)"):
        assert text in shown.stdout
    assert "houses, old.csv" in invoke("report").stdout


def test_raised_epochs_are_printed_recorded_and_shown(
    here: Path, catalog: Catalog, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(here / "houses.csv", houses())
    settings = [part for setting in OPTIONS if "epochs" not in setting for part in ("--set", setting)]
    arguments = ("--task", "regression", "--dataset", str(path), "--target-column", "price", *MODEL, *settings)
    from harness.cli.root import cli

    done = CliRunner().invoke(cli, ["run", *arguments], prog_name="harness")
    assert done.exit_code == 0, done.output
    record = record_of(here / "results")
    assert isinstance(record.outcome, Success)
    assert record.spec.source is not None
    assert record.outcome.examples["train"] == record.spec.source.training_examples == 28
    (choice,) = record.spec.source.defaults
    assert choice.startswith(f"recipe.epochs of toy-linear was raised from 40 to {record.spec.recipe.epochs}, so that ")
    assert f"Note: houses.csv: {choice}\n" in done.stderr
    assert record.outcome.curves[-1].step >= catalog.task("regression").min_steps
    shown = " ".join(invoke("show", record.run_id).stdout.split())
    assert f"chosen by size {choice}" in shown

    quiet = CliRunner().invoke(cli, ["run", *arguments, "--dry-run", "--quiet"], prog_name="harness")
    assert "Note:" not in quiet.stderr
    overrides = {name: value for name, value in OVERRIDES.items() if "epochs" not in name}
    given: dict[str, Any] = {"dataset": path, "model": "toy-linear", "backend": "toy-numpy", "overrides": overrides}
    capfd.readouterr()
    (again,) = harness.run("regression", **given)
    assert again.spec.key == record.spec.key
    assert f"Note: houses.csv: {choice}\n" in capfd.readouterr().err


def test_harness_run_accepts_a_path(here: Path) -> None:
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
        (("--target-column", "prize"), "unknown column 'prize'; did you mean 'price'? (in t.csv)"),
        (
            ("--target-column", "town"),
            "t.csv: 40 bad rows: row 1 (line 2): target column 'town' contains 'Ulm', which is not a number",
        ),
        ((), "cannot infer the target column; specify --target-column (dataset.target_column); the columns are:"),
        (("--text-column", "town"), "unknown option 'dataset.text_column'"),
        (("--target-column", "price", "--set", "dataset.test_share=1.5"), "test_share must be between 0 and 1"),
    ],
)
def test_run_with_invalid_options_fails_before_anything_runs(
    here: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_csv(here / "t.csv", houses())
    done = invoke("run", "--task", "regression", "--dataset", "t.csv", *MODEL, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert not (here / "results").exists()


def test_run_on_a_deleted_file_fails_with_the_reason(here: Path, catalog: Catalog) -> None:
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
            overrides=(*OPTIONS, "dataset.target_column=price"),
        ),
        catalog,
    )
    path.unlink()
    (record,) = run_all([spec], catalog, Store(here / "results"))
    assert msgspec.to_builtins(record.outcome)["message"] == f"{path}: no such file or folder"


def test_prepare_data_text_file_is_prepared_by_the_task(here: Path, catalog: Catalog) -> None:
    from harness.execute.preparation import prepare_data
    from harness.plan.expand import expand
    from harness.plan.selection import Selection

    write_csv(here / "t.csv", reviews())
    # There is no toy model for tokens, but the preparation does not depend on the model.
    selection = Selection(tasks=("nlp",), datasets=("t.csv",), models=("lstm",))
    catalog.networks["lstm", "toy-numpy"] = catalog.networks["toy", "toy-numpy"]
    spec = expand(selection, catalog)[0]
    data = prepare_data(catalog, spec)
    assert data.info.label_names == ("neg", "pos")
    assert data.info.details["splits"] == "validation and test drawn at random by class, seed 0"
    assert {"vocab_size", "skipped_rows"} <= data.info.details.keys()


def test_run_scores_slice_columns_and_their_intersections_separately(here: Path) -> None:
    columns: dict[str, Any] = {**houses(), "side": ["left", "right", "right", ""] * 10}
    path = write_csv(here / "houses.csv", columns)
    column_options = ("--target-column", "price", "--slice-columns", "rooms,side,side*rooms")
    done = invoke("run", "--task", "regression", "--dataset", str(path), *MODEL, *column_options)
    assert done.exit_code == 0, done.output
    record = record_of(here / "results")
    assert isinstance(record.outcome, Success)
    slices = record.outcome.scores.slices
    assert {part.group for part in slices} == {"side", "rooms", "side*rooms"}
    assert {part.value for part in slices if part.group == "side"} <= {"left", "right", "missing"}
    for group in ("side", "rooms", "side*rooms"):
        parts = [part for part in slices if part.group == group]
        assert sum(part.support for part in parts) == record.outcome.examples["test"]
        squares = sum(part.support * (part.score or 0) ** 2 for part in parts)
        whole = record.outcome.scores.test["rmse"]
        assert whole is not None
        assert squares == pytest.approx(record.outcome.examples["test"] * whole**2, rel=1e-6)


@pytest.mark.parametrize("listed", [False, True])
def test_slice_columns_are_features_only_if_they_are_listed(here: Path, listed: bool) -> None:
    path = write_csv(here / "houses.csv", {**houses(), "side": ["left", "right", "right", ""] * 10})
    features = ("--feature-columns", "area,rooms") if listed else ()
    column_options = ("--target-column", "price", "--slice-columns", "side*rooms", *features)
    done = invoke("run", "--task", "regression", "--dataset", str(path), *MODEL, *column_options)
    assert done.exit_code == 0, done.output
    spec = record_of(here / "results").spec
    assert ("rooms" in spec.dataset_options["feature_columns"]) == listed
    assert "side" not in spec.dataset_options["feature_columns"]
    assert spec.source is not None
    unused = "'side'" if listed else "'rooms', 'side'"
    assert f"slice columns that are not features: {unused};" in done.output
    assert any(f"slice columns that are not features: {unused};" in warning for warning in spec.source.warnings)


@pytest.mark.parametrize(
    ("name", "message"), [("side*room", "did you mean 'rooms'"), ("side*side", "lists a column twice")]
)
def test_impossible_intersection_is_refused(here: Path, name: str, message: str) -> None:
    path = write_csv(here / "houses.csv", {**houses(), "side": ["left", "right"] * 20})
    done = invoke(
        *("run", "--task", "regression", "--dataset", str(path), *MODEL),
        *("--target-column", "price", "--slice-columns", name),
    )
    assert done.exit_code == 2
    assert message in done.output


def test_run_with_unknown_slice_column_is_refused(here: Path) -> None:
    path = write_csv(here / "houses.csv", houses())
    column_options = ("--target-column", "price", "--slice-columns", "room")
    done = invoke("run", "--task", "regression", "--dataset", str(path), *MODEL, *column_options)
    assert done.exit_code == 2
    assert "did you mean 'rooms'" in done.output


def test_run_with_encoding_and_time_column_records_how_the_data_were_read(here: Path) -> None:
    columns: dict[str, Any] = {**houses(), "year": [1980 + n for n in range(40)]}
    columns["town"] = ["Köln" if n % 2 else "Bonn" for n in range(40)]
    path = write_csv(here / "houses.csv", columns)
    path.write_bytes(path.read_text(encoding="utf-8").encode("windows-1252"))
    arguments = ("run", "--task", "regression", "--dataset", str(path), *MODEL, "--target-column", "price")
    refused = invoke(*arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "pass --encoding windows-1252 (dataset.encoding) if the bytes represent 'Köln'" in refused.stderr
    assert not (here / "results").exists()
    done = invoke(*arguments, "--encoding", "windows-1252", "--time-column", "year")
    assert done.exit_code == 0, done.output
    record = record_of(here / "results")
    assert record.provenance.data is not None
    assert record.provenance.data.details["splits"] == "by time, test last"
    assert record.spec.dataset_options["encoding"] == "windows-1252"
    assert record.spec.dataset_options["feature_columns"] == ["rooms", "area", "town"]


def test_run_stores_warnings_about_the_table_in_the_record(here: Path) -> None:
    columns: dict[str, Any] = {"id": range(40), **houses(), "flat": [1] * 40}
    path = write_csv(here / "houses.csv", columns)
    done = invoke("run", "--task", "regression", "--dataset", str(path), *MODEL, "--target-column", "price")
    assert done.exit_code == 0, done.output
    data = record_of(here / "results").provenance.data
    assert data is not None
    assert any("'id' seems to contain row numbers" in warning for warning in data.warnings)
    assert any("column 'flat'" in warning for warning in data.warnings)


def test_run_warnings_about_own_data_are_said_in_planning_and_once(here: Path) -> None:
    columns = houses()
    columns["area"] = [-999 if n % 5 == 0 else n * 1.5 for n in range(40)]
    path = write_csv(here / "t.csv", columns)
    arguments = ("run", "--task", "regression", "--dataset", str(path), *MODEL, "--target-column", "price")
    expected = "Warning: t.csv: column 'area': 8 cells are -999, far from all other values"
    planned = invoke(*arguments, "--dry-run")
    assert (planned.exit_code, planned.stderr.count(expected)) == (0, 1), planned.output
    assert expected not in invoke(*arguments, "--dry-run", "--quiet").output
    done = invoke(*arguments)
    assert (done.exit_code, done.stderr.count(expected)) == (0, 1), done.output
    assert done.stderr.index(expected) < done.stderr.index("[1/1]")
    record = record_of(here / "results")
    assert isinstance(record.outcome, Success)
    assert record.spec.source is not None
    assert record.provenance.data is not None
    assert set(record.spec.source.warnings) <= set(record.provenance.data.warnings)
    summary = invoke("data", "info", str(path), "--task", "regression", "--target-column", "price")
    assert all(" ".join(warning.split()[:5]) in summary.output for warning in record.spec.source.warnings)


def test_run_task_option_that_the_data_do_not_satisfy_is_refused_in_planning(here: Path) -> None:
    path = write_csv(here / "t.csv", houses())
    arguments = ("--dataset", str(path), "--target-column", "price", "--set", "task.missing=error")
    refused = invoke("run", "--task", "regression", *arguments, *MODEL, "--dry-run")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "missing or infinite numbers" in refused.stderr
    assert "column 'area'" in refused.stderr


def test_folds_are_averaged_in_one_row_and_predict_every_row_once(here: Path) -> None:
    columns: dict[str, Any] = {**houses(), "rooms": list(range(40))}
    path = write_csv(here / "houses.csv", columns)
    options = ("--task", "regression", "--dataset", str(path), *MODEL, "--target-column", "price", "--folds", "3")
    first = invoke("run", *options, "--split", "2")
    assert first.exit_code == 0, first.output
    assert "fold 2/3" in first.stderr
    (run,) = Store(here / "results").load().runs
    lacking = invoke("predictions", run.record.run_id, "--all-splits")
    assert (lacking.exit_code, "there is no successful run of fold 1, 3 of 3" in lacking.output) == (2, True)
    done = invoke("run", *options)
    assert done.exit_code == 0, done.output
    runs = Store(here / "results").load().runs
    assert sorted(str(run.record.spec.split_title) for run in runs) == ["fold 1/3", "fold 2/3", "fold 3/3"]
    assert "3 folds" in done.stdout
    joined = invoke("predictions", run.record.run_id, "--all-splits")
    lines = joined.stdout.splitlines()
    assert lines[0] == "row,split,seed,price,predicted_price"
    assert [line.split(",")[0] for line in lines[1:]] == [str(row) for row in range(1, 41)]
    named = invoke("predictions", *(run.record.run_id for run in runs))
    assert named.stdout == joined.stdout
    assert invoke("audit", str(run.path)).exit_code == 0


def test_predictions_of_runs_with_different_settings_are_refused(here: Path) -> None:
    path = write_csv(here / "houses.csv", houses())
    options = ("--task", "regression", "--dataset", str(path), *MODEL, "--target-column", "price")
    for more in ((), ("--set", "dataset.test_share=0.3")):
        assert invoke("run", *options, *more).exit_code == 0
    ids = [run.record.run_id for run in Store(here / "results").load().runs]
    refused = invoke("predictions", *ids)
    assert (refused.exit_code, "have different settings; pass runs that differ only in" in refused.output) == (2, True)
    single = invoke("predictions", ids[0], "--all-splits")
    assert (single.exit_code, "has no numbered split; remove --all-splits" in single.output) == (2, True)
