"""Tests of data in memory: conversion to columns, the saved files, and what is refused."""

from __future__ import annotations

import datetime
import decimal
import math
import string
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.memory import from_memory
from harness.data.user_files.memory_about import about
from harness.data.user_files.memory_files import located, save_data, write_data
from harness.data.user_files.options import AudioOptions, ImageOptions, TableOptions, TextOptions
from harness.data.user_files.problems import Problems
from harness.data.user_files.tables import read_table
from harness.errors import UsageError


class ListDataset:
    """A dataset with the interface of ``datasets.Dataset``, stored as lists."""

    def __init__(self, columns: dict[str, list[Any]], **features: Any) -> None:
        self._columns, self.features, self.column_names = columns, features, list(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, rows: slice) -> dict[str, list[Any]]:
        return {name: cells[rows] for name, cells in self._columns.items()}

    def with_format(self, kind: None) -> ListDataset:
        return self


def columns_of(data: Any) -> dict[str, list[Any]]:
    """Return the columns after they were saved and read again."""
    return read_table(save_data(data), Problems("data", "error")).columns


# ---- values -----------------------------------------------------------------------------------------------

NOON = datetime.datetime(2021, 3, 4, 12, 0, 0, 250000)
FRAME = {
    "int": (np.array([1, -(2**63), 2**63 - 1]), [1, -(2**63), 2**63 - 1]),
    "uint": (np.array([0, 1, 2**64 - 1], np.uint64), [0, 1, 2**64 - 1]),
    "float": ([0.1, math.nan, -0.0], [0.1, None, -0.0]),
    "half": (np.array([0.1, 1, math.inf], np.float16), [float(np.float16(0.1)), 1.0, math.inf]),
    "bool": ([True, False, True], [True, False, True]),
    "nullable int": (pd.array([1, None, 2**62 + 1], "Int64"), [1, None, 2**62 + 1]),
    "nullable bool": (pd.array([True, None, False], "boolean"), [True, None, False]),
    "nullable float": (pd.array([0.1, None, 2.0], "Float64"), [0.1, None, 2.0]),
    "string": (pd.array(["01", None, "NA"], "string"), ["01", None, "NA"]),
    "object": (np.array(["a", None, math.nan], object), ["a", None, None]),
    "mixed": (np.array([1, "1", True], object), [1, "1", True]),
    "missing": (np.array([pd.NA, pd.NaT, ""], object), [None, None, ""]),
    "big int": (np.array([2**80, -1, 0], object), [2**80, -1, 0]),
    "sparse": (pd.arrays.SparseArray([0, 0, 3]), [0, 0, 3]),
    "date": ([datetime.date(2021, 3, 4), None, datetime.date(999, 1, 1)], ["2021-03-04", None, "0999-01-01"]),
    "moment": (pd.DatetimeIndex([NOON, pd.NaT, NOON]), [NOON.isoformat(), None, NOON.isoformat()]),
    "zoned": (
        pd.to_datetime([NOON, NOON, NOON]).tz_localize("Europe/Berlin"),
        ["2021-03-04T12:00:00.250000+01:00"] * 3,
    ),
    "text": (np.array(["ß\u2028\x85\0", "\ud800", 'a"\\'], object), ["ß\u2028\x85\0", "\ud800", 'a"\\']),
}


@pytest.mark.parametrize("name", FRAME)
def test_save_data_frame_column_keeps_its_values(name: str) -> None:
    values, expected = FRAME[name]
    assert repr(columns_of(pd.DataFrame({name: values}, dtype=object if name == "text" else None))[name]) == repr(
        expected
    )


CELLS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters())


@given(st.dictionaries(st.text(string.printable, min_size=1).filter(str.strip), CELLS, min_size=1), st.data())
def test_save_data_rows_round_trip(tmp_path_factory: pytest.TempPathFactory, first: dict[str, Any], data: Any) -> None:
    columns = {name: [cell, *data.draw(st.lists(CELLS, min_size=2, max_size=2))] for name, cell in first.items()}
    path = write_data(from_memory(columns), tmp_path_factory.getbasetemp() / "memory")
    assert repr(read_table(path, Problems("data", "error")).columns) == repr(columns)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([decimal.Decimal("0.1")], r"contains Decimal\('0.1'\) \(Decimal\) in row 1; convert .*astype\(float\)"),
        (pd.to_timedelta([1], "s"), "Timedelta.*total_seconds"),
        (pd.period_range("2021", periods=1, freq="M"), "Period.*to_timestamp"),
        (pd.IntervalIndex.from_breaks([0, 1]), "Interval"),
        ([1j], "complex.*real numbers"),
        ([b"a"], "bytes.*decode"),
        ([["a", "b"]], r"contains \['a', 'b'\] \(list\) in row 1; convert"),
        ([{"a": 1}], "dict"),
        (pd.to_datetime(["2021-03-04T00:00:00.000000001"]), "more precise than microseconds"),
        (np.array([np.longdouble(1) / 3]), "longdouble"),
        (pd.Categorical(["a"], ordered=True), "ordered categorical.*as_unordered"),
    ],
)
def test_save_data_value_that_json_cannot_represent_is_refused(values: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s)column 'x'.*{message}"):
        save_data(pd.DataFrame({"x": values}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pd.DataFrame({0: [1]}), "column name 0, which is not a string.*map"),
        (pd.DataFrame({" ": [1]}), "is empty"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "several columns with the name 'a'"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "MultiIndex"),
        (pd.DataFrame({"a": [1]}, index=pd.Index([7], name="id")), r"index 'id' .* would be lost.*reset_index\(\)"),
        (pd.DataFrame({"a": [1]}, index=["x"]), "the index of the DataFrame would be lost"),
        (pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)])), "would be lost"),
        (pd.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame(index=[1, 2]), "no rows or no columns"),
        ({}, "no rows"),
        ({"a": [1], "b": [1, 2]}, "differ in length: 'a' has 1, 'b' has 2"),
        ({"a": "text"}, "column 'a' of the dict is str, not a list"),
        ({"a": 3}, "column 'a' of the dict is int"),
        ({"x": np.zeros((3, 2))}, r"'x' is an array of the shape \(3, 2\).*add_prefix"),
        ({"a": pd.Series([1]), "b": pd.Series([2], index=[5])}, "different indexes"),
        ({"train": {"a": [1]}, "tets": {"a": [1]}}, "'tets' is not the name of a split"),
        ({"train": {"a": [1]}, "test": {"b": [1]}}, "the columns of the split 'test' differ"),
        ({"train": {"split": [1]}, "test": {"split": [1]}}, "already have a column 'split'"),
        (np.zeros((3, 2)), "got ndarray"),
        (ListDataset({"a": [5]}, a=SimpleNamespace(names=["no", "yes"])), "contains 5, which is not a class number"),
    ],
)
def test_save_data_that_cannot_be_saved_exactly_is_refused(data: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        save_data(data)


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", " ", "x" * 101, "é"])
def test_save_data_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="invalid name for a dataset"):
        save_data({"a": [1]}, name)


def test_from_memory_integer_index_is_ignored_with_a_warning() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    assert from_memory(frame).warnings == []
    (warning,) = from_memory(frame[frame.a > 1]).warnings
    assert warning == "the index of the DataFrame (integers without a name) was ignored; rows are numbered from 1"
    assert from_memory(frame[frame.a > 1], keeps_index=True).warnings == []


def test_from_memory_splits_become_a_column() -> None:
    found = from_memory({"train": pd.DataFrame({"a": [1, 2]}), "val": {"a": [3]}, "test": ListDataset({"a": [4]})})
    assert found.columns == {"a": [1, 2, 3, 4], "split": ["train", "train", "validation", "test"]}


def test_from_memory_dataset_has_the_names_of_its_classes() -> None:
    found = from_memory(
        ListDataset({"text": ["a", "b", None], "label": [0, 1, -1]}, label=SimpleNamespace(names=["no", "yes"]))
    )
    assert found.columns == {"text": ["a", "b", None], "label": ["no", "yes", None]}
    assert found.origin == "Dataset"


# ---- files ------------------------------------------------------------------------------------------------


def test_save_data_is_written_once_and_repaired() -> None:
    path = save_data({"a": [1, 2]}, "numbers")
    assert path.name == "numbers.jsonl"
    first = path.stat()
    assert save_data(pd.DataFrame({"a": [1, 2]}), "numbers").name == path.name
    assert save_data({"a": [1, 2]}, "numbers") == path
    assert path.stat().st_mtime_ns == first.st_mtime_ns
    path.write_text('{"a": 3}\n')
    assert save_data({"a": [1, 2]}, "numbers") == path
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'
    assert [entry.name for entry in path.parent.parent.iterdir() if entry.name.startswith(".")] == []


def test_save_data_name_depends_only_on_the_content() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    names = {
        save_data(data).name
        for data in (frame, {"a": [1, 2, 3]}, {"a": np.array([1, 2, 3])}, frame.set_axis([7, 8, 9]))
    }
    assert len(names) == 1
    assert save_data({"a": [1, 2, 4]}).name not in names
    assert save_data({"a": pd.Categorical([1, 2, 3])}).name not in names


def test_save_data_unwritable_cache_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="the data cannot be written: Not a directory; set HARNESS_CACHE"):
        save_data({"a": [1]})


def test_located_replaces_only_data_in_memory(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1]})
    assert located("wine") == "wine"
    assert located(tmp_path) == tmp_path
    assert located(()) == []
    assert located(["wine", frame]) == ["wine", save_data(frame)]
    assert located(frame) == save_data(frame)
    streamed = SimpleNamespace(column_names=["a"], features={})
    for wrong in (np.zeros((2, 2)), 3, [3], streamed, [frame, None], b"wine"):
        with pytest.raises(UsageError, match="a dataset must be a name, a path, a pandas DataFrame"):
            located(wrong)


def test_missing_saved_data_are_explained(tmp_path: Path) -> None:
    path = save_data({"text": ["a"], "label": ["b"]})
    path.unlink()
    with pytest.raises(UsageError, match="the data were saved from memory, but are no longer in the cache"):
        UserDataset(path, "text", "classification").settle(TextOptions())


# ---- datasets ---------------------------------------------------------------------------------------------


def table(rows: int = 40) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "zip": pd.Categorical([n % 3 for n in range(rows)]),
            "size": np.random.default_rng(0).normal(size=rows),
            "label": pd.Categorical([n % 2 for n in range(rows)]),
        }
    )


def test_settle_frame_records_memory_and_categorical_columns() -> None:
    path = save_data(table()[1:], "flats")
    options, source, raw = UserDataset(path, "table", "classification").settle(TableOptions())
    assert isinstance(options, TableOptions)
    assert options.categorical_columns == ("zip",)
    assert options.feature_columns == ("zip", "size")
    assert (source.memory, source.path) == ("DataFrame", str(path))
    assert "categorical_columns" in source.guessed
    assert source.warnings[0].startswith("the index of the DataFrame")
    assert raw is not None
    assert raw.train.inputs["categories"].shape == (len(raw.train.targets), 1)
    again, _, _ = UserDataset(path, "table", "classification").settle(options)
    assert again == options


def test_about_file_that_is_not_from_memory_is_none(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text('{"origin": "DataFrame"}')
    assert about(tmp_path / "data.jsonl") is None


def test_images_in_memory_are_read_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3)).astype(np.uint8)
    path = save_data({"image": pixels, "label": ["cat", "dog"] * 20}, "pets")
    raw = UserDataset(path, "image", "classification").load(ImageOptions())
    for split in (raw.train, raw.validation, raw.test):
        assert split.rows is not None
        for file, image in zip(split.rows, split.inputs["image"], strict=True):
            assert_array_equal(image, pixels[int(str(file).partition(".")[0]) - 1])
    gray = save_data({"image": list(pixels[..., 0]), "label": ["cat", "dog"] * 20})
    raw = UserDataset(gray, "image", "classification").load(ImageOptions())
    assert {image.shape for image in raw.train.inputs["image"]} == {(5, 4, 1)}


def test_recordings_in_memory_are_read_exactly() -> None:
    rng = np.random.default_rng(0)
    sounds = [rng.uniform(-1, 1, size).astype(np.float32) for size in rng.integers(200, 400, 40)]
    path = save_data({"audio": sounds, "sample_rate": 8000, "label": ["yes", "no"] * 20})
    raw = UserDataset(path, "audio", "classification").load(AudioOptions())
    assert raw.train.rows is not None
    for file, waveform, rate_hz in zip(
        raw.train.rows, raw.train.inputs["waveform"], raw.train.inputs["sample_rate_hz"], strict=True
    ):
        assert_array_equal(waveform, sounds[int(str(file).partition(".")[0]) - 1])
        assert rate_hz == 8000


def test_media_of_a_dataset_are_decoded() -> None:
    from PIL import Image

    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    images = from_memory(ListDataset({"image": [Image.fromarray(pixels), None], "label": [0, 1]}))
    assert images.media is not None
    assert images.media.names() == ["000001.ppm", None]
    assert_array_equal(images.media.items[0], pixels)
    sound = {"array": np.zeros(4), "sampling_rate": 16000, "path": None}
    sounds = from_memory(ListDataset({"audio": [sound], "label": [0]}))
    assert sounds.media is not None
    assert (sounds.media.names(), list(sounds.media.rates_hz)) == (["000001.wav"], [16000])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"image": np.zeros((2, 4, 4, 3))}, r"the image in row 1 is float64 \[4, 4, 3\], expected a uint8"),
        ({"image": np.zeros((2, 4, 4, 4), np.uint8)}, r"has the shape \[4, 4, 4\], expected .* 1 .* or 3"),
        ({"image": np.zeros((2, 0, 4), np.uint8)}, r"shape \[0, 4, 1\]"),
        ({"image": [np.zeros((4, 4), np.uint8), "x.png"]}, "the image in row 2 is str"),
        ({"image": np.zeros((1, 2, 2), np.uint8), "more": np.zeros((1, 2, 2), np.uint8)}, "'image' and 'more'"),
        ({"image": np.zeros((1, 2, 2), np.uint8), "file_name": ["a"]}, "'file_name' is reserved"),
        ({"audio": [np.zeros(4)]}, "sample rate is unknown; add 'sample_rate'"),
        ({"audio": [np.zeros(4)], "sample_rate": 0.5}, "'sample_rate' in row 1 is 0.5"),
        ({"audio": [np.array([0, 2.0])], "sample_rate": 8000}, "outside of -1 to 1"),
        ({"audio": [np.zeros((2, 4)), np.zeros(4)], "sample_rate": 8000}, "expected a uint8"),
        ({"audio": [np.zeros(4), np.zeros((2, 4))], "sample_rate": 8000}, "the recording in row 2 .*1-dimensional"),
        ({"audio": [np.zeros(4, np.int32)], "sample_rate": 8000}, "int32"),
    ],
)
def test_save_data_media_of_another_form_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        save_data(data)
