"""Matching of the two sets of runs in a comparison, with warnings about excluded and flagged runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from harness.analysis.compare.match import Match, match
from harness.analysis.flags import run_flags
from harness.errors import UsageError
from harness.records import Failure, RunRecord, Success
from harness.records.store import StoredRun


class Sides(NamedTuple):
    """The result of matching two sets of runs."""

    matches: list[Match]
    unmatched: list[str]
    """Names of the settings that only one set contains."""
    failed: dict[str, list[str]]
    """Ids of the failed runs, for ``BASE`` and ``NEW``."""
    warnings: list[str]

    def check(self, sizes: Sequence[int]) -> None:
        """Raise `harness.UsageError` if no runs match. `sizes` contains the number of runs in each set."""
        if self.matches:
            return
        sides = zip(self.failed.items(), sizes, strict=True)
        which = next((side for (side, names), size in sides if names and len(names) == size), "")
        reason = f"all runs of {which} failed" if which else "compare runs of the same task, dataset and model"
        raise UsageError(f"no successful runs of BASE and NEW match; {reason}")


def match_sides(base: Sequence[StoredRun], new: Sequence[StoredRun]) -> Sides:
    """Match two sets of runs. Failed runs are excluded.

    Raises `harness.UsageError` if a run occurs more than once, because each run must count as one measurement of one
    side.
    """
    _check_distinct(base, new)
    failed, warnings = {}, []
    for side, runs in (("BASE", base), ("NEW", new)):
        failed[side] = [run.path.name for run in runs if isinstance(run.record.outcome, Failure)]
        if failed[side]:
            warnings.append(f"{side}: failed runs are excluded: {', '.join(failed[side])}")
        warnings += [f"{side}: {text}" for text in flag_counts(runs)]
    matches, left = match(base, new)
    warnings += [f"excluded, because there are no matching runs for comparison: {name}" for name in left]
    return Sides(matches, left, failed, warnings)


def flag_counts(runs: Sequence[StoredRun]) -> list[str]:
    """Return one line per metric and kind of flag, with the number of flagged runs."""
    counts: dict[tuple[str, str], int] = {}
    for run in runs:
        flags = run_flags(run.record) if isinstance(run.record.outcome, Success) else []
        for metric, kind in {(flag.columns[0], flag.kind) for flag in flags}:
            counts[metric, kind] = counts.get((metric, kind), 0) + 1
    return [
        f"{metric} is flagged for {kind} in {n} of {len(runs)} runs" for (metric, kind), n in sorted(counts.items())
    ]


def _check_distinct(base: Sequence[StoredRun], new: Sequence[StoredRun]) -> None:
    """Raise `harness.UsageError` if a successful run appears in both sets, or more than once in one set.

    A copy of a run may have a different id and repeat number, for example because results directories were merged.
    """
    known: dict[tuple[str, str], list[tuple[str, StoredRun, RunRecord]]] = {}
    for side, runs in (("BASE", base), ("NEW", new)):
        for run in runs:
            if not isinstance(run.record.outcome, Success):
                continue
            record = msgspec.structs.replace(run.record, run_id="", repeat=0)
            earlier = known.setdefault((record.key, record.started_at), [])
            for other_side, other, content in earlier:
                if content != record:
                    continue
                if other_side == side:
                    raise UsageError(f"{side} contains the run {other.path.name} more than once; remove the copies")
                raise UsageError(
                    f"BASE and NEW both contain the run {run.path.name}; compare two sets that have no runs in common"
                )
            earlier.append((side, run, record))
