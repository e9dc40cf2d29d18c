"""Tests that the tables of the results page match the records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import harness_cli

from harness.checks.audit.check import Subject
from harness.checks.audit.identity import CHECKS
from harness.checks.parity.verdict import FOLDER
from harness.checks.parity.verdict import load as load_verdicts
from harness.plugins import load
from harness.records import Success
from harness.records.samples import stored
from harness.records.store import Store

ROOT = Path(__file__).parents[2]


def test_published_results_match_the_records() -> None:
    published = pytest.importorskip("benchmarks.published")
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    printed = published.table(ROOT / "results" / "reference")
    assert printed.count("\n") > 2
    assert printed in page, "run: python -m benchmarks.published table"


def test_default_runs_match_the_records() -> None:
    reference = pytest.importorskip("benchmarks.reference")
    assert reference.GROUPS["defaults"].missing() == [], "run: make reference"
    for group in reference.GROUPS.values():
        shown = group.page.read_text(encoding="utf-8").partition(group.begin)[2].partition(reference.END)[0]
        assert shown
        if group.records():
            assert shown == group.section(), "run: python -m benchmarks.reference --no-run"
    assert (ROOT / "docs" / "pareto.svg").read_text().startswith("<svg")


def test_overview_of_reference_results_matches_the_records() -> None:
    reference = pytest.importorskip("benchmarks.reference")
    page = (reference.REFERENCE / "README.md").read_text(encoding="utf-8")
    shown = page.partition(reference.OVERVIEW)[2].partition(reference.END)[0]
    assert shown == reference.overview(), "run: python -m benchmarks.reference --no-run"
    groups = {path.name for path in reference.REFERENCE.iterdir() if path.is_dir()}
    assert groups <= set(reference.SHOWN)


def test_verdicts_of_the_default_runs_are_kept() -> None:
    reference = pytest.importorskip("benchmarks.reference")
    marks = {mark.verdict for record in reference.GROUPS["defaults"].records() for mark in record.parity}
    kept = load_verdicts(reference.REFERENCE)
    assert marks
    assert kept == {verdict.key: verdict for verdict in reference.verdicts()}, "run: python -m benchmarks.reference"
    assert kept.keys() == marks


def test_every_stored_verdict_belongs_to_a_record() -> None:
    """Tables and audits use a verdict only for records whose parity marks name it."""
    reference = pytest.importorskip("benchmarks.reference")
    folders = [path for path in reference.REFERENCE.rglob(FOLDER) if path.is_dir()]
    assert reference.DEFAULTS / FOLDER in folders
    for folder in folders:
        results = reference.DEFAULTS if folder.parent == reference.REFERENCE else folder.parent
        named = {mark.verdict for run in Store(results).load().runs for mark in run.record.parity}
        stored = load_verdicts(folder.parent)
        assert len(stored) == len(list(folder.iterdir())), f"{folder}: a file is not a verdict of this version"
        assert stored.keys() <= named, f"{folder}: remove the verdicts that no record names"


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_no_half_width_is_rounded_to_zero(page: str) -> None:
    shown = re.findall(r"± *(<?[\d.e+-]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [half for half in shown if not re.search("[1-9]", half.partition("e")[0])] == []
    assert shown or page == "README.md"


@pytest.mark.parametrize("name", ["defaults", "demo", "lstm"])
def test_raw_samples_of_every_run_that_a_page_shows_are_kept(name: str) -> None:
    reference = pytest.importorskip("benchmarks.reference")
    results = reference.GROUPS[name].results
    loaded = Store(results).load()
    assert loaded.runs
    assert loaded.problems == []
    (complete,) = [check for check in CHECKS if check.name == "the raw samples are complete"]
    for run in loaded.runs:
        assert isinstance(run.record.outcome, Success), run.path
        assert stored(run), f"{run.path}: the raw samples are missing"
        finding = complete.finding(Subject(run, load([])))
        assert finding.passed, f"{run.path}: {finding.detail}"


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_every_table_of_runs_follows_from_kept_records(page: str) -> None:
    """Outside of the sections that are written from the records, a page has no table with speeds of runs."""
    reference = pytest.importorskip("benchmarks.reference")
    text = (ROOT / page).read_text(encoding="utf-8")
    sections = [group for group in reference.GROUPS.values() if group.page == ROOT / page]
    assert sections
    for group in sections:
        before, _, rest = text.partition(group.begin)
        text = before + rest.partition(reference.END)[2]
    tables = [line for line in text.splitlines() if line.startswith(("torch ", "tensorflow ", "|"))]
    assert [line for line in tables if "samples" in line or re.search("^(torch|tensorflow) ", line)] == []


def test_every_published_run_is_kept_with_its_scores() -> None:
    published = pytest.importorskip("benchmarks.published")
    for name in published.GROUPS:
        for run in Store(published.RESULTS / name).load().runs:
            assert isinstance(run.record.outcome, Success)
            assert name == "uci" or stored(run), f"{run.path}: the raw samples are missing"


@pytest.mark.plugins("vision", "torch", "tensorflow")
def test_example_of_a_comparison_follows_from_the_records() -> None:
    page = (ROOT / "docs" / "how-to" / "compare-versions.md").read_text(encoding="utf-8")
    command, shown = re.search(r"^\$ harness (.*)\n((?:.*\n)*?)```", page, re.MULTILINE).groups()  # type: ignore[union-attr]
    arguments = [str(ROOT / word) if word.startswith("results/") else word for word in command.split()]
    assert harness_cli(*arguments).stdout.startswith(shown)
