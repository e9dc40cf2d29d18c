"""Reading of CSV and TSV files, with the line numbers of rows that cannot be read.

CSV files follow RFC 4180. TSV files follow IANA's text/tab-separated-values format, in which quotes have no special
meaning.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from harness.data.user_files.encodings import is_utf8
from harness.data.user_files.problems import Problems, TooManyRowsError
from harness.data.user_files.spelling import lookalikes
from harness.data.user_files.swallowed_rows import swallowed_rows
from harness.errors import DataError

Row = tuple[str, dict[str, Any]]
"""Position of a row, such as ``row 3 (line 4)``, and its cells, keyed by column name."""
SEPARATORS = (",", ";", "\t", "|")
MAX_COLUMNS = 100_000
"""Maximum number of columns if the number of rows is limited."""
SAMPLE = 100
"""Number of rows used to infer the separator and the number of columns."""
USUAL = 0.95
"""Minimum fraction of sampled rows that must have the same number of cells to reject a header with a different number
of cells.
"""
CLOSED = "write a quote inside a quoted cell as two quotes"
BLANKS = re.compile(r"[ \t]+\"")


class Record(NamedTuple):
    """A row of a file."""

    first: int
    """Index of the first line of the row."""
    last: int
    """Index of the line after the row's last line."""
    cells: list[str]
    problem: str = ""
    """Reason why the row is bad, or an empty string for a good row."""
    unclear: bool = False
    """True if the quotes are unbalanced, so the end of the row is unknown."""


def read_delimited(
    source: str, text: str, problems: Problems, separator: str | None, most_rows: int | None = None
) -> tuple[list[str], list[Row], list[str]]:
    """Return the column names, the rows and a list of warnings. Rows that cannot be read are added to `problems`.

    Raises `harness.DataError` if the header is invalid or does not match the rows, and `TooManyRowsError` as soon as
    more than `most_rows` rows, good or bad, have been found.
    """
    csv.field_size_limit(sys.maxsize)  # the default of 128 KiB per cell is too small for long documents
    lines = list(io.StringIO(text, newline=""))  # with newline="", lines end at \n, \r\n or \r
    most_columns = None if most_rows is None else MAX_COLUMNS
    tabs = source.lower().endswith(".tsv")
    file = _File(source, lines, tabs=tabs, separator=separator, most_columns=most_columns)
    header = file.header()
    records = list(islice(file.records(), None if most_rows is None else most_rows + 1))
    if most_rows is not None and len(records) > most_rows:
        raise TooManyRowsError(source, most_rows)
    if any(record.unclear for record in records):
        long = next((r for r in records if not r.problem and r.last - r.first > 1), None)
        bad = next(record for record in records if record.unclear)
        if long is not None:
            raise DataError(
                f"{source}: the row at line {bad.first + 1} has unbalanced quotes, and its end cannot be "
                f"determined, because other cells contain line breaks (line {long.first + 1}); {CLOSED}"
            )
    rows: list[Row] = []
    undecoded: list[str] = []
    nul, valid = "\0" in text, is_utf8(text)
    for number, record in enumerate(records, start=1):
        where = f"row {number} (line {record.first + 1})"
        cells = record.cells
        if file.extra and len(cells) == len(header) + 1 and not cells[-1].strip():
            cells = cells[:-1]
        if record.problem:
            problems.add(where, record.problem)
        elif len(cells) != len(header):
            span = f"lines {record.first + 1} to {record.last}: " if record.last - record.first > 1 else ""
            problems.add(where, span + _ragged(header, cells))
        elif cells == header and len(header) > 1:
            problems.add(where, "the row repeats the header")
        elif nul and any("\0" in cell for cell in cells):
            problems.add(where, "the row contains a NUL character (byte 0)")
        elif not (valid or all(map(is_utf8, cells))):
            column = next(name for name, cell in zip(header, cells, strict=True) if not is_utf8(cell))
            problems.add(where, f"column {column!r} contains bytes that are not UTF-8")
            undecoded.append(where)
        else:
            rows.append((where, dict(zip(header, cells, strict=True))))
    check_decoded(source, undecoded, problems)
    return header, rows, _warnings(file, header, records)


def check_decoded(source: str, undecoded: Sequence[str], problems: Problems) -> None:
    """Raise `harness.DataError` if some rows are not valid UTF-8, unless bad rows are skipped.

    The error does not suggest dropping rows that are not valid UTF-8, because the rows are probably valid in another
    encoding.
    """
    if undecoded and problems.policy == "error":
        raise DataError(
            f"{source}: the file is encoded as UTF-8, except for bytes in {len(undecoded):,} "
            f"{'row' if len(undecoded) == 1 else 'rows'} ({', '.join(undecoded[:3])}"
            f"{', ...' if len(undecoded) > 3 else ''}); convert these rows to UTF-8"
        )


def check_once(source: str, names: Sequence[str]) -> None:
    """Raise `harness.DataError` if two columns have the same name."""
    repeated = {name for name, count in Counter(names).items() if name and count > 1}
    if repeated:
        raise DataError(f"{source}: the header contains {sorted(repeated)[0]!r} more than once; rename the columns")


def _ragged(header: list[str], cells: list[str]) -> str:
    comment = " (the row starts with '#', like a comment)" if cells and cells[0].lstrip().startswith("#") else ""
    return f"expected {len(header)} cells as in the header, found {len(cells)}{comment}"


class _File:
    """Lines of a file and their dialect."""

    def __init__(
        self,
        source: str,
        lines: list[str],
        *,
        tabs: bool,
        separator: str | None,
        most_columns: int | None = None,
    ) -> None:
        self.source, self.lines, self.quotes = source, lines, not tabs
        self.notes: Counter[str] = Counter()
        self.spans: list[tuple[int, int]] = []
        """First and last line (see `Record`) of each row whose individual lines have the same number of cells as the
        header.
        """
        self.start = self._skip_empty(0)
        stated = re.fullmatch(r"\"?sep=(.)\"?\s*", self.lines[self.start]) if self.start < len(lines) else None
        if stated and self.quotes:  # some spreadsheet programs declare the separator in this line
            self.start = self._skip_empty(self.start + 1)
            separator = separator or stated[1]
        self._skip_comments()
        if self.start >= len(lines):
            raise DataError(f"{source}: the file has no header and no rows")
        if most_columns is not None and max(map(self.lines[self.start].count, SEPARATORS)) >= most_columns:
            raise TooManyRowsError(source, most_columns, "columns")
        self.separator = "\t" if tabs else separator or self._infer_separator()
        self.body = self.width = 0
        self.extra = False

    def header(self) -> list[str]:
        """Return the column names. Raises `harness.DataError` if the header cannot be read or does not match the
        rows."""
        where = f"{self.source}: the header (line {self.start + 1})"
        shown = repr(self.lines[self.start].strip()[:60])
        self.body, cells = self._record(self.start)
        if cells is not None and any(map(BLANKS.match, cells)) and self.quotes:
            self.body, cells = self._record(self.start, skipinitialspace=True)
        if cells is None or any("\n" in cell and self.separator in cell for cell in cells):
            raise DataError(f"{where} contains a stray quote: {shown}; remove it")
        names = [name.strip() for name in cells]
        if not all(map(is_utf8, names)):
            raise DataError(f"{where} contains bytes that are not UTF-8; save the file as UTF-8")
        if any("\0" in name for name in names):
            raise DataError(f"{where} contains a NUL character (byte 0); remove it")
        check_once(self.source, names)
        self.width = len(names)
        self._check_width(where, names)
        return names

    def _check_width(self, where: str, names: list[str]) -> None:
        rows = self._sample(self.separator)
        if not rows:
            return
        usual, count = Counter(map(len, rows)).most_common(1)[0]
        if usual == len(names) or count < 2 or count < USUAL * len(rows):
            return
        fitting = [row for row in rows if len(row) == usual]
        if usual == len(names) + 1 and not any(row[-1].strip() for row in fitting):
            self.extra = True
            self.width = usual
            return
        if usual == len(names) + 1 > 2:
            advice = (
                "if the first column is an index without a name, as in files written by R or pandas, add its name to "
                "the header; if cells contain the separator, enclose them in quotes"
            )
        elif len(names) == 1:
            advice = (
                "if this line is a title or comment, remove it; otherwise specify the separator with --separator "
                "(dataset.separator)"
            )
        else:
            advice = "correct the header, or specify the separator with --separator (dataset.separator)"
        names_shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
        raise DataError(
            f"{where} has {len(names)} {'cell' if len(names) == 1 else 'cells'} ({names_shown}), but the rows have "
            f"{usual}; {advice}"
        )

    def records(self) -> Iterator[Record]:
        """Yield the rows. After a row with invalid quoting, reading resumes on the next line."""
        position, opened, budget = self.body, -1, 20 * len(self.lines) + 1000
        while position < len(self.lines):
            reader, first = self._reader(position), position
            while True:
                try:
                    cells: list[str] | None = next(reader)
                except StopIteration:
                    return
                except csv.Error:
                    cells = None
                last = position + reader.line_num
                if cells == []:  # skip an empty line
                    first = last
                    continue
                record = self._checked(first, last, cells)
                if record.unclear:
                    opened = first
                elif opened >= 0 and not record.problem and record.last - first == 1 and self._is_odd(first):
                    problem = f"the row contains only one quote, which may close the quote opened on line {opened + 1}"
                    record, opened = record._replace(problem=problem), -1
                yield record
                if record.problem or record.last != last:
                    budget -= last - record.last
                    break
                first = last
            if budget < 0:
                raise DataError(f"{self.source}: many rows are quoted incorrectly, such as line {first + 1}; {CLOSED}")
            position = record.last

    def _checked(self, first: int, last: int, cells: list[str] | None) -> Record:
        """Return the row in the lines from `first` up to, but excluding, `last`. `cells` is None if the quoting is
        invalid.

        If the quoting is invalid, the row ends before `last`.
        """
        spans = last - first > 1
        if cells is not None and not spans and '"' not in self.lines[first]:
            return Record(first, last, cells)
        if cells is not None and self.quotes and any(map(BLANKS.match, cells)) and not self._is_strict(first, last):
            return self._without_blanks(first)
        escaped = self.quotes and '\\"' in "".join(self.lines[first : min(last, first + 20)])
        rows = spans and all(self._width_alone(line) == self.width for line in range(first, last))
        whole = not spans or self._is_strict(first, last)
        if escaped and (spans or cells is None):
            end, other = self._record(first, escapechar="\\", doublequote=False)
            if other is not None and len(other) == self.width:
                problem = f"a backslash precedes a quote, as in files written by Spark or MySQL; {CLOSED}"
                return Record(first, end, [], (f"lines {first + 1} to {end}: " if end - first > 1 else "") + problem)
        if cells is not None and whole and (len(cells) == self.width or not rows):
            if rows:
                self.spans.append((first, last))
            return Record(first, last, cells)
        if cells is None and last == len(self.lines) and self._ends_open(first):
            problem = "the quote opened in this row is never closed"
        elif spans:
            problem = f"the quote opened in this row is not closed before line {last}"
        elif re.search(rf'"[ \t]+({re.escape(self.separator)}|[\r\n]*$)', self.lines[first]):
            problem = "there are spaces after a quote; remove them"
        else:
            problem = "the row is quoted incorrectly"
        return Record(first, first + 1, [], f"{problem}; {CLOSED}", unclear=spans or self._is_odd(first))

    def _without_blanks(self, first: int) -> Record:
        """Return a row without the spaces before quotes."""
        end, cells = self._record(first, skipinitialspace=True)
        if cells is None or len(cells) != self.width:
            problem = "there are spaces before a quote; remove them"
            return Record(first, first + 1, [], problem, unclear=self._is_odd(first))
        self.notes["rows in which spaces before a quote were ignored"] += 1
        return Record(first, end, cells)

    def _is_strict(self, first: int, last: int) -> bool:
        """Return whether these lines form a valid row according to RFC 4180, which allows quotes only in quoted
        cells."""
        mark = re.escape(self.separator)
        cell = rf'(?:"(?:[^"]++|"")*+"|[^"{mark}\r\n]*+)'
        return re.fullmatch(rf"{cell}(?:{mark}{cell})*+[\r\n]*", "".join(self.lines[first:last])) is not None

    def _ends_open(self, first: int) -> bool:
        try:
            next(self._reader(first))
        except csv.Error as error:
            return "unexpected end" in str(error)
        return False

    def _reader(self, start: int, **dialect: Any) -> Any:
        lines = (self.lines[number] for number in range(start, len(self.lines)))
        if not self.quotes:
            return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(lines, delimiter=self.separator, strict=True, **dialect)

    def _record(self, start: int, **dialect: Any) -> tuple[int, list[str] | None]:
        """Return the index of the line after the row that starts at `start`, and the cells of this row. The cells are
        None if the quoting is invalid.
        """
        reader = self._reader(start, **dialect)
        try:
            cells = next(reader)
        except (csv.Error, StopIteration):
            cells = None
        return start + reader.line_num, cells

    def _is_odd(self, line: int) -> bool:
        return self.lines[line].count('"') % 2 == 1

    def _width_alone(self, line: int) -> int:
        return self.lines[line].count(self.separator) + 1

    def _skip_empty(self, line: int) -> int:
        while line < len(self.lines) and not self.lines[line].strip(" \r\n"):
            line += 1
        return line

    def _skip_comments(self) -> None:
        """Skip lines before the header that start with ``#``. The last line that starts with ``#`` is the header if it
        has the same number of cells as the rows.
        """
        end = self.start
        while end < len(self.lines) and self.lines[end].startswith("#"):
            end = self._skip_empty(end + 1)
        if end == self.start or end >= len(self.lines):
            return
        widths = [max(self.lines[line].count(mark) for mark in SEPARATORS) for line in (end - 1, end)]
        # The line is a header such as "#id,name".
        if widths[0] == widths[1] > 0 and re.match(r"#\w", self.lines[end - 1]):
            end -= 1
        count = sum(bool(self.lines[line].strip()) for line in range(self.start, end))
        if count:
            self.notes["ignored comment lines before the header"] = count
        self.start = end

    def _infer_separator(self) -> str:
        """Return the separator that splits the header and the rows into the same number of cells.

        Raises `harness.DataError` if there are several such separators.
        """
        names = re.sub(r'"[^"]*"', "", self.lines[self.start])
        present = [mark for mark in SEPARATORS if mark in names]
        if len(present) < 2:
            return (*present, ",")[0]
        fit = {}
        for mark in present:
            self.body = self.start
            header, *rows = self._sample(mark)
            fit[mark] = sum(len(row) == len(header) for row in rows) / max(1, len(rows))
        best = [mark for mark in present if fit[mark] == max(fit.values())]
        if len(best) > 1 and fit[best[0]] >= USUAL:
            marks = " and ".join(map(repr, best))
            raise DataError(
                f"{self.source}: both {marks} divide the header and the rows into equal numbers of cells; pass "
                "--separator (dataset.separator) with one of them"
            )
        return best[0]

    def _sample(self, separator: str) -> list[list[str]]:
        """Return the cells of the first rows after the header. Invalid quotes are ignored."""
        lines = islice(self.lines, self.body, self.body + 5 * SAMPLE)
        if self.quotes:
            reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        else:
            reader = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
        return list(islice((row for row in reader if row), SAMPLE))


def _warnings(file: _File, header: list[str], records: list[Record]) -> list[str]:
    """Return warnings about unusual rows, unnamed columns, and column names that look alike."""
    warnings = [f"{what}: {count:,}" for what, count in file.notes.items()]
    good = [record.cells for record in records if not record.problem and len(record.cells) == len(header)]
    lone = [each for each in records if each.last - each.first == 1 and not each.problem] if file.spans else []
    single = [record.cells[: len(header)] for record in lone if len(record.cells) == file.width]
    warnings += swallowed_rows(file.lines, file.spans, single, file.separator)
    if file.extra:
        warnings.append("the separator at the end of each row was ignored")
    for column, name in enumerate(header):
        cells = [row[column] for row in good if row[column].strip()]
        if not name and cells:
            warnings.append(f"column {column + 1} has no name and was ignored (its first cell is {cells[0][:30]!r})")
        quoted = 0 if file.quotes else sum(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)
        if quoted and 2 * quoted >= len(good):
            warnings.append(
                f"{quoted:,} cells of column {name!r} are enclosed in quotes; the quotes were kept, as is usual for TSV"
                " files; if they are not part of the values, save the file as CSV with tabs"
            )
    if header and all(re.fullmatch(r"-?\d+(\.\d+)?", name) for name in header):
        shown = ", ".join(header[:3])
        warnings.append(f"all column names are numbers ({shown}); is the header missing?")
    return [*warnings, *lookalikes(header, "column name")]
