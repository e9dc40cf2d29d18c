"""Folds and random splits of the user's data: tables, texts, images and recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_files import houses, photos, reviews, write_csv, write_sound

from harness import DataError, RawData, UsageError
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.splitting import folds_by_time, split_fold_by_time
from harness.plan.expand import expand
from harness.plan.rerun import selection as rerun
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import RunSpec

KINDS = {"text": "classification", "table": "regression", "image": "classification", "audio": "classification"}
MODEL: dict[str, Any] = {"tasks": ("regression",), "backends": ("toy-numpy",), "models": ("toy-linear",)}


def load_all(path: Path, kind: str, **options: Any) -> list[RawData]:
    """Return the data of every fold or random split, as loaded in the runs."""
    dataset = UserDataset(path, kind, KINDS[kind])  # type: ignore[arg-type]
    return [dataset.load(settled) for settled, *_ in dataset.settle_splits(dataset.Options(**options))]


def plan(catalog: Catalog, path: Path, *overrides: str, **selection: Any) -> tuple[RunSpec, ...]:
    chosen = {**MODEL, "datasets": (str(path),), **selection}
    return expand(Selection(**chosen, overrides=("dataset.target_column=price", *overrides)), catalog)


def rows_tested(splits: list[RawData]) -> list[Any]:
    return sorted(np.concatenate([data.test.rows for data in splits]).tolist())


def check_apart(data: RawData) -> None:
    rows = [set(part.rows.tolist()) for part in (data.train, data.validation, data.test)]
    assert all(rows)
    assert sum(map(len, rows)) == len(set().union(*rows))


# ---- kinds of data ----------------------------------------------------------------------------------------


def test_folds_of_a_table_test_every_row_once(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "rooms": list(range(40))})
    splits = load_all(path, "table", folds=4, target_column="price")
    assert rows_tested(splits) == list(range(1, 41))
    assert [len(data.test) for data in splits] == [10, 10, 10, 10]
    assert [len(data.validation) for data in splits] == [3, 3, 3, 3]
    assert splits[1].details["splits"] == "fold 2 of 4 drawn at random; validation drawn at random, seed 0"
    assert splits[1].details["fold_rows"] == "10, 10, 10, 10"
    for data in splits:
        check_apart(data)


def test_folds_of_texts_keep_duplicates_in_one_fold(tmp_path: Path) -> None:
    columns = reviews(40)
    columns["review"][1::4] = [text.upper() + " " for text in columns["review"][3::4]]
    splits = load_all(write_csv(tmp_path / "t.csv", columns), "text", folds=5)
    assert rows_tested(splits) == list(range(1, 41))
    for data in splits:
        check_apart(data)
        words = [set(map(str.upper, map(str.strip, part.inputs["text"]))) for part in (data.train, data.test)]
        assert not words[0] & words[1]
    assert splits[0].details["splits"] == (
        "fold 1 of 5 drawn at random by class, duplicates kept in one fold; validation drawn at random by class, "
        "duplicates kept in one split, seed 0"
    )


def test_folds_of_images_keep_decoded_duplicates_in_one_fold(tmp_path: Path) -> None:
    from PIL import Image

    root = photos(tmp_path / "photos", 9)
    for label in ("cat", "dog"):
        for number in range(3):
            Image.open(root / label / f"{number}.png").save(root / label / f"copy {number}.bmp")
    splits = load_all(root, "image", folds=3)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    assert rows_tested(splits) == names
    for data in splits:
        check_apart(data)
        copied = {row for row in data.test.rows.tolist() if row.endswith(("/0.png", "/1.png", "/2.png"))}
        assert {
            row.replace("copy ", "").replace("bmp", "png") for row in data.test.rows.tolist() if "copy" in row
        } == copied


def test_folds_of_recordings_keep_groups_in_one_fold(tmp_path: Path) -> None:
    speakers = [f"s{number % 6}" for number in range(24)]
    for number in range(24):
        write_sound(tmp_path / f"{number}.wav", seed=number)
    columns = {"path": [f"{n}.wav" for n in range(24)], "label": ["a", "b", "b", "a"] * 6, "speaker": speakers}
    write_csv(tmp_path / "metadata.csv", columns)
    splits = load_all(tmp_path, "audio", folds=3, group_column="speaker")
    assert len(rows_tested(splits)) == 24
    for data in splits:
        owners = [set(part.groups["speaker"].tolist()) for part in (data.train, data.validation, data.test)]
        assert sum(map(len, owners)) == 6
    assert splits[0].details["splits"] == (
        "fold 1 of 3 drawn at random by group and class; validation drawn at random by group, seed 0"
    )


# ---- fold columns and random splits -----------------------------------------------------------------------


def with_folds(**changes: Any) -> dict[str, Any]:
    return {**houses(), "rooms": list(range(40)), "fold": [f"{number % 4 + 8}" for number in range(40)], **changes}


def test_fold_column_defines_the_folds_in_the_order_of_its_values(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", with_folds())
    splits = load_all(path, "table", fold_column="fold", target_column="price")
    assert [data.test.rows.tolist() for data in splits] == [list(range(1 + n, 41, 4)) for n in range(4)]
    assert splits[2].details["splits"] == ("fold 3 of 4 (column 'fold': '10'); validation drawn at random, seed 0")
    assert splits[0].feature_names == ("rooms", "area")


def test_fold_without_a_class_is_reported_and_class_in_one_fold_is_refused(tmp_path: Path) -> None:
    columns = {**reviews(40), "part": ["a"] * 10 + ["b"] * 15 + ["c"] * 15}
    columns["label"][:10] = ["pos"] * 10
    (data, *_) = load_all(write_csv(tmp_path / "t.csv", columns), "text", fold_column="part")
    assert "class 'neg' (15 rows) has no test examples in fold 1 ('a')" in data.warnings
    assert data.details["test_lacks_classes"] == "neg"
    columns["label"] = ["new" if part == "c" else "pos" for part in columns["part"]]
    columns["label"][0] = "neg"
    with pytest.raises(
        DataError, match=r"t\.csv: fold 1/3: the test split has examples of 'neg', but the training split has none"
    ):
        load_all(write_csv(tmp_path / "t.csv", columns), "text", fold_column="part")


def test_random_splits_are_those_of_consecutive_seeds(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", houses())
    splits = load_all(path, "table", random_splits=3, split_seed=4, target_column="price")
    single = [load_all(path, "table", split_seed=seed, target_column="price")[0] for seed in (4, 5, 6)]
    assert [data.test.rows.tolist() for data in splits] == [data.test.rows.tolist() for data in single]
    assert str(splits[1].details["splits"]) == f"random split 2 of 3: {single[1].details['splits']}"


# ---- plans ------------------------------------------------------------------------------------------------


def test_every_fold_is_a_run_with_its_own_key(catalog: Catalog, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", with_folds())
    specs = plan(catalog, path, "dataset.folds=4")
    assert [(spec.split, spec.split_count, spec.split_title) for spec in specs] == [
        (number, 4, f"fold {number}/4") for number in (1, 2, 3, 4)
    ]
    assert len({spec.key for spec in specs}) == 4
    assert len({spec.group_key for spec in specs}) == 1
    assert plan(catalog, path, "dataset.folds=4", splits=(3, 1)) == (specs[2], specs[0])
    assert plan(catalog, path, "dataset.folds=4", "dataset.split=2") == (specs[1],)
    assert plan(catalog, path, "dataset.folds=4", splits="all") == specs
    given = plan(catalog, path, "dataset.fold_column=fold")
    assert [spec.dataset_options["folds"] for spec in given] == [4, 4, 4, 4]
    assert given[0].group_key != specs[0].group_key
    for spec in (specs[2], given[1]):
        assert [again.key for again in expand(rerun(spec, catalog), catalog)] == [spec.key]
    swept = plan(catalog, path, "dataset.folds=2,3")
    assert sorted((spec.split_count, spec.split) for spec in swept) == [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3)]


def test_options_without_folds_do_not_change_the_key(catalog: Catalog, tmp_path: Path) -> None:
    (spec,) = plan(catalog, write_csv(tmp_path / "t.csv", houses()))
    added = ("folds", "fold_column", "random_splits", "split")
    options = {name: value for name, value in spec.dataset_options.items() if name not in added}
    assert set(added) < set(spec.dataset_options)
    assert msgspec.structs.replace(spec, dataset_options=options).key == spec.key


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("split=2",), "split selects one of several folds or random splits"),
        (("random_splits=4", "time_column=rooms"), "random_splits cannot be combined with time_column"),
        (("fold_column=fold", "time_column=rooms"), "fold_column cannot be combined with time_column"),
        (("folds=4", "time_column=rooms", "group_column=owner"), "time_column cannot be combined with split_column or"),
        (("folds=60", "time_column=rooms"), "60 folds by time need at least 62 different times, but there are"),
        (("fold_column=fold", "split_column=part"), "fold_column cannot be combined with split_column"),
        (("fold_column=fold", "random_splits=4"), "fold_column and random_splits cannot be combined"),
        (("fold_column=fold", "folds=3"), r"'fold' of t\.csv has 4 different values, but dataset\.folds is 3"),
        (("fold_column=fold", "split=5"), r"unknown split 5; the 4 folds in column 'fold' of t\.csv"),
        (("fold_column=town",), r"t\.csv: 1 bad row: row 6 \(line 7\): the fold in column 'town' is missing"),
        (("fold_column=part",), r"column 'part' of t\.csv contains the names of splits; pass --split-column"),
        (("fold_column=same",), "column 'same' of t.csv has 1 different values, but there must be between 2 and 100"),
        (("fold_column=nofold",), "unknown column 'nofold'"),
        (("fold_column=fold", "group_column=owner"), "group 'o0' is in several folds of column 'fold'"),
        (("folds=0",), "folds must be between 2 and 100, got 0"),
        (("folds=4", "test_share=0.3"), "test_share has no effect with folds, because each fold is a test split"),
        (("fold_column=fold", "test_share=0.3"), "test_share has no effect with fold_column"),
        (("folds=50",), "38 distinct rows cannot be divided into 50 folds; use fewer folds"),
        (("random_splits=3", "split_seed=4294967295"), "split_seed plus the number of random splits"),
        (("folds=4", "group_column=two"), "2 groups cannot be divided into 4 folds"),
    ],
)
def test_folds_that_cannot_be_used_are_refused(
    catalog: Catalog, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    columns = with_folds(
        part=["train", "test"] * 20,
        same=["x"] * 40,
        owner=[f"o{number // 2}" for number in range(40)],
        two=["x", "y"] * 20,
    )
    columns["rooms"][1:3] = columns["rooms"][3:5]
    columns["area"][1:3] = columns["area"][3:5]
    columns["town"][1:3] = columns["town"][3:5]
    path = write_csv(tmp_path / "t.csv", columns)
    features = 'dataset.feature_columns=["area"]' if "rooms" in str(overrides) else 'dataset.feature_columns=["rooms"]'
    with pytest.raises(UsageError, match=message):
        plan(catalog, path, features, *(f"dataset.{text}" for text in overrides))


def test_settle_splits_keeps_one_copy_of_the_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", with_folds())
    dataset = UserDataset(path, "table", "regression")
    settled = dataset.settle_splits(dataset.Options(folds=4, target_column="price", weight_column="fold"))
    divided = [rows for _, _, rows in settled if rows is not None]
    assert len(divided) == 4
    assert all(rows.everything is divided[0].everything for rows in divided)
    for rows, (options, *_) in zip(divided, settled, strict=True):
        planned, loaded = rows.raw(), dataset.load(options)
        assert planned.warnings == loaded.warnings
        for one, other in ((planned.train, loaded.train), (planned.test, loaded.test)):
            np.testing.assert_array_equal(one.inputs["features"], other.inputs["features"])
            np.testing.assert_array_equal(one.targets, other.targets)
            np.testing.assert_array_equal(one.weights, other.weights)


@pytest.mark.parametrize("splits", [(5,), (0,)])
def test_unknown_fold_is_refused(catalog: Catalog, tmp_path: Path, splits: tuple[int, ...]) -> None:
    path = write_csv(tmp_path / "t.csv", houses())
    with pytest.raises(UsageError, match=f"unknown split {splits[0]}; the 4 folds are numbered from 1 to 4"):
        plan(catalog, path, "dataset.folds=4", splits=splits)


def test_folds_of_data_with_given_splits_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "split": ["train", "test"] * 20})
    with pytest.raises(UsageError, match=r"t\.csv: the splits are defined by column 'split', so folds or random"):
        plan(catalog, path, "dataset.folds=4")
    for name in ("train", "test"):
        photos(tmp_path / "photos" / name, 2)
    with pytest.raises(UsageError, match="the splits are defined by the folders"):
        load_all(tmp_path / "photos", "image", random_splits=2)


@pytest.mark.parametrize(("count", "rows"), [(3, 40), (5, 40), (2, 37)])
def test_folds_by_time_equal_those_of_scikit_learn(count: int, rows: int, tmp_path: Path) -> None:
    from sklearn.model_selection import TimeSeriesSplit

    order = np.random.default_rng(0).permutation(rows)
    columns = {"day": order.tolist(), "area": np.sqrt(order + 2).tolist(), "price": (order % 7).tolist()}
    path = write_csv(tmp_path / "t.csv", columns)
    splits = load_all(path, "table", folds=count, time_column="day", target_column="price")
    by_time = np.argsort(order) + 1
    for data, (earlier, tested) in zip(splits, TimeSeriesSplit(count).split(by_time), strict=True):
        trained = np.concatenate([data.train.rows, data.validation.rows])
        assert set(trained.tolist()) == set(by_time[earlier].tolist())
        assert set(data.test.rows.tolist()) == set(by_time[tested].tolist())
        assert len(data.validation) == pytest.approx(0.1 * len(earlier), abs=0.5)
        assert order[data.train.rows - 1].max() < order[data.validation.rows - 1].min()
    assert splits[0].details["splits"] == (
        f"fold 1 of {count} by time, trained on all earlier rows; validation rows precede test rows"
    )


@given(
    st.lists(st.integers(0, 30), min_size=8, max_size=120).filter(lambda times: len(set(times)) >= 8),
    st.integers(2, 6),
    st.floats(0.01, 0.6),
)
def test_folds_by_time_keep_equal_times_together_and_in_order(times: list[int], count: int, share: float) -> None:
    moments = np.array(times, np.float64)
    folds = folds_by_time(moments, count)
    assert set(folds.tolist()) == set(range(-1, count))
    for number in range(count):
        parts = split_fold_by_time(moments, folds, number, validation_share=share)
        train, validation, test = (moments[parts[name]] for name in ("train", "validation", "test"))
        assert train.max() < validation.min() <= validation.max() < test.min()
        later = moments[folds > number]
        assert not len(later) or test.max() < later.min()
        assert len(train) + len(validation) + len(test) + len(later) == len(moments)


def test_folds_by_time_are_runs_with_the_times_in_their_details(catalog: Catalog, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "day": [f"2021-01-{day:02}" for day in range(1, 21)] * 2})
    specs = plan(catalog, path, "dataset.folds=4", "dataset.time_column=day")
    assert [spec.split_title for spec in specs] == [f"fold {number}/4" for number in range(1, 5)]
    data = load_all(path, "table", folds=4, time_column="day", target_column="price")
    assert data[1].details["times"] == (
        "train 2021-01-01 to 2021-01-07, validation 2021-01-08 to 2021-01-08, test 2021-01-09 to 2021-01-12"
    )
    assert data[1].details["fold_rows"] == "8, 8, 8, 8"


def test_fold_by_time_with_an_uneven_validation_split_is_reported(tmp_path: Path) -> None:
    days = [1] * 2 + [2] * 18 + list(range(3, 43))
    columns = {"day": days, "area": np.sqrt(range(60)).tolist(), "price": (np.arange(60) % 7).tolist()}
    path = write_csv(tmp_path / "t.csv", columns)
    first, second = load_all(path, "table", folds=2, time_column="day", target_column="price")
    assert (
        "fold 1: rows with the same time are kept in one split, so the sizes of the splits differ considerably from "
        "the requested sizes: train 2, validation 18"
    ) in first.warnings
    assert not any("requested sizes" in warning for warning in second.warnings)


def test_fold_by_time_without_a_class_in_training_is_refused(tmp_path: Path) -> None:
    columns = {**reviews(), "day": list(range(30))}
    columns["label"] = ["good"] * 15 + ["bad", "good"] * 7 + ["bad"]
    with pytest.raises(DataError, match=r"fold \d/3: the test split has examples of 'bad', but the training split"):
        load_all(write_csv(tmp_path / "t.csv", columns), "text", folds=3, time_column="day", target_column="label")


def test_order_of_time_is_reported_for_folds(tmp_path: Path) -> None:
    columns = {**houses(), "date": [f"2021-01-{day:02}" for day in range(1, 29)] + ["2021-02-01"] * 12}
    path = write_csv(tmp_path / "t.csv", columns)
    options = {"target_column": "price", "feature_columns": ("area",)}
    (data, _) = load_all(path, "table", folds=2, **options)
    assert any("pass --time-column to split by time" in warning for warning in data.warnings)
    columns["fold"] = ["a", "b"] * 20
    (data, _) = load_all(write_csv(tmp_path / "given.csv", columns), "table", fold_column="fold", **options)
    assert not any("--time-column" in warning for warning in data.warnings)
    (data,) = load_all(path, "table", time_column="date", **options)
    assert data.details["times"] == (
        "train 2021-01-01 to 2021-01-27, validation 2021-01-28 to 2021-01-28, test 2021-02-01 to 2021-02-01"
    )
