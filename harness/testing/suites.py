"""Pytest test classes with the rules of the conformance kit, to be subclassed in a plugin's tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import pytest

from harness.plugins import discover
from harness.testing.check import RULES, Subject, apply_rules, check, parity
from harness.testing.rule import Finding
from harness.testing.rules.networks import PARITY


class _Suite:
    """Base class of the suites, with one test for each rule that applies to the kind of object."""

    kind: ClassVar[str]
    """Kind of object, which determines the rules."""
    name: ClassVar[str]
    """Name of the object, as in ``harness list``. The name of a network is ``model/backend``."""
    plugins: ClassVar[Sequence[str]] = ()
    """File paths or module names of plugins to load in addition to the installed plugins."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Add one test parameter for each rule that applies to this kind of object."""
        if "rule" in metafunc.fixturenames:
            names = [rule.name for rule in RULES[self.kind]]
            metafunc.parametrize("rule", names + ([PARITY] if self.kind == "network" else []))

    def test_rule(self, rule: str) -> None:
        """Test one rule. Skip the test if the rule cannot be checked on this machine."""
        (finding,) = [each for each in _findings(self.kind, self.name, tuple(self.plugins)) if each.rule == rule]
        if finding.passed is None:
            pytest.skip(finding.seen)
        assert finding.passed, str(finding)


@cache
def _findings(kind: str, name: str, plugins: tuple[str, ...]) -> list[Finding]:
    catalog = discover(plugins)
    if kind == "plugin":
        return list(apply_rules(Subject(kind, name), catalog))
    found = check(Subject(kind, name), catalog)
    return [*found, parity(Subject(kind, name), catalog)] if kind == "network" else found


class PluginSuite(_Suite):
    """Rules for a plugin as a whole. `name` is the name of the plugin's entry point or file."""

    kind = "plugin"


class DatasetSuite(_Suite):
    """Rules for a dataset.

    Examples
    --------
    >>> class TestMyReviews(harness.testing.DatasetSuite):
    ...     name = "my-reviews"
    """

    kind = "dataset"


class TaskSuite(_Suite):
    """Rules for a task. The task is checked with its default dataset."""

    kind = "task"


class ModelSuite(_Suite):
    """Rules for a model. `name` is the name of the model family."""

    kind = "model"


class NetworkSuite(_Suite):
    """Rules for the network of a model on a backend, including a parity check against another installed backend."""

    kind = "network"


class BackendSuite(_Suite):
    """Rules for a backend. The backend is checked on the CPU, with a small model that the backend supports."""

    kind = "backend"


class MetricSuite(_Suite):
    """Rules for a metric, and a test that compares the metric with expected values in `cases`."""

    kind = "metric"
    cases: ClassVar[Sequence[tuple[Any, Any, float | None]]] = ()
    """Tuples (targets, outputs, expected value of the metric)."""

    def test_cases(self) -> None:
        """Test that the metric has the expected value for each case in `cases`."""
        import numpy as np

        from harness.measure.quality.call import function_of
        from harness.testing.rules.metrics import info_for

        metric = discover(self.plugins).metric(self.name)
        for targets, outputs, expected in self.cases:
            array = np.asarray(outputs)
            info = info_for(metric, outputs=array.shape[-1])
            assert function_of(metric)(np.asarray(targets), array, info) == pytest.approx(expected)


class ReporterSuite(_Suite):
    """Rules for a report format."""

    kind = "reporter"
