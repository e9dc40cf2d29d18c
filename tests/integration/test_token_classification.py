"""Tests of token classification with numpy backends: runs, parity, reports, evaluation and audit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import harness_cli
from toy_plugin import SET_FAST, install_toy

from harness.data.user_files.dataset import UserDataset
from harness.errors import CombinationError

PLUGIN = "harness_toy_positions"


def harness(command: str, *arguments: Any, status: int = 0) -> str:
    return harness_cli(command, *arguments, "--plugin", PLUGIN, status=status).stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Results directory with runs of two equivalent backends, with saved weights and parity checks."""
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("results")
        chosen = ["--task", "toy-tag", "--backend", "toy-positions,toy-positions-peer", "--threads", 1]
        settings = (*SET_FAST, "--set", "recipe.epochs=8")
        harness("run", *chosen, *settings, "-q", "--parity", "--save-weights", "--results", folder)
        yield folder


@pytest.fixture
def run(results: Path, toy: Path) -> Path:
    (found,) = results.glob("toy-tag-*-toy-positions-s0-*")
    return found


def test_run_stores_scores_and_arrays_of_positions(run: Path) -> None:
    outcome = json.loads((run / "record.json").read_text())["outcome"]
    scores = outcome["scores"]
    assert scores["test"]["toy_right"] > 0.9  # chance level, also if padding were trained as a class: 1/3
    assert (scores["confusion"], scores["per_class"], scores["intervals"]) == ([], [], {})
    assert sum(part["support"] for part in scores["slices"]) == 40
    arrays = np.load(run / "arrays.npz")
    assert (arrays["test_outputs"].shape, arrays["test_targets"].shape) == ((40, 6, 3), (40, 6))


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv", "json", "pytest-benchmark"])
def test_report_is_written_in_every_format(form: str, run: Path) -> None:
    text = harness("report", "--format", form, "--results", run.parent)
    assert "toy-positions-peer" in text
    if form in ("text", "markdown"):
        assert "parity same (0e+00)" in text


def test_site_is_written(run: Path, tmp_path: Path) -> None:
    harness("report", "--format", "html", "--output", tmp_path / "site", "--results", run.parent)
    assert len(list((tmp_path / "site").rglob("*.html"))) >= 3


@pytest.mark.parametrize("plot", ["confusion", "roc"])
def test_plots_of_classes_are_rejected(plot: str, run: Path, tmp_path: Path) -> None:
    harness("report", "--plot", plot, "--output", tmp_path / "x.svg", "--results", run.parent, status=2)


def test_other_backend_predicts_the_same(run: Path) -> None:
    text = harness("evaluate", run.name, "--backend", "toy-positions-peer", "--results", run.parent)
    assert "40 of 40 examples have the same predicted class" in text


def test_only_labeled_positions_are_compared(run: Path, tmp_path: Path) -> None:
    """Changed predictions for padding are ignored; a changed prediction of a labeled position counts."""
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    arrays = dict(np.load(run / "arrays.npz"))
    ignored = arrays["test_targets"] < 0
    assert ignored.any()
    arrays["test_outputs"] = np.where(ignored[..., None], -arrays["test_outputs"], arrays["test_outputs"])
    arrays["test_outputs"][3, 0] *= -1
    np.savez(copy / "arrays.npz", **arrays)
    printed = harness(
        "evaluate", run.name, "--backend", "toy-positions-peer", "--format", "json", "--results", tmp_path, status=1
    )
    assert json.loads(printed)["same_class"] == 39


def test_audit_passes(run: Path) -> None:
    text = harness("audit", run.name, "--results", run.parent)
    assert "scores match the predictions" in text
    assert "failed" not in text.lower()


def test_parity_detects_that_padding_is_trained_as_a_class(toy: Path, tmp_path: Path) -> None:
    backends = "toy-positions,toy-positions-faulty"
    text = harness("parity", "--task", "toy-tag", "--backend", backends, "--results", tmp_path, status=1)
    assert "DIFFERS: the training losses differ" in text


@pytest.mark.slow
def test_plugin_follows_all_rules_but_one(toy: Path) -> None:
    """Only the network of the faulty backend breaks a rule, as its results differ from those of other backends."""
    printed = harness_cli("plugin", "check", "--plugin", PLUGIN, PLUGIN, status=1).stdout
    broken = [line for line in printed.splitlines() if line.startswith("BROKEN")]
    assert len(broken) == 1, printed
    assert "network-matches-other-backends (network toy-positions/toy-positions-faulty)" in broken[0]


def test_user_files_are_rejected_for_token_classification(tmp_path: Path) -> None:
    with pytest.raises(CombinationError, match="token classification needs one label per position"):
        UserDataset(tmp_path / "x.csv", "text", "token_classification")
