"""Columns of dates and times, which are rejected, split into parts, or used to split the rows."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_files import write_csv

from harness import DataError, RawData, UsageError
from harness.data.user_files import dates
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.splitting import SPLITS, split_by_time

COUNT = 40
DAYS = [datetime(2019, 12, 1, 6) + timedelta(days=5 * n, hours=n) for n in range(COUNT)]


def loaded(path: Path, kind: str = "table", **options: Any) -> RawData:
    dataset = UserDataset(path, kind, "regression" if kind == "table" else "classification")
    default = {"target_column": "y"} if kind == "table" else {}
    return dataset.load(dataset.settle(dataset.Options(**{**default, **options}))[0])


def table(path: Path, cells: list[Any], name: str = "when") -> Path:
    noise = np.random.default_rng(0).uniform(size=(2, len(cells))).tolist()
    return write_csv(path / "t.csv", {name: cells, "x": noise[0], "y": noise[1]})


FORMATS = [
    ("%Y-%m-%d", None),
    ("%Y-%m-%dT%H:%M:%S", None),
    ("%Y-%m-%d %H:%M", None),
    ("%Y-%m-%dT%H:%M:%SZ", None),
    ("%Y-%m-%dT%H:%M:%S+02:00", None),
    ("%Y-%m-%d %H:%M:%S.%f", None),
    ("%d/%m/%Y", "%d/%m/%Y"),
    ("%m/%d/%Y", "%m/%d/%Y"),
    ("%d.%m.%Y", "%d.%m.%Y"),
    ("%d.%m.%y", "%d.%m.%y"),
    ("%Y/%m/%d", "%Y/%m/%d"),
    ("%d %b %Y", "%d %b %Y"),
    ("%B %d, %Y", "%B %d, %Y"),
    ("%d-%b-%Y", "%d-%b-%Y"),
    ("%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M"),
    ("%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M %p"),
]


@pytest.mark.parametrize(("written", "form"), FORMATS)
def test_load_dates_are_refused_unless_they_are_split_into_parts(
    tmp_path: Path, written: str, form: str | None
) -> None:
    path = table(tmp_path, [day.strftime(written) for day in DAYS])
    with pytest.raises(DataError, match=r"column 'when' contains dates or times \(40 of 40 cells, such as '") as raised:
        loaded(path, on_bad_row="skip")
    assert "--set 'dataset.date_columns=[\"when\"]'" in str(raised.value)
    assert ("dataset.date_format" in str(raised.value)) == (form is not None)
    if form in dates.GUESSES:
        assert f"dataset.date_format={form}'" in str(raised.value)
    data = loaded(path, date_columns=("when",), date_format=form)
    timed = "%H" in written or "%I" in written
    assert data.train.inputs["features"].shape[1] == 5 + timed
    everything = np.concatenate([s.inputs["features"] for s in (data.train, data.validation, data.test)])
    expected = {(day.year, day.month, day.day, day.weekday(), *([day.hour] if timed else [])) for day in DAYS}
    assert {tuple(row) for row in everything[:, : 4 + timed]} == expected
    if form is not None:
        with pytest.raises(DataError, match=r"specify the format in dataset\.date_format"):
            loaded(path, date_columns=("when",))


@pytest.mark.parametrize("cell", ["2021-03", "2021-W05", "2021Q3", "3 May", "Mar 2021", "14:05", "2:05 PM", "09:30:15"])
def test_load_other_times_are_refused(tmp_path: Path, cell: str) -> None:
    with pytest.raises(DataError, match="column 'when' contains dates or times"):
        loaded(table(tmp_path, [cell] * COUNT))
    assert (
        loaded(table(tmp_path, [cell, "x"] * 20), categorical_columns=("when",)).train.inputs["features"].shape[1] == 1
    )


@pytest.mark.parametrize("written", ["%Y-%m-%d", "%d/%m/%Y", "%b %d, %Y", "%Y-%m-%dT%H:%M:%S"])
def test_load_dates_as_target_are_refused(tmp_path: Path, written: str) -> None:
    path = table(tmp_path, [day.strftime(written) for day in DAYS])
    with pytest.raises(DataError, match=r"target column 'when' contains dates or times .*; convert them to numbers"):
        loaded(path, target_column="when")


def test_load_digits_that_are_dates_are_reported(tmp_path: Path) -> None:
    path = table(tmp_path, [day.strftime("%Y%m%d") for day in DAYS])
    warnings = "; ".join(loaded(path).warnings)
    assert "column 'when' was read as numbers, but all of them look like dates, such as '20191201'" in warnings
    assert "the rows are in chronological order (column 'when')" in warnings
    assert loaded(path, date_columns=("when",)).train.inputs["features"].shape[1] == 5


def test_load_dates_of_parquet_files_are_treated_alike(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow")
    import pandas as pd

    noise = np.random.default_rng(0).uniform(size=COUNT)
    frame = pd.DataFrame({"day": pd.to_datetime(DAYS), "on": [day.date() for day in DAYS], "y": noise})
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'day' contains dates or times"):
        loaded(tmp_path / "t.parquet")
    data = loaded(tmp_path / "t.parquet", date_columns=("day", "on"))
    assert data.train.inputs["features"].shape[1] == 9
    assert loaded(tmp_path / "t.parquet", time_column="day", feature_columns=("on",), date_columns=("on",))


def test_load_gaps_in_dates_are_missing_and_other_cells_are_bad_rows(tmp_path: Path) -> None:
    cells = [day.strftime("%Y-%m-%d") for day in DAYS]
    cells[3], cells[5] = "", "NA"
    data = loaded(table(tmp_path, cells), date_columns=("when",))
    assert sum(int(np.isnan(s.inputs["features"][:, 0]).sum()) for s in (data.train, data.validation, data.test)) == 2
    cells[7] = "2021-02-30"
    with pytest.raises(
        DataError, match=r"row 8 .*: column 'when' contains '2021-02-30', which is not a date in ISO 8601"
    ):
        loaded(table(tmp_path, cells), date_columns=("when",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"date_columns": ("x",), "categorical_columns": ("x",)}, "listed in dataset.date_columns and in"),
        ({"date_columns": ("z",)}, "date column 'z' is not one of the feature columns"),
        ({"time_column": "z"}, "unknown column 'z'"),
        ({"time_column": "y"}, "specified for two roles"),
    ],
)
def test_settle_invalid_date_columns_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        loaded(table(tmp_path, [day.isoformat() for day in DAYS]), **options)


@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)))
def test_parsed_dates_are_what_was_written(moment: datetime) -> None:
    assert dates.parsed(moment.isoformat(), None) == moment
    assert dates.parsed(moment.isoformat(" "), None) == moment
    assert dates.parsed(moment.date().isoformat(), None) == datetime(moment.year, moment.month, moment.day)
    assert dates.parsed(moment.time().isoformat(), None) == moment.time()
    assert dates.parsed(moment.strftime("%d/%m/%Y"), "%d/%m/%Y") == datetime(moment.year, moment.month, moment.day)


@given(st.text("0123456789-/:. TZJanMar", max_size=20))
def test_parsed_any_text_is_a_date_or_none(text: str) -> None:
    found = dates.parsed(text, None)
    assert found is None or isinstance(found, date | time)
    dates.looks_dated(text)


# ---- splits by time ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(-5, 40), min_size=1, max_size=80), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_split_by_time_keeps_the_order_and_ties(times: list[int], validation: float, test: float) -> None:
    array = np.array(times, float)
    if len(set(times)) < 3:
        with pytest.raises(DataError, match="3 splits need at least 3 different times"):
            split_by_time(array, validation_share=validation, test_share=test)
        return
    parts, description = split_by_time(array, validation_share=validation, test_share=test)
    assert list(parts) == list(SPLITS)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(times)))
    train, middle, last = (array[rows] for rows in parts.values())
    assert train.max() < middle.min() <= middle.max() < last.min()
    assert description == "by time, test last"


def test_split_by_time_has_the_fractions_of_a_random_split() -> None:
    times = np.random.default_rng(0).permutation(100).astype(float)
    parts, _ = split_by_time(times, validation_share=0.1, test_share=0.2)
    assert [len(rows) for rows in parts.values()] == [70, 10, 20]
    assert set(times[parts["test"]]) == set(range(80, 100))


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        ([day.strftime("%Y-%m-%d") for day in DAYS], None),
        ([day.isoformat() for day in DAYS], None),
        ([day.strftime("%d/%m/%Y") for day in DAYS], "%d/%m/%Y"),
        ([day.strftime("%b %d, %Y") for day in DAYS], "%b %d, %Y"),
        ([day.strftime("%Y%m%d") for day in DAYS], None),
        ([str(n) for n in range(COUNT)], None),
        ([repr(1e9 + n / 7) for n in range(COUNT)], None),
        ([str(2000 + n // 4) for n in range(COUNT)], None),
        ([day.replace(tzinfo=timezone(timedelta(hours=n % 3))).isoformat() for n, day in enumerate(DAYS)], None),
    ],
)
def test_load_time_column_puts_the_last_rows_into_the_test_split(
    tmp_path: Path, cells: list[str], form: str | None
) -> None:
    order = np.random.default_rng(1).permutation(COUNT)
    noise = np.random.default_rng(0).uniform(size=COUNT)
    columns = {"t": [cells[n] for n in order], "x": order.tolist(), "y": noise.tolist()}
    data = loaded(write_csv(tmp_path / "t.csv", columns), time_column="t", date_format=form)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [28, 4, 8]
    places = [split.inputs["features"][:, 0] for split in (data.train, data.validation, data.test)]
    assert places[0].max() < places[1].min()
    assert places[1].max() < places[2].min()
    assert data.train.inputs["features"].shape[1] == 1
    assert data.details["splits"] == "by time, test last"


def test_load_time_column_works_for_texts_and_checks_the_classes(tmp_path: Path) -> None:
    columns = {"text": [f"t {n}" for n in range(COUNT)], "label": ["a", "b"] * 20, "year": list(range(COUNT))}
    data = loaded(write_csv(tmp_path / "t.csv", columns), "text", time_column="year")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [28, 4, 8]
    columns["label"][-1] = "c"
    with pytest.raises(DataError, match="the test split has examples of 'c', but the training split has none"):
        loaded(write_csv(tmp_path / "t.csv", columns), "text", time_column="year")


@pytest.mark.parametrize("cell", ["", "soon", "NA", "14:05", "inf", "01/02/2020"])
def test_load_row_without_a_time_is_bad(tmp_path: Path, cell: str) -> None:
    cells = [day.isoformat() for day in DAYS]
    cells[4] = cell
    path = table(tmp_path, cells)
    with pytest.raises(DataError, match=r"1 bad row: row 5 \(line 6\): time column 'when' contains "):
        loaded(path, time_column="when")
    assert loaded(path, time_column="when", on_bad_row="skip").details["skipped_rows"] == 1


def test_load_times_with_and_without_zone_are_refused(tmp_path: Path) -> None:
    cells = [day.isoformat() + "Z" * (n % 2) for n, day in enumerate(DAYS)]
    with pytest.raises(DataError, match="cannot be compared: some are with a time zone and some without"):
        loaded(table(tmp_path, cells), time_column="when")


def test_load_numbers_among_dates_are_refused_as_times(tmp_path: Path) -> None:
    cells = [str(n) if n % 2 else day.isoformat() for n, day in enumerate(DAYS)]
    with pytest.raises(DataError, match="cannot be compared: some are given as numbers and some without a time zone"):
        loaded(table(tmp_path, cells), time_column="when")


def test_load_time_column_excludes_a_column_of_splits(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(size=30).tolist()
    columns = {"t": range(30), "x": noise, "y": noise, "split": ["train", "validation", "test"] * 10}
    with pytest.raises(UsageError, match="has a split column"):
        loaded(write_csv(tmp_path / "t.csv", columns), time_column="t")


ORDERED: list[tuple[str, list[Any]]] = [
    ("when", [day.isoformat() for day in DAYS]),
    ("when", [day.strftime("%Y-%m-%d") for day in reversed(DAYS)]),
    ("when", [day.strftime("%d/%m/%Y") for day in DAYS]),
    ("when", [day.strftime("%m/%d/%Y") for day in DAYS]),
    ("when", [day.strftime("%d.%m.%Y") for day in DAYS]),
    ("Date", [day.strftime("%Y/%m/%d") for day in DAYS]),
    ("year", [2000 + n // 10 for n in range(COUNT)]),
    ("Time", [n * 0.5 for n in range(COUNT)]),
    ("timestamp", [1_600_000_000 - 60 * n for n in range(COUNT)]),
    ("when", [1_600_000_000 + 60 * n for n in range(COUNT)]),
    ("when", [1_600_000_000_000 + 6000 * n for n in range(COUNT)]),
    ("when", [day.strftime("%m/%d/%y") for day in DAYS]),
    ("when", [day.strftime("%d.%m.%y") for day in DAYS]),
    ("when", [f"{2001 + n // 4}-Q{n % 4 + 1}" for n in range(COUNT)]),
    ("when", [f"2001-W{n + 1:02}" for n in range(COUNT)]),
    ("when", [f"{DAYS[0] + timedelta(days=31 * n):%b %Y}" for n in range(COUNT)]),
    ("when", [day.strftime("%d-%b-%y") for day in DAYS]),
]


def test_order_of_several_series_and_of_moved_rows_is_approximate() -> None:
    def order(values: list[float]) -> str:
        return dates.order(values, values)

    rng = np.random.default_rng(0)
    assert order([*range(100)] * 3) == "largely in chronological order"
    assert order([*range(12)] * 30) == "largely in chronological order"
    assert order([500, *range(100), 3, *range(200, 300)]) == "largely in chronological order"
    assert order([*range(100)]) == "in chronological order"
    assert order([*range(4)] * 30) == ""
    assert order(rng.permutation(100).tolist()) == ""
    assert order([*[5] * 300, 4, *[5] * 300, 6, 5]) == ""  # nearly constant, so a random order has few descents, too
    assert order([1, 2, 3, 2]) == ""


@pytest.mark.parametrize(("name", "cells"), ORDERED)
def test_load_random_splits_of_rows_in_order_of_time_are_reported(tmp_path: Path, name: str, cells: list[Any]) -> None:
    noise = np.random.default_rng(0).uniform(size=(2, COUNT)).tolist()
    path = write_csv(tmp_path / "t.csv", {name: cells, "x": noise[0], "y": noise[1]})
    message = f"the rows are in chronological order (column {name!r}), but splits were drawn at random"
    assert any(message in warning for warning in loaded(path, feature_columns=("x",)).warnings)
    mixed = [cells[n] for n in np.random.default_rng(3).permutation(COUNT)]
    path = write_csv(tmp_path / "t.csv", {name: mixed, "x": noise[0], "y": noise[1]})
    assert not any("chronological order" in warning for warning in loaded(path, feature_columns=("x",)).warnings)
    split = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    path = write_csv(tmp_path / "t.csv", {name: cells, "x": noise[0], "y": noise[1], "split": split})
    assert not any("chronological order" in warning for warning in loaded(path, feature_columns=("x",)).warnings)


def test_moment_of_dates_is_in_seconds_and_none_for_a_time_of_day() -> None:
    assert dates.moment(datetime(1970, 1, 2)) == 86400
    assert dates.moment(time(3)) is None
    assert math.isclose(dates.parts([time(3, 30)])["hour"][0], 3.5)


def test_load_uneven_splits_by_time_are_reported(tmp_path: Path) -> None:
    cells = [str(min(max(n, 1), 2) + (n == COUNT - 1)) for n in range(COUNT)]
    warnings = loaded(table(tmp_path, cells), time_column="when").warnings
    assert any(
        "differ considerably from the requested sizes: train 2, validation 37, test 1" in warning
        for warning in warnings
    )
    assert not any(
        "differ considerably" in w for w in loaded(table(tmp_path, list(range(COUNT))), time_column="when").warnings
    )


@pytest.mark.parametrize("kind", ["bytes", "timedelta"])
def test_load_columns_of_other_types_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow")
    import pandas as pd

    cells = [timedelta(hours=n) if kind == "timedelta" else b"x" for n in range(COUNT)]
    noise = np.random.default_rng(0).uniform(size=COUNT)
    pd.DataFrame({"c": cells, "y": noise}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=f"column 'c' contains values of the type {kind}, which are neither numbers"):
        loaded(tmp_path / "t.parquet", on_bad_row="skip")
