"""Tests of ``harness report`` with files and directories as output, and of ``harness history``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Invoke


@pytest.mark.usefixtures("results")
def test_report_html_writes_a_site(invoke: Invoke) -> None:
    done = invoke("report", "--format", "html", "--output", "site", "--title", "Ours")
    assert done.exit_code == 0, done.output
    assert "Saved 11 runs to site/index.html" in done.output
    assert "<title>Ours" in Path("site/index.html").read_text()
    again = invoke("report", "--format", "html", "--output", "site")
    assert again.exit_code == 0


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "html"), "pass --output with a directory"),
        (("--plot", "pareto"), "pass --output with a file"),
        (("--plot", "pareto", "--format", "csv", "--output", "a.svg"), "use only one of them"),
        (("--plot", "paretoo", "--output", "a.svg"), "did you mean 'pareto'"),
        (("--plot", "pareto", "--output", "a.bmp"), "unknown plot format '.bmp'; use an output file that ends in .svg"),
        (("--format", "htlm", "--output", "a"), "did you mean 'html'"),
        (("--format", "html", "--output", "results"), "contains other files"),
    ],
)
def test_report_wrong_request_writes_nothing(invoke: Invoke, arguments: tuple[str, ...], words: str) -> None:
    before = sorted(Path().iterdir())
    done = invoke("report", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert sorted(Path().iterdir()) == before


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("plot", ["pareto", "ratios", "memory"])
def test_report_plot_writes_a_figure(invoke: Invoke, plot: str) -> None:
    assert invoke("report", "--plot", plot, "--output", "figure.svg").exit_code == 0
    assert Path("figure.svg").read_text().startswith("<svg")


@pytest.mark.usefixtures("results")
def test_history_shows_each_spec(invoke: Invoke) -> None:
    done = invoke("history", "--all")
    assert done.exit_code == 0, done.output
    assert "nlp · cldr-langid · bert-tiny · torch · cpu · fp32" in done.output
    assert "train_samples_per_s  change" in done.output
    assert invoke("history", "--task", "speech").exit_code == 2
    found = json.loads(invoke("history", "--all", "--format", "json", "--metric", "latency_p50_ms").stdout)
    assert found[0]["points"][0]["figures"][0]["metric"] == "latency_p50_ms"
    assert "with only one row (use --all)" in invoke("history").stderr
