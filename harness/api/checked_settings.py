"""Checks of execution settings that are performed before the first run, and by a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from harness.execute.side_by_side import Lane
    from harness.interfaces import Executor
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.checkpointing import Interval


class CheckedSettings(NamedTuple):
    """Valid execution settings of planned runs."""

    executor: Executor
    limit_s: float
    limit_bytes: int | None
    every: Interval | None
    """Interval between checkpoints, or None if the runs write no checkpoints."""
    lanes: tuple[Lane, ...]
    """Cores and GPUs of simultaneous runs. The tuple is empty if runs are executed one after another."""
    compared: set[str]
    """Keys of the specs that a parity check compares."""


def checked_settings(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    *,
    parity: bool = False,
    timeout_s: float | None = None,
    memory_limit: str | int | None = None,
    batch_size_backoff: bool = False,
    executor: str = "local",
    executor_options: Mapping[str, str] | None = None,
    detach: bool = False,
    rerun: bool = True,
    jobs: int = 1,
    budget_s: float | None = None,
    checkpoint_every: str | int | None = None,
    resume: bool | None = None,
) -> CheckedSettings:
    """Return the settings of `harness.api.execution.carry_out` that can be checked before the first run.

    Nothing is executed or written. Raises `harness.UsageError` if a setting is invalid, or if settings cannot be
    combined with each other, with the runs or with the executor.
    """
    from harness.checks.parity.check import compared
    from harness.errors import UsageError
    from harness.execute.detached import check_detachable
    from harness.execute.memory_limit import check_memory_limit, size_bytes
    from harness.execute.runner import DEFAULT_TIMEOUT_S, LOCAL, check_executor, check_limit
    from harness.execute.side_by_side import lanes_for
    from harness.plan.checkpoints import checked_interval

    limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
    check_limit(limit_s)
    limit_bytes = None if memory_limit is None else size_bytes(memory_limit)
    check_memory_limit(limit_bytes)
    chosen = catalog.executor(executor, executor_options)
    check_executor(specs, chosen)
    if detach:
        check_detachable(chosen, batch_size_backoff=batch_size_backoff, budget_s=budget_s)
    every = checked_interval(
        checkpoint_every,
        specs,
        catalog,
        executor=chosen,
        resume=resume,
        rerun=rerun,
        detach=detach,
        batch_size_backoff=batch_size_backoff,
    )
    if jobs != 1 and executor != LOCAL:
        raise UsageError(f"--jobs requires the executor {LOCAL!r}; remove --jobs or --executor")
    lanes = lanes_for(specs, jobs) if jobs != 1 else ()
    if parity and any(spec.weights is not None for spec in specs):
        raise UsageError(
            "--parity compares how backends train, but runs with --weights do not train; remove one of the two options"
        )
    return CheckedSettings(chosen, limit_s, limit_bytes, every, lanes, compared(specs) if parity else set())
