"""Tests of saved weights and of ``harness evaluate``."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import harness_cli, harness_process
from toy_plugin import SET_FAST, install_toy

from harness.checks.evaluate import evaluate
from harness.errors import RecordError, UsageError
from harness.execute.weights import load, save
from harness.plugins import load as load_plugins
from harness.plugins.catalog import Catalog
from harness.plugins.failures import PluginFailure
from harness.records import PluginRef
from harness.records.store import WEIGHTS, Store

pytestmark = pytest.mark.usefixtures("toy", "faulty")
EVALUATE = ("--backend", "peer-wide")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results directory with one run and its weights."""
    results = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        chosen = ("--task", "toy-classify", "--backend", "toy-numpy", *SET_FAST)
        harness_cli("run", *chosen, "-q", "--save-weights", results=results)
    return results


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return the path of a copy of the run that the test may change."""
    shutil.copytree(trained, tmp_path / "results")
    (run,) = (tmp_path / "results").glob("[!.]*")
    return run


def test_saved_weights_are_read_back_unchanged(tmp_path: Path) -> None:
    weights = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.zeros((), np.float32)}
    save(tmp_path / WEIGHTS, weights)
    read = load(tmp_path / WEIGHTS)
    assert read.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array)
    (tmp_path / WEIGHTS).write_bytes(b"not a checkpoint")
    with pytest.raises(RecordError, match=r"weights\.safetensors: cannot be read"):
        load(tmp_path / WEIGHTS)


def test_equivalent_backend_agrees(run: Path) -> None:
    command = ("evaluate", run.name, *EVALUATE, "--results", str(run.parent))
    done = harness_process(*command, "--format", "json", cwd=run)
    assert done.returncode == 0, done.stdout + done.stderr
    evaluation = json.loads(done.stdout)
    assert evaluation["same_class"] == evaluation["examples"] == 40
    assert evaluation["evaluated_scores"]["accuracy"] == evaluation["trained_scores"]["accuracy"]
    text = harness_cli(*command).stdout
    assert "40 of 40 examples have the same predicted class" in text
    assert "the predictions agree" in text


def test_changed_weights_are_noticed(run: Path) -> None:
    save(run / WEIGHTS, {name: -array for name, array in load(run / WEIGHTS).items()})
    done = harness_cli("evaluate", run.name, *EVALUATE, results=run.parent, status=1)
    assert "the predictions DIFFER" in done.stdout


def test_run_without_weights_names_the_option(run: Path) -> None:
    (run / WEIGHTS).unlink()
    done = harness_cli("evaluate", run.name, *EVALUATE, results=run.parent, status=2)
    assert "--save-weights" in done.stderr


def test_failing_backend_is_an_error(run: Path) -> None:
    done = harness_cli("evaluate", run.name, "--backend", "peer-broken", results=run.parent, status=1)
    assert "peer-broken could not evaluate the run: no wheels" in done.stderr


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [
        ("toy-peers", "unknown backend 'peer-wide'"),  # the backend to evaluate with
        ("toy", "the task 'toy-classify' of the run is not available: "),
        ("core-metrics", "unknown metric 'accuracy'"),
    ],
)
def test_disabled_plugin_is_named_with_the_way_to_load_it(
    run: Path, plugin: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DISABLE_PLUGINS", plugin)
    done = harness_cli("evaluate", run.name, *EVALUATE, results=run.parent, status=2)
    assert done.stderr.startswith(f"Error: {problem}")
    assert f"plugin {plugin!r}" in done.stderr
    assert "remove it from HARNESS_DISABLE_PLUGINS" in done.stderr


def test_absent_network_names_the_plugins_that_are_not_loaded(
    run: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_plugins([plugin.ref for plugin in catalog.plugins if plugin.ref.name != "toy-faults"])
    networks = {pair: network for pair, network in loaded.networks.items() if pair[1] != "toy-numpy"}
    failure = PluginFailure(PluginRef(name="more", value="more", distribution="file", version=""), "it is broken")
    partial = dataclasses.replace(loaded, networks=networks, failures=(failure,))
    (stored,) = Store(run.parent).load().runs
    with pytest.raises(UsageError, match="no plugin provides model") as error:
        evaluate(stored, "toy-numpy", partial, device="auto", timeout_s=10)
    assert "plugin 'more' (file) is not loaded: it is broken" in str(error.value)
