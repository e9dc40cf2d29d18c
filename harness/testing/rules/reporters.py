"""Rules for report formats, looked at with a small comparison whose names are hostile."""

from __future__ import annotations

import json
import re
import tempfile
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import HarnessError
from harness.interfaces import Reporter
from harness.plugins import resolve
from harness.plugins.catalog import Catalog
from harness.testing.rule import Broken, Rule
from harness.testing.sample import sample_report

_TAGS = re.compile(r"<(html|body|div|table|td|tr|span|p|svg|ul|li|h[1-6])\b", re.IGNORECASE)
_RULER = re.compile(r"^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$")


class Rendered:
    """A reporter, and what it makes of the comparison, once."""

    def __init__(self, reporter: Reporter, catalog: Catalog) -> None:
        self.reporter, self.catalog = reporter, catalog

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Path -> content; of one text the path is empty."""
        with tempfile.TemporaryDirectory(prefix="harness-sample-") as directory:
            return self._render(sample_report(Path(directory), self.catalog))

    @cached_property
    def of_nothing(self) -> dict[str, bytes]:
        from harness.report.report import Report

        return self._render(Report(runs=(), catalog=self.catalog))

    def _render(self, report: Any) -> dict[str, bytes]:
        made = resolve(self.reporter.render)(report if self.reporter.takes == "report" else report.table)
        if self.reporter.output == "directory":
            return {name: bytes(content) for name, content in made}
        if not isinstance(made, str):
            raise Broken(f"it gave a {type(made).__name__}, not a text")
        return {"": made.encode()}


def _renders(it: Rendered) -> None:
    if not any(it.files.values()):
        raise Broken("it made nothing of a comparison of two backends")


def _renders_nothing_too(it: Rendered) -> None:
    try:
        it.of_nothing  # noqa: B018  # whether it raises
    except HarnessError:
        return


def _escapes(it: Rendered) -> None:
    for name, content in it.files.items():
        text = content.decode(errors="replace")
        if name.endswith((".js", ".css", ".png", ".svg")) or _is_json(text):
            continue
        where = f" in {name}" if name else ""
        is_page = _TAGS.search(text) is not None
        if (is_page or _has_table(text)) and "<script>alert(" in text:
            raise Broken(f"the tag of a name became a tag of the page{where}")
        if "\x1b[31m" in text and not is_page:  # a terminal obeys it, a browser does not
            raise Broken(f"a control character of a name came through{where}")
        if not name and _has_table(text):
            _check_markdown(text)


def _stays_inside(it: Rendered) -> None:
    for name in it.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise Broken(f"it wants to write {name!r}, outside of its directory")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _has_table(text: str) -> bool:
    return any("|" in line and _RULER.match(line) for line in text.splitlines())


def _check_markdown(text: str) -> None:
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if "|" not in line or not _RULER.match(line):
            continue
        columns = _columns(line)
        for row in lines[number + 1 :]:
            if not row.strip():
                break
            if _columns(row) != columns:
                raise Broken(f"a row of its table has {_columns(row)} columns, not {columns}: a name broke it")


def _columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line.strip().strip("|"))) + 1


REPORTER_RULES: tuple[Rule[Rendered], ...] = (
    Rule(
        "reporter-renders",
        "It makes something of a comparison with a failed run in it.",
        "render every row; cells of a failed run have no value",
        _renders,
    ),
    Rule(
        "reporter-renders-nothing-too",
        "An empty comparison is no error, or one of harness's that says what is missing.",
        "expect a table without rows, or raise harness.UsageError",
        _renders_nothing_too,
    ),
    Rule(
        "reporter-escapes",
        "Names from plugins and data are escaped: tags, table separators, line breaks, control characters.",
        "escape every name: html.escape, a backslash before |, and spaces for control characters",
        _escapes,
    ),
    Rule(
        "reporter-stays-inside",
        "Files of a directory have relative paths inside it.",
        "yield paths such as pages/a.html",
        _stays_inside,
    ),
)
