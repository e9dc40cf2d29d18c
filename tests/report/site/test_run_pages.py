"""Tests of run pages that are rendered in child processes."""

from __future__ import annotations

import dataclasses
import shlex
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sample_records import record, success
from sample_store import example, many, report_of, write

from harness.checks.results.merge import combined
from harness.errors import HarnessError
from harness.records import DataSource
from harness.report.site import run_pages
from harness.report.site.build import files


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_pages, "_MIN_RUNS", 1)
    monkeypatch.setattr(run_pages, "available_cores", lambda: 3)


def test_pages_from_child_processes_are_the_same(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    report = example(tmp_path)
    here = dict(files(report))
    request.getfixturevalue("processes")
    assert dict(files(report)) == here


def test_page_of_a_run_with_another_id_than_in_its_file_shows_the_new_id(tmp_path: Path) -> None:
    """The repeats of runs in several results directories are numbered again in a bundle."""
    runs = [
        *report_of(write(tmp_path / "one", [record()])).runs,
        *report_of(write(tmp_path / "other", [record(started_at="2099-01-01T00:00:00Z")])).runs,
    ]
    report = dataclasses.replace(example(tmp_path / "example"), runs=tuple(combined(runs)), verdicts=())
    pages = {name: content.decode() for name, content in files(report) if name.startswith("runs/")}
    first, second = (run.record.run_id for run in report.runs)
    assert first.removesuffix("-1") == second.removesuffix("-2")
    assert f'<h1 class="run">{second}</h1>' in pages[f"runs/{second}.html"]
    assert "<dt>repeat</dt><dd>2</dd>" in pages[f"runs/{second}.html"]
    assert f'href="{first}.html"' in pages[f"runs/{second}.html"]


@pytest.mark.usefixtures("processes")
def test_a_record_that_disappears_is_named(tmp_path: Path) -> None:
    report = report_of(write(tmp_path, many(6)))
    record = report.runs[4].path / "record.json"
    record.unlink()
    with pytest.raises(HarnessError, match=f"the run pages of the site cannot be rendered: {record}"):
        dict(files(report))


def test_a_page_that_cannot_be_rendered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("figure")

    report = report_of(write(tmp_path, many(2)))
    monkeypatch.setattr(run_pages.run_page, "context", broken)
    with pytest.raises(RuntimeError, match=r"runs/\S+\.html cannot be rendered: KeyError\('figure'\)"):
        dict(files(report))


@pytest.mark.parametrize("sizes", [[1], [1] * 7, [10, 1, 1, 5], [3, 4], [0, 2, 9]])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_shares_contain_every_page_once_and_are_even(sizes: list[int], count: int) -> None:
    rows = [
        run_pages.PagesOfRow(str(row), {}, [run_pages.Page(f"{row}/{page}", "", "", 1, "") for page in range(size)])
        for row, size in enumerate(sizes)
    ]
    shares = run_pages._shares(rows, count)
    pages = [[page.address for row in share for page in row.pages] for share in shares]
    assert sorted(chain(*pages)) == sorted(page.address for row in rows for page in row.pages)
    assert max(map(len, pages)) - min(map(len, pages)) <= 1


def test_command_of_a_run_keeps_a_path_that_looks_like_an_option(tmp_path: Path) -> None:
    path = "/data/a --seed 7 --split 8/x.csv"
    source = DataSource(path=path, guessed=())
    records = [
        msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, dataset="x.csv", source=source))
        for made in (record(success(), seed=seed) for seed in (1, 2))
    ]
    report = report_of(write(tmp_path, records))
    addresses = {run.record.run_id: "page" for run in report.runs}
    commands = [shlex.split(page.command) for row in run_pages._rows(report, addresses) for page in row.pages]
    chosen = [[words[words.index(name) + 1] for name in ("--dataset", "--seed")] for words in commands]
    assert chosen == [[path, "1"], [path, "2"]]
