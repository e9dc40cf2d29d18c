"""The plan that ``harness run --dry-run`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.records import Failure
from harness.report.progress import clock

if TYPE_CHECKING:
    from harness.execute.estimate import Estimate
    from harness.execute.resume import Decision
    from harness.interfaces import Executor
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.checkpointing import Interval
    from harness.records.store import Store

_NAMES = ("task", "dataset", "model", "backend", "device", "precision", "compile", "threads")
_SHARED = ("device", "precision", "compile", "threads", "epochs", "batch")
"""Columns that are replaced by a line above the table if all runs have the same value."""
_EXECUTED = ("run", "redo", "resume")
"""States of runs that would be executed."""
_UNAVAILABLE = "unavailable"
_OWN_COLUMNS = ("recipe.epochs", "recipe.batch_size", *_NAMES, "seed")


class PlanText(NamedTuple):
    """A plan as text."""

    text: str
    """The planned runs, and their expected duration and disk usage."""
    notes: list[str]
    """Reason why speed would not be measured, if any, and the reasons why runs would be skipped, resumed or executed
    again."""


def plan_text(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    *,
    reasons: Mapping[str, str] | None = None,
    every: Interval | None = None,
    resume: bool | None = None,
    rerun: bool = False,
    retry: Sequence[str] | None = None,
    batch_size_backoff: bool = False,
    budget_s: float | None = None,
    executor: Executor | None = None,
    jobs: int = 1,
    quality_only: bool = False,
) -> PlanText:
    """Determine which of `specs` would be executed, and return the plan; see `render`.

    The settings must be valid; see `harness.api.checked_settings`. `every` is the interval between checkpoints.
    `reasons` contains the reasons why runs cannot be executed on this machine, keyed by the key of the run. Without an
    `executor`, the runs are executed on this machine.
    """
    from harness.analysis.differences import titles
    from harness.checks.side_by_side import measured_part
    from harness.execute.checkpoints import assign
    from harness.execute.estimate import estimates
    from harness.execute.machines import machines_for
    from harness.execute.resume import Decision, decide, describe, failure_kinds
    from harness.execute.runner import LOCAL

    chosen = catalog.executor(LOCAL) if executor is None else executor
    kinds = failure_kinds(retry)
    part = measured_part(specs, catalog, jobs, quality_only=quality_only, batch_size_backoff=batch_size_backoff)
    decisions = (
        [Decision(spec, None, "") for spec in specs]
        if rerun
        else decide(
            specs,
            catalog,
            store,
            retry=kinds,
            batch_size_backoff=batch_size_backoff,
            quality_only=part.quality_only,
            machines=machines_for(chosen, specs, catalog),
        )
    )
    if not (chosen.remote or batch_size_backoff):
        decisions = assign(decisions, catalog, store, every=every, resume=False if rerun else resume)
    expected = estimates(specs, store.load().runs, quality_only=part.quality_only)
    notes = [*filter(None, [part.reason]), *describe(decisions, titles(specs))]
    return PlanText(render(decisions, expected, reasons or {}, budget_s, jobs), notes)


def render(
    decisions: Sequence[Decision],
    estimates: Sequence[Estimate | None],
    unavailable: Mapping[str, str],
    budget_s: float | None,
    jobs: int = 1,
) -> str:
    """Return the planned runs in the order of execution, with their states and the settings that vary, as text.

    The text also contains the expected duration and disk usage of the runs that would be executed.

    `unavailable` contains the reasons why runs cannot be executed on this machine, keyed by the key of the run. `jobs`
    is the number of runs that are executed at the same time.
    """
    from tabulate import tabulate

    from harness.analysis.differences import varying
    from harness.execute.availability import describe_reasons
    from harness.interfaces.remote import megabytes

    specs = [decision.spec for decision in decisions]
    other = [name for name in varying(specs) if name not in _OWN_COLUMNS]
    states = [_state(decision, unavailable) for decision in decisions]
    columns: dict[str, list[Any]] = {
        name: [getattr(spec, name) for spec in specs] for name in (*_NAMES, "split", "seed")
    }
    columns |= {"epochs": [spec.recipe.epochs for spec in specs], "batch": [spec.recipe.batch_size for spec in specs]}
    shared = [name for name in _SHARED if len(set(columns[name])) == 1]
    settings = ", ".join(f"{name} {columns[name][0]}" for name in shared)
    if all(split is None for split in columns["split"]):
        shared.append("split")
    table = {name: values for name, values in columns.items() if name not in shared}
    varied = [_values(spec, other) for spec in specs]
    table |= {name: [values[position] for values in varied] for position, name in enumerate(other)}
    table["key"] = [spec.key[:8] for spec in specs]
    table["time"] = [
        clock(estimate.seconds) if estimate and state in _EXECUTED else ""
        for estimate, state in zip(estimates, states, strict=True)
    ]
    table["state"] = states
    # Show these columns as text, even if a value looks like a number, such as the key 084e0232.
    texts = [list(table).index(name) for name in ("dataset", *other, "key", "time")]
    parts = [f"all runs: {settings}\n"] if settings else []
    parts.append(tabulate(table, headers="keys", tablefmt="simple", disable_numparse=texts))
    left_out = [decision.spec.key for decision, state in zip(decisions, states, strict=True) if state == _UNAVAILABLE]
    if left_out:
        lines = describe_reasons({key: unavailable[key] for key in left_out})
        parts.append("\n  ".join(["\nThese runs cannot be executed on this machine:", *lines]))
    skipped = states.count("skip")
    failed = sum(
        decision.stored is not None and isinstance(decision.stored.record.outcome, Failure) for decision in decisions
    )
    done = f", {skipped - failed} of them already done" if skipped > failed else ""
    done += f", {failed} failed before" if failed else ""
    missing = f", {len(left_out)} unavailable on this machine" if left_out else ""
    parts.append(f"\n{_counted(len(specs))} planned{done}{missing}; none was started")
    left = [each for each, state in zip(estimates, states, strict=True) if state in _EXECUTED]
    if known := [estimate for estimate in left if estimate]:
        seconds, size = sum(e.seconds for e in known) / jobs, sum(e.disk_bytes for e in known)
        rest = f", not including {_counted(len(left) - len(known))} of unknown duration" * (len(known) < len(left))
        beside = f" with {jobs} runs at the same time" if jobs > 1 else ""
        parts.append(f"about {clock(seconds)}{beside} and {megabytes(size)}, estimated from similar runs{rest}")
        if budget_s is not None and seconds > budget_s:
            parts.append(
                f"the time budget of {clock(budget_s)} is too short for all runs; repeat the command to continue"
            )
    return "\n".join(parts)


def _counted(runs: int) -> str:
    return f"{runs} {'run' if runs == 1 else 'runs'}"


def _state(decision: Decision, unavailable: Mapping[str, str]) -> str:
    if decision.stored:
        return "skip"
    if decision.spec.key in unavailable:
        return _UNAVAILABLE
    if decision.resumed:
        return "resume"
    return "redo" if decision.reason else "run"


def _values(spec: RunSpec, names: Sequence[str]) -> list[str]:
    from harness.analysis.differences import absent, settings_of

    settings = settings_of(spec)
    return [settings.get(name, absent(name)) for name in names]
