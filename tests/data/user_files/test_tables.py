"""Reading of CSV, TSV, JSONL and Parquet files: round trips, and errors with the position of bad rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_files import write_csv, write_jsonl

from harness import DataError, UsageError
from harness.data.user_files.problems import Problems
from harness.data.user_files.tables import Table, read_table

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)


def read(path: Path, policy: str = "error") -> tuple[Table, Problems]:
    problems = Problems(path.name, policy)  # type: ignore[arg-type]
    return read_table(path, problems), problems


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6))
def test_read_table_csv_round_trip(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = write_csv(tmp_path / "t.csv", {"a": [a for a, _ in rows], "b": [b for _, b in rows]})
    table, problems = read(path)
    assert list(zip(table.columns["a"], table.columns["b"], strict=True)) == rows
    problems.settle(left=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.fixed_dictionaries({"a": CELLS | st.integers(-9, 9) | st.booleans()}), min_size=1, max_size=6))
def test_read_table_jsonl_round_trip(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    table, _ = read(write_jsonl(tmp_path / "t.jsonl", rows))
    assert table.columns["a"] == [row["a"] for row in rows]


def test_read_table_parquet_round_trip(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow")
    import pandas as pd

    frame = pd.DataFrame({"text": ["a", None], "label": [1, 0]}, index=[7, 9])
    frame.to_parquet(tmp_path / "t.parquet")
    table, _ = read(tmp_path / "t.parquet")
    assert table.columns == {"text": ["a", None], "label": [1, 0]}
    assert table.where == ["row 1", "row 2"]


def test_read_table_invalid_parquet_columns_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = pa.array([1, 2])
    pq.write_table(pa.table([numbers, numbers], names=["a", "a"]), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match=r"twice\.parquet: the header contains 'a' more than once"):
        read(tmp_path / "twice.parquet")
    dates = pa.array([1, 2**40], pa.timestamp("s"))
    pq.write_table(pa.table({"a": numbers, "date": dates}), tmp_path / "late.parquet")
    with pytest.raises(DataError, match=r"late\.parquet: column 'date' cannot be read: .*; remove the column"):
        read(tmp_path / "late.parquet")


def test_read_table_tsv_quotes_have_no_special_meaning(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text('text\tlabel\n"quoted" and "open\tx\nit\'s, fine\ty\n')
    assert read(path)[0].columns == {"text": ['"quoted" and "open', "it's, fine"], "label": ["x", "y"]}


def test_read_table_csv_with_semicolons_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('"a";"b"\n1,5;x\n')
    assert read(path)[0].columns == {"a": ["1,5"], "b": ["x"]}


def test_read_table_drops_byte_order_mark_and_unnamed_index(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf,text\r\n0,a\r\n\r\n1,b\r\n")
    table, _ = read(path)
    assert table.columns == {"text": ["a", "b"]}
    assert table.where == ["row 1 (line 2)", "row 2 (line 4)"]


def test_read_table_line_numbers_count_lines_within_cells(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {"a": ["one\ntwo", "x"]})
    assert read(path)[0].where == ["row 1 (line 2)", "row 2 (line 4)"]


BAD_ROWS = [
    ("t.csv", b"a,b\n1,2\n1,2,3\n", "row 2 (line 3): expected 2 cells as in the header, found 3"),
    ("t.csv", b"a,b\n1\n1,2\n", "row 1 (line 2): expected 2 cells as in the header, found 1"),
    ("t.csv", b"a,b\n1,2\n1,caf\xe9\n", "row 2 (line 3): column 'b' contains bytes that are not UTF-8"),
    ("t.csv", b'a,b\n"x" y,2\n1,2\n', "row 1 (line 2): the quoting is invalid"),
    ("t.tsv", b"a\tb\n1\t2\n1\t2\t3\n", "row 2 (line 3): expected 2 cells as in the header, found 3"),
    ("t.jsonl", b'{"a": 1}\n\n{"a": }\n', "row 2 (line 3): invalid JSON"),
    ("t.jsonl", b'{"a": 1}\n[1]\n', "row 2 (line 2): expected a JSON object"),
    ("t.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "row 2 (line 2): "),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_ROWS)
def test_read_table_bad_row_is_reported_or_skipped(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    _, problems = read(tmp_path / name)
    with pytest.raises(DataError) as raised:
        problems.settle(left=1)
    assert message in str(raised.value)
    assert "--on-bad-row skip" in str(raised.value)
    table, problems = read(tmp_path / name, "skip")
    problems.settle(left=len(table))
    assert len(table) == 1
    assert problems.details()["skipped_rows"] == 1
    assert message in str(problems.details()["skipped"])


WHOLE = [
    ("t.csv", b"", "the file is empty"),
    ("t.csv", b" \n\n", "the file is empty"),
    ("t.csv", b"a,b\n", "the file has no rows"),
    ("t.csv", b"a,a\n1,2\n", "the header contains 'a' more than once"),
    ("t.csv", b"a,caf\xe9\n1,2\n", "the header contains bytes that are not UTF-8"),
    ("t.csv", b'a,b\n1,2\n"open,2\n3,4\n', "the quote opened in the row at line 3 is never closed"),
    ("t.csv", "a,b\n1,2\n".encode("utf-16"), "UTF-16"),
    ("t.jsonl", b"{}\n", "no named columns"),
    ("t.jsonl", b'[{"a": 1}]\n', r"row 1 \(line 1\): expected a JSON object"),
    ("t.jsonl", b'[\n {"a": 1\n }]\n', r"row 1 \(line 1\): invalid JSON"),
    ("t.parquet", b"not parquet", "not a valid Parquet file"),
]


@pytest.mark.parametrize("policy", ["error", "skip"])
@pytest.mark.parametrize(("name", "content", "message"), WHOLE)
def test_read_table_invalid_file_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str, policy: str
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name, policy)


def test_settle_many_bad_rows_counts_all_and_lists_the_first_five(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "1\n" * 8 + "1,2\n")
    _, problems = read(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"8 bad rows: row 1 .*; row 5 \(line 6\).*; and 3 more; fix the rows"):
        problems.settle(left=1)


def test_read_table_unknown_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"unknown table format '\.xlsx'; pass a file with the suffix \.csv"):
        read(tmp_path / "t.xlsx")


def test_read_table_long_cell_is_read(tmp_path: Path) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["a"], ["x" * 300_000]])
    (tmp_path / "t.csv").write_text(text.getvalue())
    assert len(read(tmp_path / "t.csv")[0].columns["a"][0]) == 300_000
