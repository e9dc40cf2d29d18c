"""Tests of the rankings on the home page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from sample_records import failure, record, success
from sample_store import HOSTILE, report_of, write

from harness.records import MetricInfo, RunRecord
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


@pytest.mark.parametrize("seeds", [2, 3])
def test_home_page_explains_ties_for_lack_of_seeds(tmp_path: Path, seeds: int) -> None:
    page = home(report_of(write(tmp_path, runs("abc", "torch", "tensorflow", seeds=seeds))))
    assert page.count("scores are compared only over seeds or splits") == (seeds < 3)


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
