"""Tests of a run whose metrics are computed batch by batch: next-character prediction with perplexity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import harness_cli
from toy_plugin import SET_FAST, install, install_toy

from harness.deploy.attributions import positions_of
from harness.errors import UsageError
from harness.records.store import StoredRun, read_record

PLUGINS = ("--plugin", "harness_toy_positions", "--plugin", "harness_toy_language")


def harness(command: str, *arguments: Any, status: int = 0) -> Any:
    return harness_cli(command, *arguments, *PLUGINS, status=status)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Results directory with one run of the bigram model, with saved weights."""
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("results")
        chosen = ["--task", "toy-next", "--backend", "toy-language", "--threads", 1]
        settings = (*SET_FAST, "--set", "recipe.epochs=30", "--set", "recipe.learning_rate=0.1")
        harness("run", *chosen, *settings, "-q", "--save-weights", "--results", folder)
        yield folder


@pytest.fixture
def run(results: Path, toy: Path) -> Path:
    (found,) = results.glob("toy-next-toy-sentences-*")
    return found


def test_run_stores_scores_without_outputs(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    scores = record["outcome"]["scores"]
    assert 1 < scores["test"]["toy_perplexity"] < 20  # 27 for a uniform distribution
    assert scores["streamed"] is True
    assert list(scores["intervals"]) == ["toy_nats"]
    assert "computed batch by batch" in scores["no_interval"]["toy_perplexity"]
    assert [part["value"] for part in scores["slices"]] == ["shortened", "whole"]
    assert record["outcome"]["evidence"]["timed_examples"] > 0
    assert record["outcome"]["evidence"]["timed_error"] < 1e-6
    names = np.load(run / "arrays.npz").files
    assert not [name for name in names if name.endswith(("_outputs", "_targets"))]


def test_audit_states_what_cannot_be_checked(run: Path) -> None:
    findings = json.loads(harness("audit", run.name, "--format", "json", "--results", run.parent).stdout)
    assert not [each for each in findings if each["passed"] is False]
    reason = "the outputs were not stored, because the metrics were computed batch by batch"
    assert "scores match the predictions" in [each["check"] for each in findings if each["detail"] == reason]


def test_audit_notices_that_outputs_are_missing_from_another_run(run: Path, tmp_path: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    record["outcome"]["scores"]["streamed"] = False
    copy = tmp_path / run.name
    copy.mkdir()
    (copy / "record.json").write_text(json.dumps(record))
    (copy / "arrays.npz").write_bytes((run / "arrays.npz").read_bytes())
    text = harness("audit", run.name, "--results", tmp_path, status=1).stdout
    assert "test_outputs is missing" in text
    assert "contradicts their definitions" in text


def test_commands_that_need_outputs_state_the_reason(run: Path) -> None:
    reason = (
        "were not stored, because its metrics were computed batch by batch; repeat the run with "
        "--set protocol.save_outputs=true"
    )
    assert reason in harness_cli("predictions", run.name, "--results", run.parent, status=2).stderr
    assert (
        reason in harness("evaluate", run.name, "--backend", "toy-language", "--results", run.parent, status=2).stderr
    )
    with pytest.raises(UsageError, match=reason):
        positions_of(StoredRun(run, read_record(run / "record.json")), ["1"])


def test_reports_show_the_run(run: Path, tmp_path: Path) -> None:
    assert "perplexity" in harness("report", "--results", run.parent).stdout
    assert "toy_nats" in harness_cli("show", run.name, "--results", run.parent).stdout
    harness("report", "--format", "html", "--output", tmp_path / "site", "--results", run.parent)
    assert len(list((tmp_path / "site" / "runs").glob("*.html"))) == 1


def test_outputs_are_stored_on_request(run: Path, toy: Path, tmp_path: Path) -> None:
    chosen = ["--task", "toy-next", "--backend", "toy-language", "--threads", 1]
    settings = (*SET_FAST, "--set", "protocol.save_outputs=true", "--set", "recipe.epochs=1")
    harness("run", *chosen, *settings, "-q", "--results", tmp_path)
    (stored,) = tmp_path.glob("toy-next-toy-sentences-*")
    assert {"test_outputs", "validation_targets"} <= set(np.load(stored / "arrays.npz").files)
    scores = json.loads((stored / "record.json").read_text())["outcome"]["scores"]
    assert (scores["streamed"], list(scores["intervals"])) == (False, ["toy_nats"])
    findings = json.loads(harness("audit", stored.name, "--format", "json", "--results", tmp_path).stdout)
    assert not [each for each in findings if each["passed"] is False]
    harness_cli("predictions", stored.name, "--results", tmp_path)


@pytest.mark.slow
def test_plugin_follows_all_rules(toy: Path) -> None:
    harness_cli("plugin", "check", *PLUGINS, "harness_toy_language")


COUNTED = """
import os
import harness
from harness_toy_language import NextCharacter, Perplexity

class Counted(Perplexity):
    examples = 0

    def update(self, targets, outputs):
        self.examples += len(targets)
        super().update(targets, outputs)

    def compute(self):
        with open(os.environ["COUNTED"], "a") as file:
            file.write(f"{self.examples}\\n")
        return super().compute()

class CountedCharacter(NextCharacter):
    name, metric, metrics = "toy-counted", "toy_counted", ("toy_counted",)

@harness.hookimpl
def harness_tasks():
    yield CountedCharacter()

@harness.hookimpl
def harness_metrics():
    yield harness.Metric(
        name="toy_counted",
        objective="token_classification",
        function="counted_plugin:Counted",
        higher_is_better=False,
        summary="perplexity",
        bounds=(1.0, None),
        streaming=True,
    )
"""
"""Plugin whose metric writes the number of examples of each value to a file."""


def test_slices_are_computed_for_the_test_split_only(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counted_plugin.py").write_text(COUNTED)
    install(monkeypatch, tmp_path)
    monkeypatch.setenv("COUNTED", str(tmp_path / "counts.txt"))
    chosen = ["--task", "toy-counted", "--backend", "toy-language", "--threads", 1, "--plugin", "counted_plugin"]
    harness("run", *chosen, *SET_FAST, "--set", "recipe.epochs=1", "-q", "--results", tmp_path / "results")
    (stored,) = (tmp_path / "results").glob("toy-counted-*")
    outcome = json.loads((stored / "record.json").read_text())["outcome"]
    of_slices = [part["support"] for part in outcome["scores"]["slices"]]
    test, validation = outcome["examples"]["test"], outcome["examples"]["validation"]
    counts = (tmp_path / "counts.txt").read_text().split()
    assert sorted(map(int, counts)) == sorted([validation, test, validation, *of_slices])
