"""A plugin with a task whose primary metric is better if it is lower, for tests of records without their plugin."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_plugin import FAST, TOY_REF, install, install_toy

from harness.execute.runner import run_all
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load
from harness.records import PluginRef, RunRecord
from harness.records.store import Store

SOURCE = """
import harness
from harness_toy import ToyColors

HARNESS_API_VERSION = "1.0"


def log_loss(targets, outputs, info):
    import numpy as np

    shifted = outputs - outputs.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-logs[np.arange(len(targets)), targets].mean())


class Loss(ToyColors):
    name = "toy-loss"
    metric = "toy_log_loss"
    metrics = ("toy_log_loss", "accuracy")


@harness.hookimpl
def harness_metrics():
    yield harness.Metric(
        name="toy_log_loss",
        objective="classification",
        function="harness_loss:log_loss",
        higher_is_better=False,
        unit="nat",
        bounds=(0.0, None),
        summary="mean negative logarithm of the probability of the true class",
    )


@harness.hookimpl
def harness_tasks():
    yield Loss()
"""
REF = PluginRef(name="loss", value="harness_loss", distribution="harness-loss", version="2.5")


def run(results: Path, plugin: Path, *, seeds: tuple[int, ...]) -> list[RunRecord]:
    """Train a good and a bad model of the task. The plugins are installed only during training."""
    (plugin / "harness_loss.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        install(patch, plugin)
        catalog = load([TOY_REF, REF])
        assert catalog.failures == ()
        specs = [
            spec
            for model, rate in (("toy-linear", 0.1), ("toy-through-origin", 1e-4))
            for spec in expand(
                Selection(
                    tasks=("toy-loss",),
                    models=(model,),
                    backends=("toy-numpy",),
                    seeds=seeds,
                    threads=1,
                    overrides=(*FAST, f"recipe.learning_rate={rate}"),
                ),
                catalog,
            )
        ]
        return run_all(specs, catalog, Store(results), timeout_s=60, save_weights=True)
