"""Tests that every text in a record, including dictionary keys, is treated as text in every exported format."""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from command_line import Invoke
from harmful_text import harmful
from record_changes import TYPES, _at, _places
from sample_records import comparison
from sample_store import report_of, write

from harness.errors import RecordError, UsageError
from harness.records.store import RECORD, decode_record
from harness.report.plots.figure import PLOTS, figure
from harness.report.report import Report
from harness.report.site.build import files

EVIL = (
    "=1+1</script></style></title><script>zz()</script><!--<svg onload=zz()>'\"`${zz()}[z](javascript:zz())|\\input{zz}"
)
KEYS = re.compile(r"spec\.|schema_version|started_at|run_id|key$|^outcome\.type|primary|arrays_digest|repeat|objective")
"""Fields that are checked against others, so that a record with other values is excluded."""


def evil_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record in which every text and key is replaced, except where this would make the record invalid."""
    made = copy.deepcopy(record)
    for path, place in list(_places("", (), record)):
        if KEYS.search(path):
            continue
        value = _at(record, place)
        changed = copy.deepcopy(made)
        if isinstance(value, str):
            _at(changed, place[:-1])[place[-1]] = value + EVIL
        elif isinstance(value, dict) and not isinstance(TYPES.get(path), msgspec.inspect.StructType):
            _at(changed, place).update({EVIL: copy.deepcopy(next(iter(value.values())))} if value else {})
        else:
            continue
        try:
            decode_record(msgspec.json.encode(changed), Path("x"))
        except RecordError:
            continue
        made = changed
    return made


def write_results(path: Path, *, evil: bool) -> Path:
    write(path, comparison())
    replaced = 0
    for folder in sorted(path.iterdir()):
        record = json.loads((folder / RECORD).read_bytes())
        if evil:
            record = evil_record(record)
            replaced += json.dumps(record).count("zz()</script>")
            for name in ("task", "model", "backend", "dataset"):
                record["spec"][name] += EVIL
        (folder / RECORD).write_text(json.dumps(record))
    assert replaced > 100 or not evil
    return path


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Report]:
    """Reports of harmless records, and of the same records with markup in every text."""
    pair = [write_results(tmp_path_factory.mktemp("results"), evil=evil) for evil in (False, True)]
    return report_of(pair[0]), report_of(pair[1])


class _Markup(HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.handlers: list[str] = []
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self._inside = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "srcdoc"]
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action", "xlink:href")]
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data


def check_page(name: str, page: bytes) -> None:
    found = _Markup(page)
    assert found.handlers == [], name
    for script in found.scripts:
        # A script is either fixed or JSON, in which the text has no markup.
        assert "zz()</" not in script, name
        assert "zz()" not in script or isinstance(json.loads(script), dict | list), name
    for address in found.addresses:
        assert address == "data:," or not address.strip().lower().startswith(("javascript:", "data:", "//")), name
        assert "zz()" not in address, name


def _drawings(report: Report, suffix: str, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        with contextlib.suppress(UsageError):  # no run has the data for this plot
            yield name, figure(report, name, suffix)


def test_pages_of_the_site_contain_names_as_text(reports: tuple[Report, Report]) -> None:
    pages = {name: content for name, content in files(reports[1]) if name.endswith(".html")}
    assert len(pages) > 10
    assert any(b"zz()" in page for page in pages.values())
    for name, page in pages.items():
        check_page(name, page)
        assert "/" not in name or ".." not in name


def test_exported_plots_contain_names_as_text(reports: tuple[Report, Report]) -> None:
    pages = dict(_drawings(reports[1], ".html", PLOTS))
    assert len(pages) > 4
    for name, page in pages.items():
        check_page(name, page)
    drawn = [_drawings(report, ".svg", ("pareto", "confusion")) for report in reports[::-1]]
    for (name, evil), (_, harmless) in zip(*drawn, strict=True):
        tags = [{element.tag for element in ElementTree.fromstring(drawing).iter()} for drawing in (evil, harmless)]
        assert tags[0] <= tags[1] | {"{http://www.w3.org/2000/svg}tspan"}, name
        for element in ElementTree.fromstring(evil).iter():
            assert not any(attribute.lower().startswith("on") for attribute in element.attrib), name


@pytest.mark.parametrize("format_", ["csv", "markdown", "latex", "json", "text", "pytest-benchmark"])
def test_tables_contain_names_as_text(format_: str, invoke: Invoke, tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", evil=True)
    out = tmp_path / "out"
    result = invoke("report", "--format", format_, "--output", str(out), "--results", str(results))
    assert result.exit_code == 0, result.output
    text = out.read_text()
    assert "zz()" in text
    assert harmful(text) == []
    if format_ == "csv":
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert len({len(row) for row in rows}) == 1
        assert not [cell for row in rows for cell in row if cell.lstrip().startswith(("=", "@"))]
    elif format_ == "markdown":
        assert not re.search(r"(?<!\\)<script|(?<!\\)\[z|(?<!\\)<svg", text)
        tables = [line for line in text.splitlines() if line.startswith("|")]
        assert tables
    elif format_ == "latex":
        assert "\\input{" not in text
        assert not re.search(r"(?<!\\)\$\{", text)
    elif format_ != "text":
        json.loads(text)
