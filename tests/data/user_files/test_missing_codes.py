"""Numbers, labels and dates that often denote a missing value."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_files import write_csv

from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.missing_codes import in_dates, in_labels, in_numbers

NORMAL = np.random.default_rng(0).normal(50, 9, 200).round(1)


def with_code(values: Any, code: float, count: int = 12) -> Any:
    values = np.array(values, float)
    values[:count] = code
    return values


@pytest.mark.parametrize("code", [-1, -9, -99, -999, 99, 999, 9999, 0, 1e30])
def test_in_numbers_repeated_codes_are_reported(code: float) -> None:
    (warning,) = in_numbers({"age": with_code(NORMAL, code)})
    assert f"column 'age': 12 cells are {code:g}, " in warning
    assert f"--set 'dataset.missing_values=[\"{code:g}\"]'" in warning


def test_in_numbers_code_that_is_much_more_frequent_than_other_values_is_reported() -> None:
    days = np.concatenate([np.full(150, -1.0), np.arange(1, 51)])
    assert len(in_numbers({"days since contact": days})) == 1


@pytest.mark.parametrize(
    "values",
    [
        NORMAL,
        with_code(NORMAL, 99, 2),  # too rare
        with_code(NORMAL, 45),  # not a code
        np.maximum(np.random.default_rng(0).normal(0, 9, 200).round(), 0),  # many zeros next to small numbers
        np.concatenate([np.zeros(150), np.random.default_rng(0).exponential(100, 50)]),  # amounts
        np.arange(200) % 100,  # includes 99
        np.arange(200) % 20 - 1,  # includes -1
        np.random.default_rng(0).integers(-99, 100, 200),
        np.arange(200) % 3 - 1,
    ],
)
def test_in_numbers_other_values_are_not_reported(values: Any) -> None:
    assert in_numbers({"x": np.array(values, float)}) == []


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        (["yes", "no", "999"], ["999"]),
        (["yes", "no", "-9", "-99"], ["-9", "-99"]),
        (["0", "1", "2", "99"], ["99"]),
        (["yes", "no", "9"], []),
        (["-1", "1"], []),
        (["-1", "0", "1"], []),
        (["7", "8", "9"], []),
        ([str(number) for number in range(100)], []),
        (["a", "b", "1", "99"], []),
        (["no", "999"], []),
    ],
)
def test_in_labels_codes_among_other_labels_are_reported(labels: list[str], codes: list[str]) -> None:
    warnings = in_labels([*labels, *labels])
    assert [text.partition(",")[0] for text in warnings] == [f"2 labels are {code!r}" for code in codes]


DAYS = [datetime(2019, 1, 1) + timedelta(days=n) for n in range(40)]


def test_in_dates_code_is_reported_as_written() -> None:
    days = [*DAYS, *[datetime(1900, 1, 1)] * 5]
    (warning,) = in_dates("born", [f"{day:%d/%m/%Y}" for day in days], days)
    assert "5 dates are 1900-01-01" in warning
    assert 'dataset.missing_values=["01/01/1900"]' in warning
    assert in_dates("born", [*map(str, DAYS), ""], [*DAYS, None]) == []


def test_in_dates_different_time_zones_are_reported() -> None:
    cells = ["2021-03-04T12:00:00Z", "2021-03-04T12:00:00+02:00"]
    (warning,) = in_dates("t", cells, [*map(datetime.fromisoformat, cells)])
    assert "different time zones (+0000, +0200)" in warning


def test_load_codes_in_columns_labels_and_dates_are_reported(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "t.csv",
        {
            "age": with_code(NORMAL, -9).tolist(),
            "born": [f"{DAYS[n % 40]:%Y-%m-%d}" if n % 9 else "1900-01-01" for n in range(200)],
            "answer": ["999" if n % 10 == 0 else ("yes", "no")[n % 2] for n in range(200)],
        },
    )
    dataset = UserDataset(path, "table", "classification")
    options = dataset.Options(target_column="answer", date_columns=("born",))
    warnings = dataset.load(dataset.settle(options)[0]).warnings
    assert [
        text for text in warnings if "12 cells are -9" in text or "20 labels are '999'" in text or "1900" in text
    ] == [
        "column 'born': 23 dates are 1900-01-01, which often denotes a missing value; if it does, pass --set "
        "'dataset.missing_values=[\"1900-01-01\"]'",
        "column 'age': 12 cells are -9, which stands out from the other values; if this value denotes a missing "
        "value, pass --set 'dataset.missing_values=[\"-9\"]'",
        "20 labels are '999', which often denotes a missing value, but are treated as a class; remove these rows if "
        "they have no label",
    ]
