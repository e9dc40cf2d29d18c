"""Validation of the checkpoint options of a command."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import CombinationError, UsageError
from harness.interfaces import Executor
from harness.plugins.catalog import Catalog
from harness.records import Interval, RunSpec
from harness.records.checkpointing import interval

_ADVICE = "remove --checkpoint-every"


def checked_interval(
    text: str | int | None,
    specs: Sequence[RunSpec],
    catalog: Catalog,
    *,
    executor: Executor,
    resume: bool | None,
    rerun: bool,
    detach: bool,
    batch_size_backoff: bool,
) -> Interval | None:
    """Return the interval between checkpoints, or None if checkpoints are not requested.

    Parameters
    ----------
    text : str, int or None
        Value of ``--checkpoint-every``.
    specs : sequence of RunSpec
        Planned runs.
    catalog : Catalog
        Plugins.
    executor : Executor
        Executor of the runs.
    resume : bool or None
        True for ``--resume``, False for ``--no-resume``, or None if neither was requested.
    rerun, detach, batch_size_backoff : bool
        Options of the command.

    Raises
    ------
    harness.UsageError
        If the text is not an interval, or if options or runs cannot be combined with checkpoints.
    """
    if resume and rerun:
        raise UsageError("--resume continues runs, but --rerun executes them from the beginning; remove one of them")
    option = "--resume" if resume and text is None else "--checkpoint-every"
    if text is None and not resume:
        return None
    every = None if text is None else interval(str(text))
    if executor.remote or detach:
        raise CombinationError(
            f"{option} applies only to runs on this machine, because checkpoints are stored next to the results; "
            f"remove {option}, or execute the runs without --executor {executor.name}"
        )
    if batch_size_backoff:
        raise CombinationError(
            f"{option} cannot be combined with --batch-size-backoff, because a run with another batch size cannot "
            f"continue from a checkpoint; remove one of them"
        )
    if every is not None:
        for spec in specs:
            _check(spec, catalog)
    return every


def _check(spec: RunSpec, catalog: Catalog) -> None:
    if spec.weights is not None:
        raise CombinationError(
            f"--checkpoint-every has no effect with --weights, because no model is trained; {_ADVICE}"
        )
    if not catalog.backend(spec.backend).checkpoints:
        raise CombinationError(
            f"backend {spec.backend!r} does not support checkpoints; {_ADVICE}, or select other backends"
        )
    if spec.devices > 1:
        raise CombinationError(
            f"checkpoints are not available for runs on several devices, because each process has a separate state; "
            f"{_ADVICE}, or use --devices 1"
        )
