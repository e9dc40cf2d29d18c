"""The kit as pytest classes: subclass one in a test module of your plugin, and each rule is a test."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import pytest

from harness.plugins import discover
from harness.testing.check import RULES, Subject, check, look, parity
from harness.testing.rule import Finding
from harness.testing.rules.networks import PARITY


class _Suite:
    kind: ClassVar[str]
    name: ClassVar[str]
    """Of the thing, as ``harness list`` has it; of a network ``model/backend``."""
    plugins: ClassVar[Sequence[str]] = ()
    """Files or modules of plugins that are not installed."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "rule" in metafunc.fixturenames:
            names = [rule.name for rule in RULES[self.kind]]
            metafunc.parametrize("rule", names + ([PARITY] if self.kind == "network" else []))

    def test_rule(self, rule: str) -> None:
        (finding,) = [each for each in _findings(self.kind, self.name, tuple(self.plugins)) if each.rule == rule]
        if finding.passed is None:
            pytest.skip(finding.seen)
        assert finding.passed, str(finding)


@cache
def _findings(kind: str, name: str, plugins: tuple[str, ...]) -> list[Finding]:
    catalog = discover(plugins)
    if kind == "plugin":
        return list(look(Subject(kind, name), catalog))
    found = check(Subject(kind, name), catalog)
    return [*found, parity(Subject(kind, name), catalog)] if kind == "network" else found


class PluginSuite(_Suite):
    """How a plugin loads; `name` is that of its entry point, or of its file."""

    kind = "plugin"


class DatasetSuite(_Suite):
    """Example::

    class TestMyReviews(harness.testing.DatasetSuite):
        name = "my-reviews"
    """

    kind = "dataset"


class TaskSuite(_Suite):
    """Of a task; it is looked at with its default dataset."""

    kind = "task"


class ModelSuite(_Suite):
    """Of a model; `name` is that of the family."""

    kind = "model"


class NetworkSuite(_Suite):
    """Of a model's network on a backend, and whether it computes what the same model does elsewhere."""

    kind = "network"


class BackendSuite(_Suite):
    """Of a backend; it is looked at on the CPU, with the smallest model that has a network for it."""

    kind = "backend"


class MetricSuite(_Suite):
    """Of a metric. `cases` are worked by hand: targets, outputs and the value that they give."""

    kind = "metric"
    cases: ClassVar[Sequence[tuple[Any, Any, float | None]]] = ()

    def test_cases(self) -> None:
        import numpy as np

        from harness.plugins import resolve
        from harness.testing.rules.metrics import info_for

        metric = discover(self.plugins).metric(self.name)
        for targets, outputs, expected in self.cases:
            found = np.asarray(outputs)
            info = info_for(metric, outputs=found.shape[-1])
            assert resolve(metric.function)(np.asarray(targets), found, info) == pytest.approx(expected)


class ReporterSuite(_Suite):
    """Of a report format."""

    kind = "reporter"
