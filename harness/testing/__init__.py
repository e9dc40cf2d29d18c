"""Conformance tests for use in a plugin's test suite.

Each ``...Suite`` is a test class for pytest. In a test module, subclass a suite and set `name` to the name of the
object to test. The subclass has one test for each rule that ``harness plugin check`` checks. The checks run in child
processes, so that pytest itself does not import a framework. `SessionSuite` is an exception: it opens sessions in the
pytest process. This package also contains functions that check individual properties.
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
    from harness.testing.session_cases import SessionCases
    from harness.testing.sessions import SessionSuite
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


if not TYPE_CHECKING:  # Otherwise, type checkers would accept any name.

    def __getattr__(name: str) -> Any:
        """Import the suites on first use, because they require pytest."""
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
    """Assert that two backends compute the same results for a model.

    To test a backend, compare it with a trusted backend. To test a model, compare its networks on two backends. Plugins
    are discovered through their entry points. Each backend runs in a separate process, and uses half of the available
    CPU cores.

    Parameters
    ----------
    task : str
        Name of the task.
    backends : tuple of str
        Names of the two backends to compare.
    model : str, default: ""
        Name of the model. If empty, the task's default model is used.
    dataset : str, default: ""
        Name of the dataset. If empty, the task's default dataset is used.
    device : str, default: "cpu"
        Device used by both backends.
    precision : str, default: "fp32"
        Precision used by both backends.
    overrides : iterable of str, default: ()
        Settings to change, in the format of ``--set``, such as ``"model.hidden=64"``.
    steps : int, default: 50
        Number of training steps to compare.

    Returns
    -------
    ParityVerdict
        The verdict, with the errors and tolerances for all stages.

    Raises
    ------
    AssertionError
        If the results differ by more than the tolerances. The message contains the full verdict.
    harness.UsageError
        If a name or setting does not exist.

    Examples
    --------
    >>> def test_my_backend_agrees_with_torch():
    ...     harness.testing.assert_parity(task="nlp", model="bert-tiny", backends=("torch", "mine"))
    """
    from harness.checks.parity.check import check, pairs, specs_to_check
    from harness.checks.parity.text import render
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
    ((one, other),) = pairs(specs_to_check(selection, catalog))
    verdict = check(one, other, catalog, steps=steps)
    if not verdict.passed:
        raise AssertionError(render(verdict))
    return verdict
