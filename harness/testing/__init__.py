"""The conformance kit: rules that a plugin keeps, which ``harness plugin check`` looks at and which a plugin's own
tests subclass, and checks for single questions.

Each ``...Suite`` is a class for pytest: a subclass in a test module, with the `name` of what it is about, has a test
for each rule. What is checked runs in child processes, so that no framework is imported into pytest's; only
`SessionSuite` opens its sessions in pytest's own process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.testing.declared import assert_as_declared
from harness.testing.leaks import assert_nothing_leaks
from harness.testing.rule import Finding
from harness.testing.sample import sample_report

if TYPE_CHECKING:
    from harness.checks.parity.verdict import ParityVerdict
    from harness.testing.sessions import SessionCases, SessionSuite
    from harness.testing.suites import (
        BackendSuite,
        DatasetSuite,
        MetricSuite,
        ModelSuite,
        NetworkSuite,
        PluginSuite,
        ReporterSuite,
        TaskSuite,
    )

__all__ = [
    "BackendSuite",
    "DatasetSuite",
    "Finding",
    "MetricSuite",
    "ModelSuite",
    "NetworkSuite",
    "PluginSuite",
    "ReporterSuite",
    "SessionCases",
    "SessionSuite",
    "TaskSuite",
    "assert_as_declared",
    "assert_nothing_leaks",
    "assert_parity",
    "sample_report",
]


if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> Any:
        """Import the suites, which need pytest, when one is used."""
        if name in __all__:
            from harness.testing import sessions, suites

            return getattr(sessions if name.startswith("Session") else suites, name)
        raise AttributeError(f"module 'harness.testing' has no attribute {name!r}")


def assert_parity(
    *,
    task: str,
    backends: tuple[str, str],
    model: str = "",
    dataset: str = "",
    device: str = "cpu",
    precision: str = "fp32",
    overrides: Iterable[str] = (),
    steps: int = 50,
) -> ParityVerdict:
    """Raise AssertionError, with the whole verdict as its text, unless the second backend computes what the first does.

    For a backend of your own, compare it with one that is trusted; for a model, compare the networks that you bring.
    Installed plugins are found by their entry points. Each backend computes in a process of its own.

    Raises `harness.UsageError` for names or settings that do not exist.

    Example::

        def test_my_backend_computes_what_torch_does():
            harness.testing.assert_parity(task="nlp", model="bert-tiny", backends=("torch", "mine"))
    """
    from harness.checks.parity.check import check, pairs
    from harness.checks.parity.text import render
    from harness.plan.expand import expand
    from harness.plan.selection import Selection
    from harness.plugins import discover

    catalog = discover()
    selection = Selection(
        tasks=(task,),
        backends=backends,
        models=(model,) if model else (),
        datasets=(dataset,) if dataset else (),
        devices=(device,),
        precisions=(precision,),
        overrides=tuple(overrides),
    )
    ((one, other),) = pairs(expand(selection, catalog))
    verdict = check(one, other, catalog, steps=steps)
    if not verdict.passed:
        raise AssertionError(render(verdict))
    return verdict
