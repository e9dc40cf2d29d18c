from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from sample_records import failure, record
from sample_store import example, report_of, write

from harness.errors import UsageError
from harness.report.pytest_benchmark import render


def test_render_has_the_samples_and_values_of_the_runs(tmp_path: Path) -> None:
    report = example(tmp_path)
    document = json.loads(render(report))
    rows = [row for row in report.table.rows if row.text("seeds") != "0"]
    assert len(document["benchmarks"]) == 3 * len(rows)
    train = document["benchmarks"][0]
    assert train["name"].startswith("train[nlp-cldr-langid-bert-tiny-torch-cpu-fp32")
    assert (
        train["stats"]["rounds"] == len(train["stats"]["data"]) == 4 * 22
    )  # four runs with 24 windows, of which 2 are warm-up
    assert train["stats"]["median"] == pytest.approx(statistics.median(train["stats"]["data"]))
    assert train["extra_info"]["quality"] == rows[0].text("quality")
    assert {b["extra_info"]["unit"] for b in document["benchmarks"]} == {"s per batch", "s per sample"}


def test_pytest_benchmark_compare_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "ours.json").write_text(render(example(tmp_path / "results")))
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "ours.json", "--csv=out.csv", "--sort=name"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "latency[nlp-cldr-langid-bert-tiny-torch" in done.stdout
    assert (tmp_path / "out.csv").read_text().count("\n") == len(
        json.loads((tmp_path / "ours.json").read_text())["benchmarks"]
    ) + 1


def test_render_failed_runs_only_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to write"):
        render(report_of(write(tmp_path, [record(failure())])))


def test_time_of_the_commit_is_not_the_time_of_the_run(tmp_path: Path) -> None:
    document = json.loads(render(example(tmp_path)))
    assert (document["commit_info"]["time"], document["commit_info"]["author_time"]) == (None, None)
    assert document["datetime"]
