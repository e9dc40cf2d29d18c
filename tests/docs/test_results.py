"""Tests that the tables of the results page match the records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import harness_cli

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


@pytest.mark.plugins("vision", "torch", "tensorflow")
def test_example_of_a_comparison_follows_from_the_records() -> None:
    page = (ROOT / "docs" / "how-to" / "compare-versions.md").read_text(encoding="utf-8")
    command, shown = re.search(r"^\$ harness (.*)\n((?:.*\n)*?)```", page, re.MULTILINE).groups()  # type: ignore[union-attr]
    arguments = [str(ROOT / word) if word.startswith("results/") else word for word in command.split()]
    assert harness_cli(*arguments).stdout.startswith(shown)
