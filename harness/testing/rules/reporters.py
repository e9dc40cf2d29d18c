"""Rules for report formats. Each format is checked with a small report that contains hostile names."""

from __future__ import annotations

import json
import re
import tempfile
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import HarnessError, PluginError
from harness.interfaces import Reporter
from harness.plugins.catalog import Catalog
from harness.report.rendering import render_files, render_text, unaccepted_options
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.sample import sample_report

_TAGS = re.compile(r"<(html|body|div|table|td|tr|span|p|svg|ul|li|h[1-6])\b", re.IGNORECASE)
_RULER = re.compile(r"^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$")


class Rendered:
    """A report format, with its output for the sample report (cached)."""

    def __init__(self, reporter: Reporter, catalog: Catalog) -> None:
        self.reporter, self.catalog = reporter, catalog

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Rendered files by path. If the format returns a string, the path is an empty string."""
        with tempfile.TemporaryDirectory(prefix="harness-sample-") as directory:
            return self._render(sample_report(Path(directory), self.catalog))

    @cached_property
    def empty(self) -> dict[str, bytes]:
        """Rendered files for a report without runs."""
        from harness.report.report import Report

        return self._render(Report(runs=(), catalog=self.catalog))

    def _render(self, report: Any) -> dict[str, bytes]:
        if self.reporter.output == "directory":
            return dict(render_files(self.reporter, report, {}))
        return {"": render_text(self.reporter, report, {}).encode()}


def _renders(rendered: Rendered) -> None:
    if not any(rendered.files.values()):
        raise Broken("the output for a comparison of two backends is empty")


def _renders_an_empty_report(rendered: Rendered) -> None:
    try:
        rendered.empty  # noqa: B018
    except PluginError as error:
        raise Broken(str(error)) from None
    except HarnessError:
        return


def _accepts_its_options(rendered: Rendered) -> None:
    if not rendered.reporter.options:
        raise NotChecked("the format has no options")
    if missing := unaccepted_options(rendered.reporter):
        raise Broken(f"{rendered.reporter.render} has no keyword argument for {', '.join(map(repr, missing))}")


def _escapes(rendered: Rendered) -> None:
    for name, content in rendered.files.items():
        text = content.decode(errors="replace")
        if name.endswith((".js", ".css", ".png", ".svg")) or _is_json(text):
            continue
        where = f" in {name}" if name else ""
        is_page = _TAGS.search(text) is not None
        if (is_page or _has_table(text)) and "<script>alert(" in text:
            raise Broken(f"an HTML tag in a name was not escaped{where}")
        if "\x1b[31m" in text and not is_page:  # Control characters are interpreted by terminals, but not by browsers.
            raise Broken(f"a control character in a name was not escaped{where}")
        if not name and _has_table(text):
            _check_markdown(text)


def _stays_in_its_directory(rendered: Rendered) -> None:
    for name in rendered.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise Broken(f"the file {name!r} is outside the output directory")


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
                raise Broken(
                    f"a table row has {_columns(row)} columns, not {columns}: a separator in a name was not escaped"
                )


def _columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line.strip().strip("|"))) + 1


REPORTER_RULES: tuple[Rule[Rendered], ...] = (
    Rule(
        "reporter-renders",
        "The output for a comparison with a failed run is not empty.",
        "render every row, including rows for failed runs, whose cells are empty",
        _renders,
    ),
    Rule(
        "reporter-renders-an-empty-report",
        "For a report without runs, the reporter returns output or raises a HarnessError that states what is missing.",
        "handle a table without rows, or raise harness.UsageError",
        _renders_an_empty_report,
    ),
    Rule(
        "reporter-accepts-its-options",
        "The function accepts each option in `Reporter.options` as a keyword argument.",
        "add a keyword argument with a default value for each option, or remove the option",
        _accepts_its_options,
    ),
    Rule(
        "reporter-escapes",
        "Tags, table separators, line breaks and control characters in names from plugins and data are escaped.",
        "escape every name with html.escape, put a backslash before |, and replace control characters with spaces",
        _escapes,
    ),
    Rule(
        "reporter-stays-in-its-directory",
        "The paths of a report's files are relative and inside the output directory.",
        "yield paths such as pages/a.html",
        _stays_in_its_directory,
    ),
)
