"""Tests of data in memory: conversion to columns, the saved files, and rejected values."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import string
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from list_dataset import ListDataset

from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.memory import MemoryData, from_memory
from harness.data.user_files.memory_about import about
from harness.data.user_files.memory_files import located, save_data, write_data
from harness.data.user_files.memory_media import Media
from harness.data.user_files.options import TableOptions, TextOptions
from harness.data.user_files.problems import Problems
from harness.data.user_files.tables import read_table
from harness.errors import UsageError
from harness.records.scratch import scratch


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
    "repeated hour": (
        pd.date_range("2021-10-31 00:30", periods=3, freq="h", tz="UTC").tz_convert("Europe/Berlin"),
        ["2021-10-31T02:30:00+02:00", "2021-10-31T02:30:00+01:00", "2021-10-31T03:30:00+01:00"],
    ),
    "text": (np.array(["ß\u2028\x85\0", "\ud800", 'a"\\'], object), ["ß\u2028\x85\0", "\ud800", 'a"\\']),
}


@pytest.mark.parametrize("name", FRAME)
def test_save_data_frame_column_keeps_its_values(name: str) -> None:
    values, expected = FRAME[name]
    assert repr(columns_of(pd.DataFrame({name: values}, dtype=object if name == "text" else None))[name]) == repr(
        expected
    )


class Color(str, enum.Enum):  # noqa: UP042 - str() of its members is not their value, unlike that of a StrEnum
    RED = "red"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(["2021-03-04T12:00:00.25", "NaT"], "M8[ns]"), ["2021-03-04T12:00:00.250000", None]),
        (np.array(["2021-03-04", "0999-01-01"], "M8[D]"), ["2021-03-04T00:00:00", "0999-01-01T00:00:00"]),
        (list(np.array(["2021-03", "NaT"], "M8[M]")), ["2021-03-01T00:00:00", None]),
        (np.array(["NaT", "NaT"], "m8[s]"), [None, None]),
        ([Color.RED, np.str_("blue")], ["red", "blue"]),
        (pd.Series([Color.RED, None], dtype=object), ["red", None]),
        (np.ma.MaskedArray([1, 2], [False, False]), [1, 2]),
    ],
)
def test_save_data_column_of_a_dict_keeps_its_values(values: Any, expected: list[Any]) -> None:
    assert repr(columns_of({"x": values})["x"]) == repr(expected)


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
    ("values", "message"),
    [
        (np.array([1], "m8[ns]"), "Timedelta.*total_seconds"),
        (list(np.array([1], "m8[s]")), "Timedelta.*total_seconds"),
        (np.array(["2021-03-04T00:00:00.000000001"], "M8[ns]"), "more precise than microseconds"),
        (np.array(["2021-03-04"], "M8[ps]"), r"datetime64\[ps\] that pandas cannot.*astype\('datetime64\[us\]'\)"),
        (list(np.array(["2021-03-04"], "M8[fs]")), r"datetime64\[fs\] that pandas cannot"),
        (np.array([2**62], "M8[D]"), r"datetime64\[D\] that pandas cannot"),
        (np.array(["20000-01-01"], "M8[D]"), "not between the years 1 and 9999"),
        (np.array([1], "m8"), r"timedelta64 that pandas cannot.* / np.timedelta64\(1, 's'\)"),
        (np.ma.MaskedArray([1], [True]), r"masked values, whose mask would be lost.*filled\(None\)"),
        (np.array(3), "is a single value, not a list or an array"),
        (np.float64(3), "is a single value, not a list"),
        (np.array("M8"), "is a single value, not a list"),
        ({3}, "is set, not a list"),
    ],
)
def test_save_data_column_of_a_dict_that_is_not_exact_is_refused(values: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s)column 'x'.*{message}"):
        save_data({"x": values})


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
        ({"x": np.zeros((3, 2))}, r"'x' is an array of shape \(3, 2\).*add_prefix"),
        ({"a": pd.Series([1]), "b": pd.Series([2], index=[5])}, "different indexes"),
        ({"a": pd.Series([1], index=["x"])}, "index of the Series in the dict would be lost; add it to the dict"),
        ({"a": pd.Series([1]), "b": pd.Series([1], index=pd.Index([0], name="id"))}, "index 'id' of the Series in"),
        ({"x": pd.DataFrame({"a": [1.0]}, index=["x"]), "sample_rate": 8000}, "index of the Series in the dict would"),
        ({"train": {"a": [1]}, "training": {"a": [2]}}, "'train' and 'training' are both names of the train split"),
        ({"test": {"a": [1]}, "Test": {"a": [2]}}, "'test' and 'Test' are both names of the test split"),
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


def test_from_memory_integer_index_of_series_is_ignored_with_a_warning() -> None:
    kept = pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})[1:]
    found = from_memory({"a": kept.a, "b": kept.b, "c": [7, 8]}, keeps_index=True)
    assert found.columns == {"a": [2, 3], "b": [5, 6], "c": [7, 8]}
    assert found.warnings == [
        "the index of the Series in the dict (integers without a name) was ignored; rows are numbered from 1"
    ]
    assert from_memory({"a": pd.Series([1, 2])}).warnings == []


def test_from_memory_index_of_a_split_is_refused_even_if_the_caller_keeps_that_of_a_frame() -> None:
    frame = pd.DataFrame({"a": [1]}, index=["x"])
    assert from_memory(frame, keeps_index=True).columns == {"a": [1]}
    with pytest.raises(UsageError, match="the index of the DataFrame would be lost"):
        from_memory({"train": frame}, keeps_index=True)


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


@pytest.mark.parametrize("is_damaged", [False, True])
def test_write_data_keeps_what_another_process_has_saved(tmp_path: Path, is_damaged: bool) -> None:
    items = [np.full((2, 2, 1), 7, np.uint8)] * 2
    complete = MemoryData(origin="dict", columns={"label": ["a", "b"]}, media=Media(kind="image", items=items))
    inodes, calls = [], []

    class Written(Media):
        def files(self) -> Iterator[tuple[str, bytes]]:
            yield from super().files()
            calls.append(1)
            if len(calls) == 2:  # the first call computes the digest
                other = write_data(complete, tmp_path)
                if is_damaged:
                    (other / "000002.pgm").write_text("damaged")
                inodes.extend(file.stat().st_ino for file in (other.parent, other, other / "000001.pgm"))

    path = write_data(dataclasses.replace(complete, media=Written(kind="image", items=items)), tmp_path)
    assert [file.stat().st_ino for file in (path.parent, path, path / "000001.pgm")] == inodes
    assert (path / "000002.pgm").read_bytes() == b"P5\n2 2\n255\n\7\7\7\7"
    assert list(tmp_path.iterdir()) == [path.parent]


def test_write_data_removes_what_an_interrupted_process_left(tmp_path: Path) -> None:
    (tmp_path / ".partial-old").mkdir()
    with scratch(tmp_path) as used:
        path = write_data(from_memory({"a": [1]}), tmp_path)
        assert set(tmp_path.iterdir()) == {used, path.parent}
    assert sorted(file.name for file in path.parent.iterdir()) == ["about.json", path.name]


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


@pytest.mark.parametrize("content", [None, "", "[]", '{"origin": 3}'])
def test_about_missing_or_damaged_file_is_an_error_until_the_data_are_saved_again(content: str | None) -> None:
    path = save_data(table())
    stored = about(path)
    (path.parent / "about.json").unlink()
    if content is not None:
        (path.parent / "about.json").write_text(content)
    with pytest.raises(UsageError, match=r"about.json: .*pass the same data to harness.run or harness.save_data again"):
        UserDataset(path, "table", "classification").settle(TableOptions())
    assert save_data(table()) == path
    assert about(path) == stored
