"""Tests of predictions: those of a run's test split, and those for new data."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from command_line import harness_cli
from own_files import houses, photos, reviews, write_csv, write_image, write_jsonl, write_sound
from toy_plugin import SET_FAST, install_toy

import harness
from harness.api.stored_run import readable
from harness.cli.predict import predict as predict_command
from harness.cli.run import run as run_command
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.problems import Problems
from harness.data.user_files.tables import read_table
from harness.deploy.predict import predict, read_new, stored_preprocessing, transformed
from harness.deploy.predictions import table as predictions_table
from harness.errors import CombinationError, DataError, RecordError, UnknownNameError, UsageError
from harness.execute.preparation import load_and_prepare
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import Preprocessing, Success
from harness.records.samples import stored as stored_arrays
from harness.records.store import PREPROCESSING, WEIGHTS, Store, StoredRun

pytestmark = pytest.mark.usefixtures("toy")
TEST = [number for number in range(60) if number % 4 == 0]


def sold_houses(count: int = 60) -> dict[str, list[Any]]:
    """Return houses with a date, a price with a unit, and every fourth row in the test split."""
    columns = houses(count)
    columns["sold"] = [f"2021-{1 + n % 12:02d}-{1 + n % 28:02d}" for n in range(count)]
    columns["tax"] = [f"{n % 7 + 1} kg" for n in range(count)]
    columns["split"] = ["test" if number in TEST else "train" for number in range(count)]
    return columns


def rows_of(columns: dict[str, list[Any]], numbers: list[int], *without: str) -> dict[str, list[Any]]:
    return {name: [cells[n] for n in numbers] for name, cells in columns.items() if name not in without}


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    """Return a catalog with the built-in tasks and the toy backend, which needs no framework."""
    return discover()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results directory with a run on a table, whose weights were saved."""
    folder = tmp_path_factory.mktemp("predicted")
    write_csv(folder / "houses.csv", sold_houses())
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        data = ("--dataset", str(folder / "houses.csv"), "--target-column", "price")
        settings = ("--set", 'dataset.date_columns=["sold"]', "--set", "recipe.optimizer=sgd")
        chosen = ("--task", "regression", "--model", "toy-linear", "--backend", "toy-numpy", *SET_FAST)
        harness_cli("run", *chosen, *data, *settings, "-q", "--save-weights", results=folder / "results")
    return folder / "results"


@pytest.fixture
def run(results: Path) -> StoredRun:
    (stored,) = Store(results).load().runs
    return stored


def prepared(
    path: Path, task: str, catalog: Catalog, options: dict[str, Any]
) -> tuple[Preprocessing, harness.PreparedData]:
    """Prepare the user's data, and return the preprocessing that a run would store, read back from JSON."""
    chosen = catalog.task(task)
    dataset = UserDataset(path, chosen.kind, chosen.objective)
    settled = msgspec.to_builtins(dataset.settle(msgspec.convert(options, dataset.Options))[0])
    _, data = load_and_prepare(chosen, dataset, settled, {})
    preprocessing = Preprocessing(
        task=task,
        input_kind=chosen.kind,
        task_options={},
        dataset_options=settled,
        info=data.info,
        fitted=dict(data.fitted),
        reading=dict(data.reading),
    )
    return msgspec.json.decode(msgspec.json.encode(preprocessing), type=Preprocessing), data


def assert_same_inputs(data: harness.PreparedData, found: dict[str, Any]) -> None:
    assert found.keys() == data.test.inputs.keys()
    for name, array in data.test.inputs.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


# ---- predictions of the test split -------------------------------------------------------------------------


def test_predictions_contain_rows_and_values_in_the_unit_of_the_target(run: StoredRun, results: Path) -> None:
    text = harness_cli("predictions", run.record.run_id, results=results).stdout
    table = pd.read_csv(io.StringIO(text))
    assert table.row.tolist() == [number + 1 for number in TEST]
    np.testing.assert_allclose(table.price, [sold_houses()["price"][n] for n in TEST], rtol=1e-6)
    info, arrays = run.record.provenance.data, stored_arrays(run)
    assert info is not None
    np.testing.assert_allclose(table.predicted_price, info.in_target_unit(arrays["test_outputs"])[:, 0])


def test_predictions_of_classes_contain_labels_and_probabilities(tmp_path: Path) -> None:
    chosen = ("--task", "toy-classify", "--backend", "toy-numpy", *SET_FAST)
    harness_cli("run", *chosen, "-q", results=tmp_path)
    (run,) = harness.load(tmp_path).runs
    table = run.predictions()
    assert table.columns.tolist() == [
        "row",
        "label",
        "predicted",
        *(f"probability_{c}" for c in ("red", "green", "blue")),
    ]
    assert table.row.tolist() == list(range(1, 41))
    shares = table.iloc[:, 3:].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    logits = run.arrays()["test_outputs"].astype(float)
    np.testing.assert_allclose(np.log(shares[:, 1:] / shares[:, :1]), logits[:, 1:] - logits[:, :1], atol=1e-9)
    assert (table.label == table.predicted).mean() == run.record.outcome.scores.test["accuracy"]  # type: ignore[union-attr]
    file = tmp_path / "table.parquet"
    harness_cli("predictions", run.record.run_id, "--format", "parquet", "--output", str(file), results=tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(file), table)


def test_target_with_the_name_of_another_column_keeps_all_columns(tmp_path: Path, run: StoredRun) -> None:
    targets = ("row", "seed", "predicted_row", "true_row", "price")
    info = run.record.provenance.data
    assert info is not None
    info = msgspec.structs.replace(
        info, outputs=5, label_names=targets, target_mean=(0.0,) * 5, target_scale=(1.0,) * 5
    )
    outputs = np.arange(10, dtype=np.float32).reshape(2, 5)
    numbers = {name: [100.0 + place, 200.0 + place] for place, name in enumerate(targets)}
    found = predictions_table(info, outputs, np.array([7, 9]), numbers=numbers)
    true = ["true_true_row", "true_seed", "true_predicted_row", "true_row", "price"]
    assert found.columns.tolist() == ["row", *true, *(f"predicted_{name}" for name in targets)]
    assert found.row.tolist() == [7, 9]
    assert found[true].to_numpy().tolist() == np.array(list(numbers.values())).T.tolist()
    assert found.iloc[:, 6:].to_numpy().tolist() == outputs.tolist()


# ---- new data ----------------------------------------------------------------------------------------------


def test_new_data_equal_to_the_test_split_are_predicted_bit_for_bit(
    run: StoredRun, catalog: Catalog, tmp_path: Path
) -> None:
    unlabeled = write_csv(tmp_path / "new.csv", rows_of(sold_houses(), TEST, "price", "split"))
    found = predict(run, unlabeled, catalog)
    np.testing.assert_array_equal(found.outputs, stored_arrays(run)["test_outputs"], strict=True)
    assert found.table.columns.tolist() == ["row", "predicted_price"]


def test_run_predicts_a_data_frame_and_keeps_its_index(results: Path) -> None:
    frame = pd.DataFrame(rows_of(sold_houses(), TEST, "split")).replace("", None)
    frame["area"] = frame["area"].astype(float)
    frame.index = pd.Index([f"house {number}" for number in TEST])
    (run,) = harness.load(results).runs
    table = run.predict(frame)
    assert table.index.tolist() == frame.index.tolist()
    assert table.price.tolist() == frame.price.tolist()
    np.testing.assert_array_equal(table.predicted_price, run.predictions().predicted_price)
    columns = {name: cells.tolist() for name, cells in frame.items()}
    np.testing.assert_array_equal(run.predict(columns).predicted_price, table.predicted_price)
    assert isinstance(run.record.outcome, Success)
    scores = run.record.outcome.scores.test
    assert table.attrs["scores"] == pytest.approx(scores, rel=1e-6)
    assert run.predict(frame.drop(columns="price")).attrs == {}


@pytest.mark.parametrize("is_file", [False, True])
def test_new_images_in_a_data_frame_have_their_positions(catalog: Catalog, tmp_path: Path, is_file: bool) -> None:
    preprocessing, _ = prepared(photos(tmp_path / "all"), "vision", catalog, {})
    images: list[Any] = [np.full((8, 8, 3), 10 * number, np.uint8) for number in range(4)]
    if is_file:
        images = [str(write_image(tmp_path / f"{number}.png", (8, 8), seed=number)) for number in range(4)]
    images[1] = None
    frame = pd.DataFrame({"path" if is_file else "image": images, "label": "cat"}, index=list("abcd"))
    with readable(frame) as (source, warnings):
        new = read_new(preprocessing, source, "skip")
    assert frame.index[new.positions].tolist() == ["a", "c", "d"]
    assert new.rows.tolist() == ([images[n] for n in (0, 2, 3)] if is_file else [f"00000{n}.ppm" for n in (1, 3, 4)])
    assert list(warnings) == []


def test_predict_prints_a_table_and_treats_bad_rows_as_in_training(results: Path, tmp_path: Path) -> None:
    columns = rows_of(sold_houses(), TEST[:4], "price", "split")
    columns["rooms"][1] = "many"
    file = write_csv(tmp_path / "new.csv", columns)
    done = harness_cli("predict", "toy-linear", str(file), results=results, status=1)
    assert "row 2 (line 3): mixed types: column 'rooms' contains 'many', which is not a number" in done.stderr
    done = harness_cli("predict", "toy-linear", str(file), "--on-bad-row", "skip", results=results)
    assert pd.read_csv(io.StringIO(done.stdout)).row.tolist() == [1, 3, 4]
    assert "scores of" not in done.stderr
    assert "1 bad row was skipped: row 2 (line 3)" in done.stderr


def test_kept_columns_follow_the_row_numbers(results: Path, catalog: Catalog, tmp_path: Path) -> None:
    columns = rows_of(sold_houses(), TEST[:4], "price", "split")
    columns = {"id": ["007", "=1", "", "9"], **columns}
    columns["rooms"][1] = "many"
    file = write_csv(tmp_path / "new.csv", columns)
    arguments = ("predict", "toy-linear", str(file), "--on-bad-row", "skip", "--keep")
    text = harness_cli(*arguments, "id,town", results=results).stdout
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    assert table.columns.tolist() == ["row", "id", "town", "predicted_price"]
    assert table["id"].tolist() == ["007", "", "9"]
    assert table["town"].tolist() == [columns["town"][n] for n in (0, 2, 3)]
    assert "unknown column 'ids'; did you mean 'id'" in harness_cli(*arguments, "ids", results=results, status=2).stderr
    (run,) = harness.load(results).runs
    with pytest.raises(UsageError, match="the table already has a column 'row'"):
        run.predict(pd.DataFrame({**sold_houses(), "row": 1}), keep=["row"])
    assert run.predict(pd.DataFrame(sold_houses()), keep="town").columns[1] == "town"


def test_examples_that_are_not_scored_are_reported_with_the_reason(
    run: StoredRun, catalog: Catalog, tmp_path: Path
) -> None:
    columns = rows_of(sold_houses(), TEST)
    columns["price"][:2] = ["", "cheap"]
    found = predict(run, write_csv(tmp_path / "new.csv", columns), catalog)
    assert found.scores is not None
    assert found.scores.examples == 13
    assert found.warnings == ("2 of 15 examples were not scored, because a target value is missing or is not a number",)


def test_output_that_cannot_be_written_is_refused_before_anything_is_computed(
    results: Path, run: StoredRun, tmp_path: Path
) -> None:
    new = write_csv(tmp_path / "new.csv", rows_of(sold_houses(), TEST))
    before = new.read_bytes()
    link = tmp_path / "link.csv"
    link.symlink_to(new)
    for data in (new, link):
        error = harness_cli("predict", run.record.run_id, data, "--output", new, results=results, status=2).stderr
        assert f"--output {new} would replace the data; write the predictions to another file" in error
    assert new.read_bytes() == before
    missing = tmp_path / "absent" / "table.csv"
    for arguments in (("predict", run.record.run_id, new), ("predictions", run.record.run_id)):
        error = harness_cli(*arguments, "--output", missing, results=results, status=2).stderr
        assert f"there is no folder '{missing.parent}'; create it, or change the path" in error


def test_new_table_without_a_column_names_it(run: StoredRun, catalog: Catalog, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "new.csv", rows_of(sold_houses(), TEST, "town"))
    with pytest.raises(UnknownNameError, match="unknown column 'town'"):
        predict(run, file, catalog)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        (WEIGHTS, None, UsageError, "--save-weights"),
        (PREPROCESSING, None, UsageError, "--save-weights"),
        (PREPROCESSING, "{", RecordError, "not valid"),
        (PREPROCESSING, '"version": 2', RecordError, "version 2 cannot be read"),
        (PREPROCESSING, ('"price"', '"rent"'), RecordError, "the file has changed since run"),
        (PREPROCESSING, ('"mean": [', '"mean": [ '), RecordError, "the file has changed since run"),
        (WEIGHTS, "changed", harness.HarnessError, "do not match the record of run"),
    ],
)
def test_missing_or_changed_file_is_an_error(
    run: StoredRun,
    catalog: Catalog,
    tmp_path: Path,
    name: str,
    content: str | tuple[str, str] | None,
    error: type,
    message: str,
) -> None:
    from harness.execute.weights import load, save

    copy = StoredRun(Path(shutil.copytree(run.path, tmp_path / run.path.name)), run.record)
    path = copy.path / name
    if content is None:
        path.unlink()
    elif content == "changed":
        save(path, {key: -array for key, array in load(path).items()})
    elif isinstance(content, tuple):
        assert content[0] in path.read_text()
        path.write_text(path.read_text().replace(*content))
    else:
        path.write_text(path.read_text().replace('"version": 1', content) if "version" in content else content)
    file = write_csv(tmp_path / "new.csv", rows_of(sold_houses(), TEST))
    with pytest.raises(error, match=message):
        predict(copy, file, catalog)


# ---- reading and preprocessing of each kind of data -------------------------------------------------------


def test_texts_are_prepared_like_the_test_split(catalog: Catalog, tmp_path: Path) -> None:
    columns = {**reviews(40), "split": ["test" if n % 4 == 0 else "train" for n in range(40)]}
    columns["review"] = [f"{text} naïve {number % 5}" for number, text in enumerate(columns["review"])]
    preprocessing, data = prepared(
        write_csv(tmp_path / "all.csv", columns), "nlp", catalog, {"text_column": "review", "target_column": "label"}
    )
    texts = columns["review"][::4]
    for file in (
        write_csv(tmp_path / "new.csv", {"review": texts}),
        write_jsonl(tmp_path / "new.jsonl", [{"review": text, "label": "neg"} for text in texts]),
    ):
        new = read_new(preprocessing, file)
        assert_same_inputs(data, transformed(preprocessing, new.inputs, catalog))
    assert new.labels == ["neg"] * len(texts)
    lines = tmp_path / "new.txt"
    lines.write_text("\n".join(text.replace("\n", " ") for text in texts) + "\n", encoding="utf-8")
    assert_same_inputs(data, transformed(preprocessing, read_new(preprocessing, lines).inputs, catalog))
    lines.write_text("good\n\nbad\n")
    with pytest.raises(DataError, match=r"row 2: the text in column 'text' is empty"):
        read_new(preprocessing, lines)
    assert read_new(preprocessing, lines, "skip").rows.tolist() == [1, 3]


def test_images_are_prepared_like_the_test_split(catalog: Catalog, tmp_path: Path) -> None:
    root = photos(tmp_path / "all" / "train")
    photos(tmp_path / "all" / "test", count=3)
    write_image(root / "cat" / "deep.png", (9, 9), seed=1)
    preprocessing, data = prepared(tmp_path / "all", "vision", catalog, {})
    new = read_new(preprocessing, tmp_path / "all" / "test")
    assert_same_inputs(data, transformed(preprocessing, new.inputs, catalog))
    assert new.rows.tolist() == [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(3)]
    assert new.labels == ["cat"] * 3 + ["dog"] * 3
    shutil.copy(tmp_path / "all" / "test" / "dog" / "1.png", tmp_path / "one.png")
    one = read_new(preprocessing, tmp_path / "one.png")
    np.testing.assert_array_equal(
        transformed(preprocessing, one.inputs, catalog)["pixel_values"][0], data.test.inputs["pixel_values"][4]
    )
    assert one.labels is None


def test_deep_images_are_scaled_with_the_range_of_the_training_images(catalog: Catalog, tmp_path: Path) -> None:
    from PIL import Image

    for split, count in (("train", 4), ("test", 2)):
        for label in ("a", "b"):
            for number in range(count):
                pixels = np.random.default_rng(number).integers(100, 4000, (8, 8)).astype(np.uint16)
                path = tmp_path / "all" / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    preprocessing, data = prepared(tmp_path / "all", "vision", catalog, {})
    new = read_new(preprocessing, tmp_path / "all" / "test")
    assert_same_inputs(data, transformed(preprocessing, new.inputs, catalog))


def test_recordings_are_prepared_like_the_test_split(catalog: Catalog, tmp_path: Path) -> None:
    for split, count in (("train", 5), ("test", 2)):
        for place, label in enumerate(("no", "yes")):
            for number in range(count):
                seed = 100 * place + number + 10 * len(split)
                write_sound(tmp_path / "all" / split / label / f"{number}.wav", 300 + 40 * number, 16000, seed=seed)
    preprocessing, data = prepared(tmp_path / "all", "speech", catalog, {})
    new = read_new(preprocessing, tmp_path / "all" / "test")
    assert_same_inputs(data, transformed(preprocessing, new.inputs, catalog))
    assert new.labels == ["no", "no", "yes", "yes"]


def test_columns_are_read_with_the_notation_of_the_training_data(catalog: Catalog, tmp_path: Path) -> None:
    columns = sold_houses()
    options = {"target_column": "price", "date_columns": ["sold"]}
    preprocessing, data = prepared(write_csv(tmp_path / "all.csv", columns), "regression", catalog, options)
    new = write_csv(tmp_path / "new.csv", rows_of(columns, TEST, "price"))
    assert_same_inputs(data, transformed(preprocessing, read_new(preprocessing, new).inputs, catalog))
    # A single row has too few cells to infer the notation, the kind of a column or the parts of a date.
    first = rows_of(columns, TEST[:1])
    for town in (first["town"][0], "Köln", ""):
        file = write_csv(tmp_path / "one.csv", {**first, "town": [town], "sold": ["2020-05-01"]})
        row = transformed(preprocessing, read_new(preprocessing, file).inputs, catalog)["features"]
        assert row.shape == (1, *preprocessing.info.inputs["features"].shape)


def test_values_that_do_not_occur_in_training_give_warnings(catalog: Catalog, tmp_path: Path) -> None:
    columns = sold_houses()
    columns["rooms"] = [str(3 + number % 4) for number in range(60)]
    columns["area"][1] = columns["area"][3] = ""
    options = {"target_column": "price", "date_columns": ["sold"]}
    preprocessing, _ = prepared(write_csv(tmp_path / "all.csv", columns), "regression", catalog, options)
    new = rows_of(columns, [1, 2, 3, 5, 6], "price")
    assert read_new(preprocessing, write_csv(tmp_path / "same.csv", new)).warnings == ()
    new["town"][1:4] = ["Gold", "", "Gold"]
    new["rooms"][0] = new["rooms"][1] = new["sold"][2] = ""
    new["town"][4], new["rooms"][4] = "Silver", "many"  # a bad row, which is skipped
    _, *warnings = read_new(preprocessing, write_csv(tmp_path / "new.csv", new), "skip").warnings
    assert warnings == [
        "column 'town': the categories of 2 new rows do not occur in the training split ('Gold'); they are "
        "encoded as all zeros",
        "column 'rooms': 2 new rows have no value, but all training rows have one",
        "column 'sold': 1 new row has no value, but all training rows have one",
    ]


@pytest.mark.parametrize(
    ("trained", "new", "warnings"),
    [
        (
            "2021-{:02d}-01T10:00:00+01:00",
            "2021-{:02d}-01T10:00:00Z",
            [
                "column 'sold': the dates of 5 new rows have a time zone (+0000) that does not occur in the training "
                "data (+0100); dates are not converted to another time zone"
            ],
        ),
        (
            "2021-{:02d}-01T10:00:00",
            "2021-{:02d}-01T10:00:00-05:00",
            [
                "column 'sold': the dates of 5 new rows have a time zone (-0500) that does not occur in the training "
                "data (none); dates are not converted to another time zone"
            ],
        ),
        (
            "2021-{:02d}-01",
            "2021-{:02d}-01T10:00:00",
            [
                "column 'sold': the time of day in 5 new rows is ignored, because the dates in the training data have "
                "none"
            ],
        ),
        ("2021-{:02d}-01T10:00:00+01:00", "2021-{:02d}-01T23:30:00+01:00", []),
        ("2021-{:02d}-01", "2021-{:02d}-01T00:00:00", []),
    ],
)
def test_dates_in_another_form_than_in_training_give_warnings(
    catalog: Catalog, tmp_path: Path, trained: str, new: str, warnings: list[str]
) -> None:
    columns = sold_houses()
    columns["sold"] = [trained.format(1 + number % 12) for number in range(60)]
    options = {"target_column": "price", "date_columns": ["sold"]}
    preprocessing, _ = prepared(write_csv(tmp_path / "all.csv", columns), "regression", catalog, options)
    rows = rows_of(columns, TEST[:5], "price") | {"sold": [new.format(1 + number) for number in range(5)]}
    found = read_new(preprocessing, write_csv(tmp_path / "new.csv", rows))
    assert list(found.warnings) == warnings


@pytest.mark.parametrize(
    ("trained", "new"),
    [
        (["1.0", "2.0", "3.0"], [1, 2, 3]),
        (["1", "2", "3"], [1.0, 2.0, 3.0]),
        (["1.50", "2.5", "3"], [1.5, 2.5, 3.0]),
        (["true", "FALSE", "other"], [True, False, "other"]),
    ],
)
def test_typed_categories_match_the_spelling_of_the_training_data(
    catalog: Catalog, tmp_path: Path, trained: list[str], new: list[Any]
) -> None:
    columns = sold_houses()
    columns["zone"] = [trained[number % 3] for number in range(60)]
    options = {"target_column": "price", "date_columns": ["sold"], "categorical_columns": ["zone"]}
    preprocessing, data = prepared(write_csv(tmp_path / "all.csv", columns), "regression", catalog, options)
    rows = rows_of(columns, TEST, "price") | {"zone": [new[number % 3] for number in TEST]}
    names = list(rows)
    objects = [dict(zip(names, cells, strict=True)) for cells in zip(*rows.values(), strict=True)]
    found = read_new(preprocessing, write_jsonl(tmp_path / "new.jsonl", objects))
    assert found.warnings == ()
    assert_same_inputs(data, transformed(preprocessing, found.inputs, catalog))


@pytest.mark.parametrize(
    ("trained", "new"),
    [
        (["True", "False"], [True, False]),
        (["1.0", "2.0"], [1, 2]),
        (["1", "2"], [1.0, 2.0]),
        (["1.50", "a"], [1.5, "a"]),
    ],
)
def test_typed_labels_match_the_spelling_of_the_training_data(
    catalog: Catalog, tmp_path: Path, trained: list[str], new: list[Any]
) -> None:
    columns = houses(60) | {"label": [trained[number % 2] for number in range(60)]}
    preprocessing, _ = prepared(
        write_csv(tmp_path / "all.csv", columns), "tabular", catalog, {"target_column": "label"}
    )
    rows = [{name: cells[n] for name, cells in columns.items()} | {"label": new[n % 2]} for n in range(4)]
    found = read_new(preprocessing, write_jsonl(tmp_path / "new.jsonl", rows))
    assert found.labels == trained * 2


def test_typed_category_with_several_spellings_is_not_guessed(catalog: Catalog, tmp_path: Path) -> None:
    columns = sold_houses()
    columns["zone"] = [["2.0", "2.00", "3"][number % 3] for number in range(60)]
    options = {"target_column": "price", "date_columns": ["sold"], "categorical_columns": ["zone"]}
    preprocessing, _ = prepared(write_csv(tmp_path / "all.csv", columns), "regression", catalog, options)
    row = {name: cells[0] for name, cells in rows_of(columns, [0], "price").items()} | {"zone": 2}
    (warning,) = read_new(preprocessing, write_jsonl(tmp_path / "new.jsonl", [row])).warnings
    assert warning.startswith("column 'zone': the categories of 1 new row do not occur in the training split ('2')")


def test_new_file_may_have_another_encoding(results: Path, run: StoredRun, tmp_path: Path) -> None:
    rows = rows_of(sold_houses(), TEST, "price")
    rows["town"] = ["Köln" if town == rows["town"][0] else town for town in rows["town"]]
    new = write_csv(tmp_path / "utf8.csv", rows)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(new.read_text().encode("windows-1252"))
    expected = harness_cli("predict", run.record.run_id, str(new), results=results).stdout
    assert "pass --encoding" in harness_cli("predict", run.record.run_id, str(latin), results=results, status=1).stderr
    chosen = ("--encoding", "windows-1252")
    assert harness_cli("predict", run.record.run_id, str(latin), *chosen, results=results).stdout == expected
    with pytest.raises(UsageError, match="encoding 'utf8-sig-x' is unknown"):
        harness.load(results).runs[0].predict(latin, encoding="utf8-sig-x")


def test_new_file_may_have_another_separator(results: Path, run: StoredRun, tmp_path: Path) -> None:
    new = write_csv(tmp_path / "new.csv", rows_of(sold_houses(), TEST, "price"))
    run_id, expected = run.record.run_id, harness_cli("predict", run.record.run_id, str(new), results=results).stdout
    frame = pd.read_csv(new, dtype=str, keep_default_na=False)
    joined = tmp_path / "joined.csv"
    # The header contains a semicolon and as many commas as the rows, so the separator is ambiguous.
    frame.assign(**{"a,b": "1,2"}).to_csv(joined, index=False, sep=";", quoting=3)
    refused = harness_cli("predict", run_id, str(joined), results=results, status=1).stderr
    assert "pass --separator (dataset.separator) with one of them" in refused
    chosen = ("--separator", ";")
    assert harness_cli("predict", run_id, str(joined), *chosen, results=results).stdout == expected
    pd.testing.assert_frame_equal(
        harness.load(results).runs[0].predict(joined, separator=";"), harness.load(results).runs[0].predict(new)
    )
    with pytest.raises(UsageError, match="separator must be a single character"):
        harness.load(results).runs[0].predict(joined, separator=";;")
    rows = write_jsonl(tmp_path / "new.jsonl", [{"rooms": 1}])
    for path, option in (
        (rows, ("--separator", ";")),
        (photos(tmp_path / "photos", 1), ("--separator", ";")),
        (tmp_path / "a.parquet", ("--encoding", "utf-8")),
        (tmp_path / "photos" / "cat" / "0.png", ("--encoding", "utf-8")),
    ):
        assert (
            f"remove {option[0]}"
            in harness_cli("predict", run_id, str(path), *option, results=results, status=2).stderr
        )


def test_missing_columns_are_named(results: Path, run: StoredRun, tmp_path: Path) -> None:
    rows = rows_of(sold_houses(), TEST, "price")
    for absent in ("town", "rooms"):
        del rows[absent]
        refused = harness_cli(
            "predict", run.record.run_id, str(write_csv(tmp_path / "n.csv", rows)), results=results, status=2
        ).stderr
        assert "in n.csv, which must contain the columns of the training data" in refused
    assert "; 2 columns of the training data are missing)" in refused


def test_empty_text_file_is_refused_as_such(catalog: Catalog, tmp_path: Path) -> None:
    preprocessing, _ = prepared(write_csv(tmp_path / "all.csv", reviews(40)), "nlp", catalog, {})
    (tmp_path / "new.txt").write_text(" \n\n")
    with pytest.raises(DataError, match=r"new\.txt: the file is empty"):
        read_new(preprocessing, tmp_path / "new.txt")


def test_option_that_messages_about_separators_name_exists_in_each_command(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("a;b\n1;2\n")
    with pytest.raises(DataError) as raised:
        read_table(path, Problems("new.csv", "error"), separator=",")
    assert "pass --separator ';' (dataset.separator)" in str(raised.value)
    for command in (predict_command, run_command):
        assert "--separator" in [form for parameter in command.params for form in parameter.opts]


def test_preprocessing_of_an_earlier_version_is_compared_with_the_record(run: StoredRun, tmp_path: Path) -> None:
    earlier = msgspec.structs.replace(run.record.provenance, preprocessing_digest=None)
    record = msgspec.structs.replace(run.record, provenance=earlier)
    copy = StoredRun(Path(shutil.copytree(run.path, tmp_path / run.path.name)), record)
    path = copy.path / PREPROCESSING
    assert stored_preprocessing(copy).info.label_names == ("price",)
    path.write_text(path.read_text().replace('"price"', '"rent"'))
    with pytest.raises(RecordError, match="the file has changed since run"):
        stored_preprocessing(copy)


def test_table_of_a_dataset_without_column_names_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    preprocessing, _ = prepared(
        write_csv(tmp_path / "all.csv", houses()), "regression", catalog, {"target_column": "price"}
    )
    unnamed = msgspec.structs.replace(preprocessing, reading={}, dataset_options={})
    with pytest.raises(CombinationError, match="does not name its columns"):
        read_new(unnamed, tmp_path / "all.csv")


def test_preprocessing_is_documented_json(run: StoredRun) -> None:
    stored = json.loads((run.path / PREPROCESSING).read_text())
    reference = (Path(__file__).parents[2] / "docs" / "reference" / "preprocessing.md").read_text()
    for name in (*stored, *stored["fitted"], *stored["reading"]):
        assert f"`{name}`" in reference
