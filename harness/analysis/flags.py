"""Flags that explain why the values of a run or a row may be unreliable.

Some flags are recorded while a run is measured. Other flags are derived from the record, and therefore also apply to
older records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.analysis import contradictions, learning
from harness.analysis.contradictions import RunFlag
from harness.analysis.formatting import rounded
from harness.analysis.metrics import (
    BY_FLAG,
    BY_NAME,
    FIT_THROUGHPUT,
    HOST_PEAK,
    TRAIN_THROUGHPUT,
    fitted_in_one_call,
    success,
)
from harness.measure import stats
from harness.records import RunRecord

CHILDREN = "child processes"
BATCH_SIZE = "batch_size"
QUALITY_ONLY = "quality only"


class RowFlag(NamedTuple):
    """A reason why values in a row may be unreliable."""

    columns: tuple[str, ...]
    """Flagged columns. If the tuple is empty and `name` is the name of a column, `text` explains why this column has no
    mean."""
    name: str
    """Name under which the flag is listed, usually the name of a column."""
    text: str


def run_flags(record: RunRecord) -> list[RunFlag]:
    """Return the flags of a successful run: the flags stored in its record, and the flags derived from the record."""
    in_one_call = fitted_in_one_call(record)
    flags = []
    for flag in success(record).flags:
        metric = BY_FLAG[flag.metric]
        metric = FIT_THROUGHPUT if in_one_call and metric is TRAIN_THROUGHPUT else metric
        flags.append(RunFlag((metric.name,), flag.kind.replace("_", " "), flag.detail))
    flags += contradictions.of_run(record)
    flags += learning.of_run(record)
    if record.batch_size_reduced_from is not None:
        size, requested = record.spec.recipe.batch_size, record.batch_size_reduced_from
        detail = f"the run used batch size {size} instead of {requested}, because larger batches did not fit in memory"
        flags.append(RunFlag((BATCH_SIZE,), f"reduced from {requested}", detail))
    memory = success(record).memory
    if not (record.quality_only or memory.ranks) and (memory.tree_peak_bytes or 0) > memory.host_peak_bytes:
        flags.append(
            RunFlag(
                (HOST_PEAK.name,),
                CHILDREN,
                f"{HOST_PEAK.value(record):.1f} MiB is an upper bound on the memory of the worker and its child "
                "processes; the worker alone used"
                f" {memory.host_peak_bytes / 2**20:.1f} MiB",
            )
        )
    return flags


def row_flags(
    done: Sequence[RunRecord], shown: Mapping[str, float | None], values: Sequence[Mapping[str, float | None]]
) -> Iterator[RowFlag]:
    """Yield the flags of a row with at least one successful run.

    `done` contains the successful runs, and `values` contains their values by column. `shown` contains the values in
    the row.
    """
    yield from _changed_code(done)
    flags = [run_flags(record) for record in done]
    yield from _of_runs(done, flags)
    yield from _quality_only(done)
    known = {(flag.columns, flag.kind) for run in flags for flag in run}
    for columns, kind, _ in contradictions.of_values(shown, contradictions.batches_of(done[0])):
        if (columns, kind) not in known:
            yield RowFlag(columns, columns[0], f"{kind} (according to the means in this row)")
    yield from _incomplete(done, values)
    yield from _missed_target(done)
    yield from _data_warnings(done)


def _of_runs(done: Sequence[RunRecord], flags: Sequence[Sequence[RunFlag]]) -> Iterator[RowFlag]:
    """Yield one flag for each flagged metric. The text lists the kinds of flags for this metric, and the number of runs
    with each kind of flag."""
    counts: dict[str, Counter[str]] = {}
    marked: dict[str, dict[str, None]] = {}
    for run in flags:
        for columns, kind in dict.fromkeys((flag.columns, flag.kind) for flag in run):
            counts.setdefault(columns[0], Counter())[kind] += 1
            marked.setdefault(columns[0], {}).update(dict.fromkeys(columns))
    for name, kinds in counts.items():
        texts = [kind + (f" ({n} of {len(done)} runs)" if len(done) > 1 else "") for kind, n in kinds.items()]
        if CHILDREN in kinds:
            alone = stats.mean([success(record).memory.host_peak_bytes / 2**20 for record in done]).value
            texts.append(f"{rounded(alone, None)[0]} MiB for the worker alone")
        yield RowFlag(tuple(marked[name]), name, ", ".join(texts))


def _changed_code(done: Iterable[RunRecord]) -> Iterator[RowFlag]:
    """Yield a flag named ``code`` if a plugin's code differs between the successful runs."""
    digests: dict[str, set[str]] = {}
    for record in done:
        for plugin in record.provenance.plugins:
            digests.setdefault(plugin.name, set()).update(filter(None, [plugin.code_digest]))
    changed = [f"{len(known)} versions of plugin {name}" for name, known in digests.items() if len(known) > 1]
    if changed:
        yield RowFlag(("quality",), "code", f"the runs used {', '.join(changed)}")


def _quality_only(done: Sequence[RunRecord]) -> Iterator[RowFlag]:
    """Yield a flag if some of the runs measured only quality."""
    found = [record for record in done if record.quality_only]
    if found:
        count = "" if len(found) == len(done) else f"{len(found)} of {len(done)} runs: "
        yield RowFlag((), QUALITY_ONLY, f"{count}{describe_quality_only(found)}")


def describe_quality_only(records: Iterable[RunRecord]) -> str:
    """Return a phrase that explains why these quality-only runs have no costs."""
    jobs = sorted({record.placement.jobs for record in records if record.placement is not None})
    beside = f", up to {jobs[-1]} runs at the same time" if jobs else ""
    return f"speed and memory were not measured{beside}"


def _incomplete(done: Sequence[RunRecord], values: Sequence[Mapping[str, float | None]]) -> Iterator[RowFlag]:
    """Yield a flag for each column whose mean covers only some of the successful runs. There is a separate flag for
    quality-only runs."""
    timed = [row for record, row in zip(done, values, strict=True) if not record.quality_only]
    for name in dict.fromkeys(name for row in values for name in row):
        rows = timed if name in BY_NAME and BY_NAME[name].is_cost else values
        known = sum(row.get(name) is not None for row in rows)
        if 0 < known < len(rows) and name != "time_to_target_s":
            yield RowFlag((name,), name, f"mean over {known} of {len(rows)} runs; the others have no value")


def _missed_target(done: Iterable[RunRecord]) -> Iterator[RowFlag]:
    """Yield a flag if a run did not reach the target, because the mean over the remaining runs would be biased."""
    reached = [outcome.time_to_target for outcome in map(success, done) if outcome.time_to_target is not None]
    hits = sum(target.train_s is not None for target in reached)
    if hits < len(reached):
        yield RowFlag((), "time_to_target_s", f"the target was reached in {hits} of {len(reached)} runs")


def _data_warnings(done: Iterable[RunRecord]) -> Iterator[RowFlag]:
    """Yield a flag named ``data`` if there are warnings about the data of a run."""
    found = dict.fromkeys(text for record in done if (info := record.provenance.data) for text in info.warnings)
    if found:
        yield RowFlag((), "data", next(iter(found)) if len(found) == 1 else f"{len(found)} warnings")
