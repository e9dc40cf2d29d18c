"""Tests of report formats against golden files; update the files with `HARNESS_UPDATE_GOLDEN=1 pytest tests/report`."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from sample_records import comparison, failure, record, success

from harness.analysis.comparison_table import COLUMNS, build_table
from harness.plugins import resolve
from harness.records import RunRecord
from harness.report.builtin import REPORTERS

GOLDEN = Path(__file__).parent / "golden"
SUFFIX = {"text": "txt", "markdown": "md", "csv": "csv", "json": "json", "latex": "tex"}


def render(name: str, records: list[RunRecord]) -> str:
    reporter = next(reporter for reporter in REPORTERS if reporter.name == name)
    text = resolve(reporter.render)(build_table(records))
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("name", SUFFIX)
def test_format_matches_golden_file(name: str) -> None:
    actual = render(name, comparison())
    path = GOLDEN / f"comparison.{SUFFIX[name]}"
    if os.environ.get("HARNESS_UPDATE_GOLDEN"):
        path.write_text(actual, encoding="utf-8")
    assert actual == path.read_text(encoding="utf-8")


def test_builtin_plugin_declares_all_formats() -> None:
    assert [reporter.name for reporter in REPORTERS] == [*SUFFIX, "pytest-benchmark", "html"]


@pytest.mark.parametrize("name", SUFFIX)
def test_format_without_rows_is_short(name: str) -> None:
    assert render(name, []).count("\n") < 10 * len(COLUMNS)


def test_all_formats_print_the_same_numbers() -> None:
    table = build_table(comparison())
    numbers = [column.name for column in table.columns if column.kind == "number"]
    from_csv = list(csv.DictReader(io.StringIO(render("csv", comparison()))))
    from_json = json.loads(render("json", comparison()))["rows"]
    text, markdown, latex = (render(name, comparison()) for name in ("text", "markdown", "latex"))
    for row, csv_row, json_row in zip(table.rows, from_csv, from_json, strict=True):
        for name in numbers:
            shown = row.cells[name].shown
            assert csv_row[name] == shown
            assert json_row[name] == (float(shown) if shown else None)
            assert csv_row[f"{name}_ci95"] == row.cells[name].shown_ci95
            assert re.search(rf"(?<![\d.]){re.escape(shown)}(?![\d.])", text)
            assert re.search(rf"(?<![\d.]){re.escape(shown)}(?![\d.])", markdown)
            assert re.search(rf"(?<![\d.]){re.escape(shown)}(?![\d.])", latex)


def test_text_of_cpu_runs_fits_a_terminal() -> None:
    outcomes = [success(0.7 + seed / 100, train=1000.0 + seed * 9, p99_ms=15.0 + seed) for seed in range(3)]
    records = [record(o, seed=seed, backend=b) for seed, o in enumerate(outcomes) for b in ("torch", "tensorflow")]
    text = render("text", records)
    assert "· 3 seeds · parity unchecked\n" in text
    assert max(map(len, text.splitlines())) <= 120


def test_text_of_one_backend_has_no_ratios() -> None:
    assert "×" not in render("text", [record(model="lstm"), record(model="bert-tiny")])
    assert "×" in render("text", [record(), record(backend="tensorflow")])


def test_text_keeps_a_failed_run_without_device_in_the_block() -> None:
    text = render("text", [record(failure(), backend="tensorflow", device="auto"), record(), record(task="vision")])
    block = text.partition("\n\nvision")[0]
    assert [line.split()[:2] for line in block.splitlines() if line.startswith("t")] == [
        ["tensorflow", "auto"],
        ["torch", "cpu"],
    ]


def test_text_lists_all_failures() -> None:
    text = render(
        "text", [record(failure("crash", "killed by SIGSEGV")), record(failure("timeout", "too slow"), seed=1)]
    )
    assert "failed: crash, timeout" in text
    assert "! torch, seed 0: crash: killed by SIGSEGV; seed 1: timeout: too slow" in text


def test_text_has_one_remark_if_it_applies_to_all_rows() -> None:
    both = [replace(record(backend=backend), quality_only=True) for backend in ("torch", "tensorflow")]
    remark = "quality only: speed and memory were not measured"
    assert f"! flagged: all rows, {remark}" in render("text", both)
    assert f"! flagged: torch, {remark}" in render("text", [both[0], record(backend="tensorflow")])


@pytest.mark.parametrize("name", ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", " =1", "\t=1"])
def test_csv_escapes_formulas(name: str) -> None:
    rows = list(csv.DictReader(io.StringIO(render("csv", [record(model=name, dataset=name)]))))
    assert rows[0]["model"] == rows[0]["dataset"] == f"'{name}"


def test_csv_does_not_escape_negative_numbers() -> None:
    found = render("csv", [record(success(0.5, test={"accuracy": -0.25}))])
    assert ",-0.2500," in found


def test_csv_with_commas_quotes_and_newlines_round_trips() -> None:
    name = 'a,"b"\nc'
    rows = list(csv.DictReader(io.StringIO(render("csv", [record(dataset=name)]))))
    assert rows[0]["dataset"] == name


def test_markdown_escapes_markup() -> None:
    text = render("markdown", [record(model="a|b\nc`*<x>", dataset="#1"), record(model="two", dataset="#1")])
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert r"a\|b c\`\*\<x\>" in text
    assert r"\#1" in text


def test_text_removes_control_characters() -> None:
    text = render("text", [record(failure("error", "\x1b[31mred\x07\nnext"), model="m\x1b[2J")])
    assert text.replace("\n", "").isprintable()
    assert "next" in text


def test_json_describes_its_columns() -> None:
    document = json.loads(render("json", comparison()))
    assert document["schema_version"] == 1
    units = {column["name"]: column["unit"] for column in document["columns"]}
    assert (units["train_samples_per_s"], units["latency_p90_ms"], units["host_peak_mib"]) == ("samples/s", "ms", "MiB")
    names = {name for row in document["rows"] for name in row}
    assert {name.removesuffix("_ci95") for name in names} == set(units)
