"""Tests of ``harness rank`` with handwritten records."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest
from command_line import Invoke
from sample_records import failure, record, success
from sample_store import HOSTILE, write

from harness.records import MetricInfo, RunRecord


def runs(values: dict[str, dict[str, float]]) -> list[RunRecord]:
    """Return three seeds with these accuracies, by dataset and backend."""
    made = []
    for dataset, by_backend in values.items():
        for backend, value in by_backend.items():
            for seed in range(3):
                outcome = success(value + 0.001 * seed)
                known = {"accuracy": MetricInfo(higher_is_better=True)}
                outcome = msgspec.structs.replace(
                    outcome, scores=msgspec.structs.replace(outcome.scores, metrics=known)
                )
                made.append(record(outcome, dataset=dataset, backend=backend, seed=seed))
    return made


@pytest.fixture
def rank(invoke: Invoke) -> Invoke:
    """Return a function that runs ``harness rank``."""
    return lambda *words: invoke("rank", *map(str, words))


VALUES = {name: {"torch": 0.9, "tensorflow": 0.7} for name in "abcde"}


@pytest.fixture
def ranked(tmp_path: Path) -> Path:
    return write(tmp_path / "ranked", [*runs(VALUES), record(failure(), dataset="a", backend="tensorflow", seed=3)])


def test_rank_prints_both_policies_for_failed_runs(rank: Invoke, ranked: Path) -> None:
    result = rank(ranked)
    assert (result.exit_code, result.stderr) == (0, "")
    headings = [line for line in result.stdout.splitlines() if line.startswith("quality by backend")]
    assert headings == [
        "quality by backend · 5 datasets · failed runs excluded",
        "quality by backend · 5 datasets · failed runs imputed with results of torch",
    ]
    assert "torch (baseline)         1.00" in result.stdout
    assert "failed runs: tensorflow 1" in result.stdout


def test_rank_reads_the_directory_of_the_option_results(rank: Invoke, ranked: Path, tmp_path: Path) -> None:
    assert rank("--results", ranked).stdout == rank(ranked).stdout != ""
    refused = rank(ranked, "--results", tmp_path / "b")
    assert refused.exit_code == 2
    assert f"pass all results directories as arguments: harness rank {ranked} {tmp_path / 'b'}" in refused.stderr


def test_rank_prints_one_table_without_failed_runs(rank: Invoke, tmp_path: Path) -> None:
    stored = write(tmp_path / "fine", runs(VALUES))
    assert rank(stored).stdout.count("· no failed runs") == 1


def test_rank_formats_agree(rank: Invoke, ranked: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(rank(ranked, "--format", "csv").stdout)))
    (ranking,) = json.loads(rank(ranked, "--format", "json").stdout)
    assert len(rows) == 4
    for row in rows:
        placement = next(one for one in ranking["placements"] if one["failures"] == row["failures"])
        standing = next(one for one in placement["standings"]["contenders"] if one["name"] == row["name"])
        for name, value in standing.items():
            assert row[name] == ("" if value is None else value if isinstance(value, str) else f"{value:.6g}")
    assert [row["failed"] for row in rows] == ["0", "1"] * 2
    assert "| torch (baseline) |" in rank(ranked, "--format", "markdown").stdout


def test_rank_combines_directories_and_counts_each_run_once(rank: Invoke, tmp_path: Path, ranked: Path) -> None:
    more = write(tmp_path / "more", runs({"f": {"torch": 0.9, "tensorflow": 0.7}}))
    text = rank(ranked, more, ranked, "--format", "json").stdout
    found = json.loads(text)[0]["placements"][0]["standings"]
    assert found["datasets"] == 6
    assert {one["wins"] + one["losses"] for one in found["contenders"]} == {6}


def test_rank_uses_the_default_directory(rank: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "results", runs(VALUES))
    assert rank().exit_code == 0


def test_rank_ranks_several_metrics(rank: Invoke, ranked: Path) -> None:
    names = [
        one["metric"]
        for one in json.loads(rank(ranked, "--metric", "quality,latency_p50_ms", "--format", "json").stdout)
    ]
    assert names == ["quality", "latency_p50_ms"]


def test_rank_too_few_datasets_says_so(rank: Invoke, ranked: Path) -> None:
    text = rank(ranked, "--dataset", "a,b").stdout
    assert "too few datasets for confidence intervals (2): at least 3 are required" in text
    assert "With 2 datasets, no difference between mean ranks is significant (Nemenyi's test, 5%)." in text


@pytest.mark.parametrize("suffix", [".svg", ".json"])
def test_rank_writes_a_plot(rank: Invoke, ranked: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ranks{suffix}"
    assert rank(ranked, "--plot", path).exit_code == 0
    assert "critical difference" in path.read_text()


def test_rank_rejects_wrong_requests(rank: Invoke, ranked: Path, tmp_path: Path) -> None:
    for words, reason in (
        (("--by", "bakend"), "unknown field 'bakend'; did you mean 'backend'?"),
        (("--metric", "qualty"), "unknown metric 'qualty'; did you mean 'quality'?"),
        (("--baseline", "jax"), "unknown baseline 'jax'"),
        (("--by", "model"), "all runs have the model 'bert-tiny'"),
        (("--backend", "jax"), "has no matching runs"),
        (("--plot", str(tmp_path / "plot.gif")), "unknown plot format '.gif'"),
    ):
        result = rank(ranked, *words)
        assert result.exit_code == 2
        assert reason in result.stderr
    missing = rank(tmp_path / "missing")
    assert missing.exit_code == 2
    assert "contains no runs" in missing.stderr


def test_rank_escapes_names(rank: Invoke, tmp_path: Path) -> None:
    hostile = HOSTILE + "|`x`\x1b[31m"
    stored = write(tmp_path / "hostile", runs({hostile + d: {"torch": 0.9, hostile: 0.8, "=1+1": 0.7} for d in "abc"}))
    for form in ("text", "markdown", "csv"):
        result = rank(stored, "--format", form)
        assert result.exit_code == 0, result.output
        if form != "csv":
            assert "\x1b" not in result.stdout
        if form == "markdown":
            assert "<script>" not in result.stdout.replace("\\<", "")
    rows = list(csv.DictReader(io.StringIO(rank(stored, "--format", "csv").stdout)))
    assert "'=1+1" in {row["name"] for row in rows}
    page = tmp_path / "plot.html"
    assert rank(stored, "--plot", page).exit_code == 0
    assert "<img src=x" not in page.read_text()
