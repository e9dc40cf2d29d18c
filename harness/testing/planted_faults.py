"""Parity checks of sessions with planted faults, to show that the check detects errors in a backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

from harness import plugins
from harness.checks.parity.evidence import ParityJob, gather
from harness.checks.parity.report import Evidence
from harness.checks.parity.stages import compare
from harness.execute.preparation import prepare
from harness.interfaces import Backend, Session, SessionRequest
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import Precision

OpenSession = Callable[[SessionRequest], Session]
_STEPS = 12
"""Number of training steps for the loss curve, and for the training run on small batches."""


def failed_stages(
    open_session: OpenSession,
    *,
    backend: str,
    task: str,
    model: str,
    overrides: tuple[str, ...] = (),
    precision: Precision = "fp32",
    threads: int = 1,
) -> list[str]:
    """Return the stages of a parity check in which a faulty session differs from the sessions of its backend.

    The sessions of the backend are compared with the sessions that `open_session` returns. The comparison runs in this
    process and does not use a float64 reference. Stages with 50 or 300 training steps in a parity check have only 12
    steps in this comparison. A parity check between two backends compares the same quantities with the same tolerances.

    Parameters
    ----------
    open_session : callable
        Function that takes a `SessionRequest` and returns a faulty or a correct session.
    backend, task, model : str
        Names of the backend, task and model.
    overrides : tuple of str, default=()
        Settings such as ``recipe.ema_decay=0.9``. The settings must disable dropout.
    precision : str, default="fp32"
        Precision of both sessions.
    threads : int, default=1
        Number of threads.

    Returns
    -------
    list of str
        Names of the failed stages, in the order of the check.
    """
    selection = Selection(
        tasks=(task,),
        backends=(backend,),
        models=(model,),
        devices=("cpu",),
        precisions=(precision,),
        threads=threads,
        overrides=overrides,
    )
    expected, late = _correct(selection)
    actual, _ = _computed(selection, open_session, lambda: late)
    return [stage.name for stage in compare(expected, actual, None) if not stage.passed]


@cache
def _catalog() -> Catalog:
    return plugins.discover()


@cache
def _correct(selection: Selection) -> tuple[Evidence, dict[str, Any]]:
    return _computed(selection, None, None)


def _computed(
    selection: Selection, open_session: OpenSession | None, late: Callable[[], dict[str, Any]] | None
) -> tuple[Evidence, dict[str, Any]]:
    """Return the results of a backend, whose sessions may be replaced, and the backend's weights after training."""
    (spec,) = expand(selection, _catalog())
    job = ParityJob(spec=spec, plugins=_catalog().refs_for(spec), steps=_STEPS)
    prepared = prepare(spec, job.plugins)
    if open_session is not None:
        prepared = dataclasses.replace(prepared, backend=_replaced(prepared.backend, open_session))
    handed: dict[str, Any] = {}
    return Evidence(*gather(job, prepared, late, handed.update)), handed


def _replaced(backend: Backend, open_session: OpenSession) -> Backend:
    """Return a backend that differs from the given one only in its sessions."""

    class Replaced(type(backend)):  # type: ignore[misc]
        def open(self, request: SessionRequest) -> Session:
            return open_session(request)

    return Replaced()
