"""Tests of runs whose metric is faulty. The run fails, and the failure names the metric."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_plugin import FAST, TOY_REF, install, install_toy

from harness.execute.runner import run_all
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load
from harness.records import Failure, PluginRef
from harness.records.store import Store

PLUGIN = """
import ctypes
import os
import time

import harness
from harness_toy import ToyColors


def cheats(targets, outputs, info):
    outputs[range(len(targets)), targets] = 1e9  # accuracy, which is computed next, would be 1
    return 0.0


def beyond(targets, outputs, info):
    return 1.5


def leaves(targets, outputs, info):
    if len(targets) > 3:
        os._exit(3)
    return 0.5


def crashes(targets, outputs, info):
    ctypes.string_at(0)


def hangs(targets, outputs, info):
    time.sleep(600)


class Cheats(ToyColors):
    name = "toy-cheats"
    metric = "toy_metric"
    metrics = ("toy_metric", "accuracy")


@harness.hookimpl
def harness_metrics():
    yield harness.Metric(
        name="toy_metric",
        objective="classification",
        function="{name}:{function}",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        summary="",
    )


@harness.hookimpl
def harness_tasks():
    yield Cheats()
"""


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("cheats", "error", "the metric 'toy_metric' failed: ValueError: assignment destination is read-only"),
        ("beyond", "bad_result", "the metric 'toy_metric' is 1.5, outside its declared bounds 0 to 1"),
        ("leaves", "error", "exited with status 3 (while calling the metric 'toy_metric')"),
        ("crashes", "crash", "killed by SIGSEGV (while calling the metric 'toy_metric')"),
        ("hangs", "timeout", "did not finish within 15 s; raise the limit with --timeout (while calling the metric"),
    ],
)
def test_run_with_a_misbehaving_metric_fails_and_names_it(
    function: str, kind: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"harness_toy_{function}"
    (tmp_path / f"{name}.py").write_text(PLUGIN.replace("{name}", name).replace("{function}", function))
    install_toy(monkeypatch)
    install(monkeypatch, tmp_path)
    catalog = load([TOY_REF, PluginRef(name=function, value=name, distribution="module", version="")])
    assert catalog.failures == ()
    chosen = Selection(tasks=("toy-cheats",), backends=("toy-numpy",), threads=1, overrides=FAST)
    (record,) = run_all(
        expand(chosen, catalog), catalog, Store(tmp_path / "results"), timeout_s=15 if kind == "timeout" else 60
    )
    assert isinstance(record.outcome, Failure)
    assert (record.outcome.kind, record.outcome.message[: len(message)]) == (kind, message)
    assert record.outcome.phase == "validate"
