"""Tests that names from records are shown as text in pages and plots, and never become markup or scripts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import comparison
from sample_store import report_of, write

from harness.records import Success
from harness.report.plots.embedding import cleaned, embedded_json, vega
from harness.report.plots.figure import figure
from harness.report.report import Report

EVIL = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]><img src=x onerror=alert(1)>",
    "a\u2028b\u2029c",
    "\x1b[31m\x07\b\r\u202egnp.exe",
    "\ufffe\uffff\x00",
    "&lt;&#60;\"'`${alert(1)}",
]


def named(path: Path, name: str) -> Report:
    """Return a report whose backend and labels have this name."""
    made = []
    for record in comparison():
        spec = msgspec.structs.replace(record.spec, backend=name) if record.spec.backend == "torch" else record.spec
        outcome = record.outcome
        if isinstance(outcome, Success) and outcome.scores.per_class:
            classes = [msgspec.structs.replace(one, label=name + one.label) for one in outcome.scores.per_class]
            scores = msgspec.structs.replace(outcome.scores, per_class=classes)
            outcome = msgspec.structs.replace(outcome, scores=scores)
        made.append(msgspec.structs.replace(record, spec=spec, outcome=outcome))
    return report_of(write(path, made))


class _Scripts(HTMLParser):
    """The start tags of a page, and the content of its script elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and self.scripts:
            self.scripts[-1] += data


def strings(value: object) -> set[str]:
    """Return all strings in plain data."""
    if isinstance(value, str):
        return {value}
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return {text for each in values for text in strings(each)}


@pytest.mark.parametrize("name", [EVIL[0], "".join(EVIL)], ids=["script", "all"])
def test_exported_plot_has_the_elements_of_a_harmless_one(name: str, tmp_path: Path) -> None:
    pages = []
    for number, label in enumerate((name, "harmless")):
        parser = _Scripts()
        parser.feed(figure(named(tmp_path / str(number), label), "pareto", ".html").decode())
        pages.append(parser)
    assert pages[0].tags == pages[1].tags
    assert len(pages[0].scripts) == 3
    assert cleaned(name) in strings(json.loads(pages[0].scripts[1]))


@pytest.mark.parametrize("name", [EVIL[0], "".join(EVIL)], ids=["script", "all"])
def test_exported_drawing_is_valid_xml_without_elements_from_names(name: str, tmp_path: Path) -> None:
    tags = []
    for number, label in enumerate((name, "harmless")):
        drawing = figure(named(tmp_path / str(number), label), "pareto", ".svg")
        tags.append({element.tag for element in ElementTree.fromstring(drawing).iter()})
    assert tags[0] == tags[1]
    assert not any(tag.endswith(("script", "img", "foreignObject")) for tag in tags[0])


@given(st.recursive(st.none() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)))
def test_embedded_json_has_no_markup_and_keeps_the_value(value: object) -> None:
    text = embedded_json(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value


def test_plotting_library_does_not_end_its_script_element() -> None:
    script = vega().decode().lower()
    assert "</script" not in script
    assert "<!--" not in script
