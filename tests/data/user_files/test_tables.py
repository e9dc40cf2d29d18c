"""Reading of CSV, TSV, JSONL and Parquet files: round trips, and errors with the position of bad rows."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_files import write_csv, write_jsonl

from harness import DataError, UsageError
from harness.data.user_files import json_rows
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
    ("t.csv", b'a,b\n"open,x\n,",;"\n', "row 1 (line 2): the quote opened in this row is not closed before line 3"),
    ("t.csv", b"a,b\n1,2\n1,2,3\n", "row 2 (line 3): expected 2 cells as in the header, found 3"),
    ("t.csv", b"a,b\n1\n1,2\n", "row 1 (line 2): expected 2 cells as in the header, found 1"),
    ("t.csv", b'a,b\n"x" y,2\n1,2\n', "row 1 (line 2): the row is quoted incorrectly"),
    ("t.tsv", b"a\tb\n1\t2\n1\t2\t3\n", "row 2 (line 3): expected 2 cells as in the header, found 3"),
    ("t.jsonl", b'{"a": 1}\n\n{"a": }\n', "row 2 (line 3): invalid JSON"),
    ("t.jsonl", b'{"a": 1}\n[1]\n', "row 2 (line 2): expected a JSON object"),
    ("t.csv", b'a,b\n1,2\n"open,2\n', "row 2 (line 3): the quote opened in this row is never closed"),
    ("t.csv", b'a,b\n"x,2\n"1",2\n', "row 1 (line 2): the quote opened in this row is not closed before line 3"),
    ("t.csv", b'a,b\n"x \\"y\\" z",2\n1,2\n', "row 1 (line 2): a backslash precedes a quote"),
    ("t.csv", b'a,b\n"x \\"y\nz",2\n1,2\n', "row 1 (line 2): lines 2 to 3: a backslash precedes a quote"),
    ("t.csv", b"a,b\n1,\0\n1,2\n", "row 1 (line 2): the row contains a NUL character"),
    (
        "t.csv",
        b"a,b\n" + b"1,2,\n" * 100 + b"1,2,x\n",
        "row 101 (line 102): expected 2 cells as in the header, found 3",
    ),
    (
        "t.csv",
        b'a,b\n"x\ny",2,3\n"1\n2",2\n',
        "row 1 (line 2): lines 2 to 3: expected 2 cells as in the header, found 3",
    ),
    ("t.csv", b'a,b\n1,2\nx,"open,2\n', "row 2 (line 3): the quote opened in this row is never closed"),
    ("t.csv", b'a,b\n"x" ,2\n1,2\n', "row 1 (line 2): there are spaces after a quote; remove them"),
    ("t.csv", b"a,b\n1,2\na,b\n", "row 2 (line 3): the row repeats the header"),
    ("t.csv", b"a,b\r1\r1,2\r", "row 1 (line 2): expected 2 cells as in the header, found 1"),
    ("t.csv", b"a,b\n1,2\n# note\n", "row 2 (line 3): expected 2 cells as in the header, found 1 (the row starts"),
    ("t.csv", b'a,b\n1, "open\n1,2\n', "row 1 (line 2): there are spaces before a quote"),
    ("t.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}\n', "row 2 (line 2): the object contains the key 'a' more than once"),
    ("t.json", b'[{"a": 1}, {"a": 1, "a": 2}]', "row 2: the object contains the key 'a' more than once"),
    ("t.jsonl", b'[{"a": 1}, 7]\n', "row 2: expected a JSON object"),
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
    assert len(table) == max(1, content.count(b",\n"))
    assert problems.details()["skipped_rows"] == 1
    assert message in str(problems.details()["skipped"])


WHOLE = [
    ("t.csv", b"", "the file is empty"),
    ("t.csv", b" \n\n", "the file is empty"),
    ("t.csv", b"a,b\n", "the file has no rows"),
    ("t.csv", b"a,a\n1,2\n", "the header contains 'a' more than once"),
    ("t.csv", b"a,\xff,\xc3\xa9\n1,2,3\n", "the header .line 1. contains bytes that are not UTF-8"),
    ("t.csv", b'name, "a\n1,2\n"x",2\n', "the header .line 1. contains a stray quote: 'name, \"a'"),
    ("t.csv", b'"name,a\n1,2\n', "the header .line 1. contains a stray quote"),
    ("t.csv", b'name,"a" b\n1,2\n', "the header .line 1. contains a stray quote"),
    ("t.csv", b'"name,a\n1,2\nx",2\n', "the header .line 1. contains a stray quote"),
    ("t.csv", b"a\0,b\n1,2\n", "the header .line 1. contains a NUL character"),
    ("t.csv", b"a,b\n0,1,2\n1,3,4\n", "has 2 cells .'a', 'b'., but the rows have 3; if the first column is an index"),
    ("t.csv", b"Sales 2020\na,b\n1,2\n3,4\n", "has 1 cell .*, but the rows have 2; if this line is a title"),
    ("t.csv", b"x,y\n0,5,1\n0,6,2\n0,7,3\n", "has 2 cells .*, but the rows have 3"),
    ("t.csv", b"a;b,c\n1;2,3\n4;5,6\n", "both ',' and ';' divide the header and the rows into equal numbers"),
    (
        "t.csv",
        b'a,b\n"1\n2",3\n"open,2\n3,4\n',
        "the row at line 4 has unbalanced quotes, and its end cannot be determined",
    ),
    ("t.csv", b"# only a comment\n", "the file has no rows"),
    ("t.csv", b"sep=;\n", "the file has no header and no rows"),
    ("t.jsonl", b"[]\n", "the file has no rows"),
    ("t.csv", b"PK\x03\x04...", "the file is a spreadsheet or a ZIP archive, not text"),
    ("t.csv", b"\x1f\x8b\x08", "the file is compressed with gzip, not text"),
    ("t.jsonl", b"PAR1...", "the file is a Parquet file, not text"),
    ("t.jsonl", b'{\n"a": 1\n}\n', "line 1 contains only '{', so a row spans several lines"),
    ("t.csv", "a,b\n1,2\n".encode("utf-16"), "UTF-16"),
    ("t.jsonl", b"{}\n", "no named columns"),
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
    with pytest.raises(DataError, match=r"8 bad rows: row 1 .*, row 5 \(line 6\): .*; and 3 more; fix the rows"):
        problems.settle(left=1)


def test_read_table_unknown_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"unknown table format '\.xlsx'; pass a file with the suffix \.csv"):
        read(tmp_path / "t.xlsx")


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_read_table_rows_with_different_keys_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The table would have 40,000 cells, of which 200 are not missing."""
    monkeypatch.setattr(json_rows, "MAX_CELLS", 1000)
    objects = [f'{{"k{number}":1}}' for number in range(200)]
    text = "[" + ",".join(objects) + "]" if name == "t.json" else "\n".join(objects)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}: the 200 rows have 200 different keys"):
        read(tmp_path / name)


def test_read_table_long_cell_is_read(tmp_path: Path) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["a"], ["x" * 300_000]])
    (tmp_path / "t.csv").write_text(text.getvalue())
    assert len(read(tmp_path / "t.csv")[0].columns["a"][0]) == 300_000


# ---- files that are read although they are unusual --------------------------------------------------------

TWO = {"a": ["1", "3"], "b": ["2", "4"]}
UNUSUAL = [
    ("t.csv", b"a,b\r1,2\r3,4\r", TWO, ""),
    ("t.csv", b"a,b\r\n1,2\r\n3,4", TWO, ""),
    ("t.csv", b"\xef\xbb\xbfsep=;\r\na;b\r\n1;2\r\n3;4\r\n", TWO, ""),
    ("t.csv", b"sep=|\na|b\n1|2\n3|4\n", TWO, ""),
    ("t.csv", b"a\tb\n1\t2\n3\t4\n", TWO, ""),
    ("t.csv", b"a|b\n1|2\n3|4\n", TWO, ""),
    ("t.csv", b"# by a program\n#\n\na,b\n1,2\n3,4\n", TWO, "ignored comment lines before the header: 2"),
    ("t.csv", b"#a,b\n1,2\n3,4\n", {"#a": ["1", "3"], "b": ["2", "4"]}, ""),
    ("t.csv", b"a,b\n1,2,\n3,4,\n", TWO, "the separator at the end of each row was ignored"),
    ("t.csv", b"a,b,\n1,2,\n3,4,\n", TWO, ""),
    ("t.csv", b",a,b\nx,1,2\ny,3,4\n", TWO, "column 1 has no name and was ignored (its first cell is 'x')"),
    ("t.csv", b'a, "b"\n1, "2"\n3, "4"\n', TWO, "rows in which spaces before a quote were ignored: 2"),
    ("t.csv", b'a,b\n1, "2, 3"\n', {"a": ["1"], "b": ["2, 3"]}, "rows in which spaces before a quote were ignored"),
    ("t.csv", b"name;price, EUR\n1;2\n1;2,3\n", {"name": ["1", "1"], "price, EUR": ["2", "2,3"]}, ""),
    ("t.csv", b"1,2\n3,4\n", {"1": ["3"], "2": ["4"]}, "all column names are numbers (1, 2); is the header missing?"),
    ("t.csv", b"b,B\n1,2\n", {"b": ["1"], "B": ["2"]}, "column names that look alike"),
    ("t.csv", b'a\n"x \\"\n"y"\n', {"a": ["x \\", "y"]}, ""),
    ("t.csv", b'a\n5" pipe\n', {"a": ['5" pipe']}, ""),
    ("t.csv", b'a,b\n"1,2\n3",4\n', {"a": ["1,2\n3"], "b": ["4"]}, ""),
    ("t.csv", b'a\n"1\n2"\nx\n', {"a": ["1\n2", "x"]}, ""),
    ("t.tsv", b'a\tb\n"1"\t2\n', {"a": ['"1"'], "b": ["2"]}, "1 cells of column 'a' are enclosed in quotes"),
    ("t.jsonl", b'[{"a": 1},\n {"a": 2}]', {"a": [1, 2]}, ""),
    ("t.jsonl", b'{"a": 1, "": 3}\n', {"a": [1]}, "values with an empty key were ignored"),
    ("t.json", b'{"a": 1}\n{"a": 2}\n', {"a": [1, 2]}, ""),
    (
        "t.jsonl",
        b'{"a": 1, "b": 2}\n{"a": 3}\n',
        {"a": [1, 3], "b": [2, None]},
        "keys are missing in some of the 2 rows",
    ),
    ("t.jsonl", b'{"a": {"x": 1}}\r{"a": "x:y:z"}\r', {"a": [{"x": 1}, "x:y:z"]}, ""),
    ("t.jsonl", '{"a": "x\u2028y"}\n'.encode(), {"a": ["x\u2028y"]}, ""),
    ("t.csv", b'a,b\n1, "2, 3"\n4, "5, 6"\n', {"a": ["1", "4"], "b": ["2, 3", "5, 6"]}, "were ignored: 2"),
    ("t.csv", "a\ncaf\u00c3\u00a9\n".encode(), {"a": ["caf\u00c3\u00a9"]}, "look like UTF-8 that was read in another"),
    ("t.csv", "a\nit\u00e2\u20ac\u2122s\n".encode(), {"a": ["it\u00e2\u20ac\u2122s"]}, "look like UTF-8 that was"),
    ("t.csv", "a\nN\u00c3O \u00c2ME\n".encode(), {"a": ["N\u00c3O \u00c2ME"]}, ""),
    ("t.csv", "a\nx\ufffdy\n".encode(), {"a": ["x\ufffdy"]}, "1 replacement characters (U+FFFD) for"),
]


@pytest.mark.parametrize(("name", "content", "columns", "warning"), UNUSUAL)
def test_read_table_unusual_file_is_read_and_reported(
    tmp_path: Path, name: str, content: bytes, columns: dict[str, list[object]], warning: str
) -> None:
    (tmp_path / name).write_bytes(content)
    table, problems = read(tmp_path / name)
    problems.settle(left=len(table))
    assert table.columns == columns
    assert (warning in "; ".join(table.warnings)) if warning else table.warnings == []


MESSAGES = "id,text,label\n1,fine,good\n2,so so,bad\n3,great,good\n4,poor,bad\n"


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ('a,b\n5,6\n"1,2\n3",4\n', "1 row contains a quoted cell whose lines look like separate rows (lines 3 to 4)"),
        (MESSAGES + '5,"fine,good\n6,poor,bad\n7,great",good\n', "(lines 6 to 8)"),
        (
            MESSAGES + '"5,fine,good\n6",poor,bad\n' * 5,
            "5 rows contain quoted cells whose lines look like separate rows (lines 6 to 7, 8 to 9, 10 to 11 and 2 "
            "more)",
        ),
        (MESSAGES + '5,"Hello, Bob\nbye, Ann",good\n', ""),
        (MESSAGES + '5,"Hello, Bob\nmilk, 2, eggs\nbye, Ann",good\n', ""),
        (MESSAGES + '5,"Hello, good\nmilk, 2, eggs\nbye, Ann",good\n', ""),
        ('text,label\nfine,good\npoor,bad\n"Hello, Bob\nbye",good\n"Hi, all\nfine, thanks\nbye",bad\n', ""),
        ('label,text\ngood,fine\ngood,well\nbad,"Hello\nbye, Bob"\nbad,"Hello\nwell, well\nbye, Bob"\n', ""),
        ('text\nfine\nfine\n"Hello\nBob\nbye"\n', ""),
        ('text,label\n"Hello, Bob\nbye",good\n', ""),
        ('a,b\n5,6,\n7,8,\n"1,2,\n3",4,\n', "(lines 4 to 5)"),
    ],
)
def test_read_table_warns_about_quoted_cells_that_contain_rows(tmp_path: Path, content: str, places: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    warnings = [each for each in read(tmp_path / "t.csv")[0].warnings if "look like separate" in each]
    assert len(warnings) == bool(places)
    assert places in "".join(warnings)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_read_table_numbers_of_python_in_json_are_read(tmp_path: Path, number: str) -> None:
    (tmp_path / "t.jsonl").write_text(f'{{"a": {number}, "b": [{number}]}}\n')
    table, problems = read(tmp_path / "t.jsonl")
    problems.settle(left=len(table))
    assert str(table.columns["a"][0]) == str(float(number.replace("Infinity", "inf")))


# ---- rows around a row with invalid quotes ----------------------------------------------------------------

WORDS = st.text("abc ,;'", max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(WORDS, WORDS).filter(lambda row: row != ("a", "b")), min_size=1, max_size=8),
    st.data(),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_read_table_unbalanced_quote_costs_only_its_row(
    tmp_path: Path, rows: list[tuple[str, str]], data: st.DataObject, quoted: bool, end: str
) -> None:
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    text = io.StringIO()
    csv.writer(text, quoting=quoting, lineterminator=end).writerows([("a", "b"), *rows])
    lines = text.getvalue().splitlines(keepends=True)
    place = data.draw(st.integers(1, len(lines)))
    lines.insert(
        place, data.draw(st.sampled_from(['"open,x', 'x,"open', '"a" b,x', '"a ""b"" c,x', '"a\\"b",x'])) + end
    )
    (tmp_path / "t.csv").write_bytes("".join(lines).encode())
    table, problems = read(tmp_path / "t.csv", "skip")
    kept = list(zip(table.columns["a"], table.columns["b"], strict=True))
    assert kept == rows
    assert problems.details()["skipped_rows"] == 1
    assert f"row {place} (line {place + 1}): " in str(problems.details()["skipped"])


DAMAGED = st.text('ab ,"x', max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(st.tuples(DAMAGED, DAMAGED, DAMAGED), min_size=3, max_size=8), st.data(), st.booleans())
def test_read_table_one_quote_too_many_or_too_few_costs_at_most_one_row(
    tmp_path: Path, rows: list[tuple[str, ...]], data: st.DataObject, quoted: bool
) -> None:
    lines = []
    for row in [("k", "l", "m"), *rows]:
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL, lineterminator="").writerow(row)
        lines.append(text.getvalue())
    place = data.draw(st.integers(1, len(rows)))
    line = lines[place]
    at = data.draw(st.integers(0, len(line)))
    lines[place] = line[:at] + line[at + 1 :] if line[at : at + 1] == '"' else f'{line[:at]}"{line[at:]}'
    (tmp_path / "t.csv").write_text("\n".join([*lines, ""]))
    table, problems = read(tmp_path / "t.csv", "skip")
    found = list(zip(*table.columns.values(), strict=True))
    others = [row for number, row in enumerate(rows, start=1) if number != place and row != ("k", "l", "m")]
    position = [number for number, row in enumerate(rows, start=1) if row != ("k", "l", "m") and number < place]
    if len(found) == len(others):
        assert found == others
    else:
        assert found[: len(position)] + found[len(position) + 1 :] == others
    assert len(table) + int(problems.details()["skipped_rows"]) == len(rows)


def test_read_table_line_that_may_close_an_open_quote_is_not_taken_as_a_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,2\n"he said "no"\nto all",x\n3,4\n')
    table, problems = read(tmp_path / "t.csv", "skip")
    assert table.columns == {"a": ["1", "3"], "b": ["2", "4"]}
    assert problems.details()["skipped_rows"] == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text('a",\n\\# ;|\t', max_size=40))
def test_read_table_any_text_is_read_or_refused_and_every_line_is_counted(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_bytes(f"x,y\n{text}\n".encode())
    try:
        table, problems = read(tmp_path / "t.csv", "skip")
    except DataError:
        return
    inside = sum(cell.count("\n") for cells in table.columns.values() for cell in cells)
    empty = sum(not line for line in [*text.split("\n"), ""])
    skipped = problems.details()["skipped_rows"]
    assert isinstance(skipped, int)
    if " to " not in str(problems.details()):  # no bad row takes several lines
        assert len(table) + inside + skipped >= text.count("\n") + 2 - empty


# ---- encodings --------------------------------------------------------------------------------------------

ENCODED = [
    ("windows-1252", "caf\u00e9", "windows-1252"),
    ("latin-1", "S\u00e3o Paulo", "windows-1252"),
    ("windows-1252", "\u20ac 5", "windows-1252"),
    ("iso8859-15", "M\u00fcller", "windows-1252"),
    ("mac-roman", "\u00fcber", "windows-1252"),
    ("cp1251", "\u041f\u0440\u0438\u0432\u0435\u0442", "windows-1252"),
    ("utf-16", "caf\u00e9", "utf-16"),
    ("utf-16-le", "caf\u00e9", "utf-16-le"),
    ("utf-16-be", "caf\u00e9", "utf-16-be"),
    ("utf-32", "caf\u00e9", "utf-32"),
]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize(("encoding", "word", "suggested"), ENCODED)
def test_read_table_other_encoding_is_suggested_and_read(
    tmp_path: Path, suffix: str, encoding: str, word: str, suggested: str
) -> None:
    rows = [word, "plain words of a row", "more plain words"]
    lines = [f'{{"a": "{row}"}}' for row in rows] if suffix == "jsonl" else ["a", *rows]
    path = tmp_path / f"t.{suffix}"
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))
    for policy in ("error", "skip"):
        with pytest.raises(DataError, match=rf"--encoding {suggested} \(dataset\.encoding\)") as raised:
            read(path, policy)
        assert "skip" not in str(raised.value)
    table = read_table(path, Problems("t", "error"), encoding=encoding)
    assert table.columns["a"] == rows


def test_read_table_mixed_encodings_are_refused_without_advice_to_drop_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a\ncaf\xc3\xa9\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"except for bytes in 1 row \(row 2 \(line 3\)\); convert") as raised:
        read(tmp_path / "t.csv")
    assert "skip" not in str(raised.value)
    table, problems = read(tmp_path / "t.csv", "skip")
    assert (len(table), problems.details()["skipped_rows"]) == (1, 1)


@pytest.mark.parametrize("encoding", ["windows-1252", "latin-1", "mac-roman"])
def test_read_table_utf8_declared_as_single_byte_encoding_is_reported(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes("a\ncaf\u00e9\n".encode())
    table = read_table(tmp_path / "t.csv", Problems("t", "error"), encoding=encoding)
    assert "but it is also valid UTF-8 (with words such as 'caf\u00e9')" in table.warnings[0]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "utf-16", "shift_jis"])
def test_read_table_wrong_declared_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes(b"a\nbcd\n\x81\xff\n")
    with pytest.raises(DataError, match=f"not encoded as {encoding}"):
        read_table(tmp_path / "t.csv", Problems("t", "error"), encoding=encoding)


def test_read_table_two_quotes_too_many_cost_only_their_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,2\nx,"open\n3,4\ny",z\n5,6\n')
    table, problems = read(tmp_path / "t.csv", "skip")
    assert table.columns == {"a": ["1", "3", "5"], "b": ["2", "4", "6"]}
    assert problems.details()["skipped_rows"] == 2


SENTENCES = [
    ("windows-1250", "Za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144, \u0141\u00f3d\u017a"),
    ("iso-8859-2", "P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148 \u00fap\u011bl"),
    ("windows-1251", "\u041e\u0442\u043b\u0438\u0447\u043d\u044b\u0439 \u0442\u043e\u0432\u0430\u0440"),
    ("koi8-r", "\u041e\u0442\u043b\u0438\u0447\u043d\u044b\u0439 \u0442\u043e\u0432\u0430\u0440"),
    ("iso-8859-5", "\u041e\u0442\u043b\u0438\u0447\u043d\u044b\u0439 \u0442\u043e\u0432\u0430\u0440"),
    ("cp866", "\u041e\u0442\u043b\u0438\u0447\u043d\u044b\u0439 \u0442\u043e\u0432\u0430\u0440"),
    ("windows-1253", "\u03a0\u03bf\u03bb\u03cd \u03ba\u03b1\u03bb\u03cc \u03c0\u03c1\u03bf\u03ca\u03cc\u03bd"),
    ("windows-1254", "\u00c7ok te\u015fekk\u00fcr, ya\u011fmur"),
    ("windows-1255", "\u05de\u05d5\u05e6\u05e8 \u05de\u05e6\u05d5\u05d9\u05df"),
    ("windows-1256", "\u0645\u0646\u062a\u062c \u0645\u0645\u062a\u0627\u0632"),
    ("shift_jis", "\u3068\u3066\u3082\u826f\u3044\u5546\u54c1\u3067\u3059\u3002"),
    ("euc_jp", "\u3068\u3066\u3082\u826f\u3044\u5546\u54c1\u3067\u3059\u3002"),
    ("gb18030", "\u975e\u5e38\u597d\u7684\u5546\u54c1\uff0c\u670d\u52a1\u5f88\u597d"),
    ("big5", "\u975e\u5e38\u597d\u7684\u5546\u54c1"),
    ("cp949", "\uc544\uc8fc \uc88b\uc740 \uc0c1\ud488\uc785\ub2c8\ub2e4"),
    ("cp850", "Sch\u00f6ne Gr\u00fc\u00dfe aus M\u00fcnchen"),
]


@pytest.mark.parametrize(("encoding", "text"), SENTENCES)
def test_read_table_encodings_are_suggested_with_the_words_that_they_mean(
    tmp_path: Path, encoding: str, text: str
) -> None:
    (tmp_path / "t.tsv").write_bytes(f"a\n{text}\nplain\n".encode(encoding))
    with pytest.raises(DataError) as raised:
        read(tmp_path / "t.tsv", "skip")
    found = re.search(rf"{encoding}(?: \(dataset\.encoding\))? if the bytes represent '([^']+)'", str(raised.value))
    assert found is not None, raised.value
    assert found[1] in text


@pytest.mark.parametrize("text", [text for _, text in SENTENCES])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_read_table_utf16_without_a_mark_is_recognized_in_every_script(
    tmp_path: Path, text: str, encoding: str
) -> None:
    (tmp_path / "t.csv").write_bytes(f'a,b\n"{text}",x\n'.encode(encoding))
    with pytest.raises(DataError, match=rf"seems to be encoded as UTF-16 .*--encoding {encoding}"):
        read(tmp_path / "t.csv", "skip")


def test_read_table_escape_sequences_of_iso_2022_are_recognized(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a\n\u3068\u3066\u3082\n".encode("iso2022_jp"))
    with pytest.raises(DataError, match=r"escape sequences of ISO 2022; pass --encoding iso2022_jp"):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("encoding", "text"), [item for item in SENTENCES if item[0] in ("koi8-r", "shift_jis", "cp866")]
)
def test_read_table_declared_encoding_in_which_nothing_is_legible_is_doubted(
    tmp_path: Path, encoding: str, text: str
) -> None:
    (tmp_path / "t.tsv").write_bytes(f"a\n{text}\n".encode(encoding))
    (warning,) = read_table(tmp_path / "t.tsv", Problems("t", "error"), encoding="latin-1").warnings
    assert f"was read as latin-1, as declared, but looks like {encoding}" in warning
    assert not read_table(tmp_path / "t.tsv", Problems("t", "error"), encoding=encoding).warnings


def test_read_table_byte_order_marks_of_joined_files_are_ignored_and_reported(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeff\ufeffa,b\n1,2\n\ufeff3,4\n", encoding="utf-8")
    table, _ = read(tmp_path / "t.csv")
    assert table.columns == {"a": ["1", "3"], "b": ["2", "4"]}
    assert table.warnings[0].startswith("the file contains 2 byte order marks (U+FEFF) after its start")


@pytest.mark.parametrize(
    ("name", "header", "row", "message"),
    [
        (
            "t.tsv",
            "text,label",
            "some {n},a",
            "separated by commas; separate the cells with tabs, or change the suffix",
        ),
        ("t.tsv", "text;label", "some {n};a", "separated by semicolons; separate the cells with tabs"),
        ("t.csv", "x y z", "{n} 2 3", "separated by spaces; separate the cells with commas"),
        ("t.csv", "version https://git-lfs.github.com/spec/v1", "oid {n}", "the file is a Git LFS pointer; download"),
        ("t.csv", "<!DOCTYPE html>", "<p>{n}</p>", "the file is a web page, such as the error page of a server"),
        ("t.jsonl", "<html>", "{n}", "the file is a web page"),
        ("t.tsv", "\n  <!doctype HTML><html>", "{n}", "the file is a web page"),
        ("t.jsonl", "version https://git-lfs.github.com/spec/v1", "size {n}", "the file is a Git LFS pointer"),
    ],
)
def test_read_table_that_is_another_file_is_refused_with_advice(
    tmp_path: Path, name: str, header: str, row: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text("\n".join([header, *(row.replace("{n}", str(number)) for number in range(5))]) + "\n")
    with pytest.raises(DataError, match=re.escape(message)):
        read_table(path, Problems(name, "error"))
