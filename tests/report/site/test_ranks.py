"""Tests of the rankings on the home page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from command_line import Invoke
from sample_records import failure, record, success
from sample_store import HOSTILE, report_of, write

import harness
from harness.records import MetricInfo, RunRecord
from harness.records.store import ARRAYS, Store
from harness.report.report import Report
from harness.report.site.build import files
from harness.report.site.ranks import MAX_CONTENDERS, rankings


def runs(datasets: str, *backends: str, seeds: int = 3) -> list[RunRecord]:
    made = []
    for dataset in datasets:
        for place, backend in enumerate(backends):
            for seed in range(seeds):
                outcome = success(0.9 - 0.1 * place + 0.001 * seed)
                known = {"accuracy": MetricInfo(higher_is_better=True)}
                outcome = msgspec.structs.replace(
                    outcome, scores=msgspec.structs.replace(outcome.scores, metrics=known)
                )
                made.append(record(outcome, dataset=dataset, backend=backend, seed=seed))
    return made


def home(report: Report) -> str:
    return next(content.decode() for name, content in files(report) if name == "index.html")


@pytest.mark.parametrize(("datasets", "shown"), [("ab", False), ("abc", True)])
def test_rankings_need_three_datasets(tmp_path: Path, datasets: str, shown: bool) -> None:
    page = home(report_of(write(tmp_path, runs(datasets, "torch", "tensorflow"))))
    assert ("Ranking across datasets" in page) == shown


def test_ranking_of_the_home_page_equals_that_of_the_command(tmp_path: Path) -> None:
    report = report_of(write(tmp_path, runs("abc", "torch", "tensorflow")))
    titles = [title for title, *_ in rankings(report)]
    assert titles == [
        f"{name} by backend · 3 datasets · no failed runs"
        for name in ("quality", "train_samples_per_s", "inference_samples_per_s")
    ]
    page = home(report)
    cells = re.findall(r"<td>torch \(baseline\)</td><td[^>]*>([^<]*)</td>", page)
    assert cells == ["1.00", "1.50", "1.50"]
    names = re.findall(r'id="plot-(rank-\d+-0)"', page)
    assert names == ["rank-0-0", "rank-1-0", "rank-2-0"]


def single_seeds(directory: Path, *, correct: int) -> Path:
    """Write runs of one seed. For ``torch``, the class of every test example is predicted correctly. For
    ``tensorflow``, `correct` of the 80 predictions are correct."""
    path = write(directory, runs("abc", "torch", "tensorflow", seeds=1))
    for stored in Store(path).load().runs:
        targets = np.arange(80) % 2
        share = 80 if stored.record.spec.backend == "torch" else correct
        predicted = np.where(np.arange(80) < share, targets, 1 - targets)
        arrays = {"test_targets": targets, "test_outputs": np.eye(2, dtype="float32")[predicted]}
        np.savez(stored.path / ARRAYS, **arrays)
    return path


@pytest.mark.parametrize(("correct", "ties"), [(40, 0), (79, 3)])
def test_page_command_and_python_have_the_same_ties(tmp_path: Path, invoke: Invoke, correct: int, ties: int) -> None:
    path = single_seeds(tmp_path / "results", correct=correct)
    (ranking,) = json.loads(invoke("rank", "--results", str(path), "--format", "json").stdout)
    standings = ranking["placements"][0]["standings"]["contenders"]
    assert [one["ties"] for one in standings] == [ties, ties]
    page = home(report_of(path))
    first = next(one for one in standings if one["name"] == "torch")
    cells = re.findall(r"<td>torch \(baseline\)</td>(?:<td[^>]*>[^<]*</td>){4}<td[^>]*>([^<]*)</td>", page)
    assert cells[0] == f"{first['wins']}/{first['ties']}/{first['losses']}"
    assert msgspec.to_builtins(harness.load(path).rank()) == ranking


def test_ranking_with_unreadable_predictions_names_the_file(tmp_path: Path, invoke: Invoke) -> None:
    path = single_seeds(tmp_path / "results", correct=40)
    damaged = next(path.glob("*tensorflow*")) / ARRAYS
    damaged.write_bytes(b"damaged")
    result = invoke("rank", str(path))
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert str(damaged) in text
    assert "comparisons that depend on an unreadable file count as ties" in text
    assert "comparisons that depend on an unreadable file count as ties" in home(report_of(path))


def test_home_page_shows_both_policies_for_failed_runs(tmp_path: Path) -> None:
    records = [*runs("abc", "torch", "tensorflow"), record(failure(), dataset="a", backend="tensorflow", seed=3)]
    titles = [title for title, *_ in rankings(report_of(write(tmp_path, records)))]
    assert titles[:2] == [
        "quality by backend · 3 datasets · failed runs excluded",
        "quality by backend · 3 datasets · failed runs imputed with results of torch",
    ]


def test_names_are_escaped(tmp_path: Path) -> None:
    page = home(report_of(write(tmp_path, runs("abc", "torch", HOSTILE))))
    found = [text in page for text in ("Ranking across datasets", "<script>document", "<img src=x")]
    assert found == [True, False, False]


def test_one_contender_and_very_many_are_not_ranked(tmp_path: Path) -> None:
    names = [f"b{number}" for number in range(MAX_CONTENDERS + 1)]
    assert rankings(report_of(write(tmp_path / "one", runs("abc", "torch")))) == []
    assert rankings(report_of(write(tmp_path / "many", runs("abc", *names, seeds=1)))) == []


def test_chart_is_valid_vega_lite(tmp_path: Path) -> None:
    import altair as alt

    charts = [chart for *_, drawn in rankings(report_of(write(tmp_path, runs("abc", "a", "b")))) for _, chart in drawn]
    assert charts
    for chart in charts:
        document: dict[str, Any] = json.loads(json.dumps(chart.to_dict(validate=False)))
        jsonschema.validate(document, alt.load_schema())
