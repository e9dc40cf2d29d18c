"""Rankings of backends, models or other settings across datasets.

A *candidate* is a value of the ranked fields, such as a backend. A *case* is a set of runs that differ only in the
ranked fields, the seed and the split. The runs in a case may also differ in settings that were not swept, such as the
default recipe of each model. In each case, every pair of candidates is compared as in ``harness compare``, with 95%
confidence intervals. Two candidates tie if the verdict is inconclusive or if the runs were not interleaved.

A case is used only if it contains runs of every candidate. Failed runs are handled in two ways:

- ``excluded``: failed runs are ignored, and cases in which a candidate has no successful runs are omitted,
- ``imputed``: a failed run is replaced by the baseline's run with the same seed and split.

Interrupted runs and trials of ``harness tune`` are ignored. `harness.analysis.standings` computes the statistics.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import Struct

from harness.analysis.compare.judge import compare
from harness.analysis.compare.match import Match
from harness.analysis.differences import IDENTITY, differing, machine_of, settings_of, software_of
from harness.analysis.grouping import overlap, with_known_devices, without_split_digests
from harness.analysis.metrics import QUALITY, RunMetric, available, unranked_note
from harness.analysis.standings import MIN_DATASETS, Case, Draw, Standings, standings
from harness.errors import RecordError, UnknownNameError, UsageError
from harness.interfaces import Metric
from harness.records import Failure, RunRecord, Trial
from harness.records.store import StoredRun

CONFIDENCE = 0.95
"""Confidence level of each comparison. This level is not corrected for the number of comparisons, because the ranking
makes no claims about individual datasets."""
MAX_REASONS = 3
"""Maximum number of cases listed in an error message."""
FIELDS = IDENTITY[2:]
"""Fields of a spec that can be ranked. Other settings are specified by their full names, such as
``recipe.batch_size``."""

Policy = Literal["excluded", "imputed"]
Ties = Literal["verdict", "exact"]


class LeftOut(Struct, frozen=True, kw_only=True):
    """A case that is not used in the ranking."""

    case: str
    reason: str


class Placement(Struct, frozen=True, kw_only=True):
    """Ranking computed with one of the two policies for failed runs."""

    failures: Policy
    """``excluded`` or ``imputed``."""
    standings: Standings | None
    """Ranks of the candidates. None if no cases can be used."""
    left_out: list[LeftOut]
    """Cases that are not used under this policy."""
    undecided: int
    """Number of comparisons that count as ties because there were too few runs, or because the runs were not
    interleaved."""
    comparisons: int
    notes: list[str]


class Ranking(Struct, frozen=True, kw_only=True):
    """Ranking of candidates by one metric."""

    metric: str
    by: list[str]
    """Ranked fields."""
    ties: Ties
    baseline: str
    contenders: list[str]
    failed: dict[str, int]
    """Number of failed runs of each candidate. Only cases that contain runs of all candidates are considered."""
    placements: list[Placement]
    """Results with failed runs excluded, and with failed runs imputed."""
    notes: list[str]


@dataclass(frozen=True)
class _Placed:
    """A run with the candidate, dataset and case to which it belongs."""

    run: StoredRun
    contender: str
    dataset: tuple[str, ...]
    case: tuple[str, ...]
    settings: dict[str, str]
    software: dict[str, str]

    @property
    def failed(self) -> bool:
        return isinstance(self.run.record.outcome, Failure)

    @property
    def draw(self) -> Draw:
        return self.run.record.spec.split, self.run.record.spec.seed


@dataclass(frozen=True)
class _Field:
    """The runs of all candidates in one case."""

    name: str
    dataset: str
    metric: RunMetric
    runs: dict[str, list[_Placed]]
    """Runs of each candidate."""

    def side(self, contender: str) -> list[StoredRun]:
        """Return the successful runs of a candidate for which the metric has a value."""
        return [one.run for one in self.runs[contender] if self.metric.value(one.run.record) is not None]

    def failed(self, contender: str) -> list[_Placed]:
        """Return one failed run for each seed and split without a successful run of the candidate."""
        done = {one.draw for one in self.runs[contender] if not one.failed}
        failed = {one.draw: one for one in self.runs[contender] if one.failed and one.draw not in done}
        return list(failed.values())


def rank(
    runs: Sequence[StoredRun],
    plugins: Mapping[str, Metric],
    metric: str = QUALITY.name,
    by: Sequence[str] = ("backend",),
    *,
    baseline: str = "",
    ties: Ties = "verdict",
    price_per_hour: float | None = None,
) -> Ranking:
    """Rank the candidates, which are the distinct values of the fields `by`.

    `plugins` contains the metrics from plugins by name, and is needed only for scores in older records. By default, the
    baseline is the candidate with results in the most cases. If `ties` is ``exact``, the candidates of a case are
    ranked by their means, and candidates with equal means tie.

    Raises `harness.UsageError` if fewer than two candidates have datasets in common, or if the runs cannot be ranked by
    `metric`. Raises `harness.UnknownNameError` if a name is unknown.
    """
    placed = _placed(runs, by)
    contenders = list(dict.fromkeys(one.contender for one in placed))
    shown = " and ".join(by)
    if len(contenders) < 2:
        only = f"all runs have the {shown} {contenders[0]!r}" if contenders else "there are no runs"
        raise UsageError(f"nothing to rank: {only}; rank by another field with --by, or add runs")
    if baseline and baseline not in contenders:
        raise UnknownNameError("baseline", baseline, contenders)
    placed, notes = _by_swept_settings(placed)
    placed, older = _newest(placed)
    notes += older
    cells = _cells(placed)
    contenders, dropped = _ranked(cells, contenders, baseline)
    notes += dropped
    fields, left_out = _fields(cells, contenders, metric, plugins, price_per_hour)
    if not fields:
        reasons = (
            "; ".join(f"{one.case}: {one.reason}" for one in left_out[:MAX_REASONS])
            or "no dataset has comparable runs of every ranked backend, model or setting"
        )
        raise UsageError(f"the runs cannot be ranked by {metric}: {reasons}")
    base = baseline or max(contenders, key=lambda name: sum(bool(field.side(name)) for field in fields))
    failed = {name: sum(len(field.failed(name)) for field in fields) for name in contenders}
    excluded = _placement("excluded", fields, left_out, contenders, base, ties)
    imputed = msgspec.structs.replace(excluded, failures="imputed")
    if any(failed.values()):
        imputed = _placement("imputed", fields, left_out, contenders, base, ties)
    return Ranking(
        metric=metric,
        by=list(by),
        ties=ties,
        baseline=base,
        contenders=contenders,
        failed=failed,
        placements=[excluded, imputed],
        notes=notes,
    )


def _placed(runs: Sequence[StoredRun], by: Sequence[str]) -> list[_Placed]:
    """Assign each run to a candidate, a dataset and a case. Interrupted runs and trials are ignored."""
    used = [run for run in runs if not _is_ignored(run.record)]
    records = with_known_devices(without_split_digests([run.record for run in used]))
    known = {name for record in records for name in settings_of(record.spec)}
    for name in by:
        if name not in FIELDS and name not in known:
            raise UnknownNameError("field", name, {*FIELDS, *known})
    devices: dict[tuple[str, ...], str] = {}
    for record in records:
        if record.spec.device != "auto":
            devices.setdefault(_dataset(record), record.spec.device)
    placed = []
    for run, record in zip(used, records, strict=True):
        # A run that failed early has the device "auto". Assign it to the case of other runs on the dataset.
        if record.spec.device == "auto":
            device = devices.get(_dataset(record), "auto")
            record = msgspec.structs.replace(record, spec=msgspec.structs.replace(record.spec, device=device))
        settings = settings_of(record.spec)
        parts = [
            str(getattr(record.spec, name)) if name in FIELDS else f"{name}={settings.get(name, 'none')}" for name in by
        ]
        identity = [getattr(record.spec, name) for name in FIELDS if name not in by]
        case = (*identity, *machine_of(record).values())
        rest = {name: value for name, value in settings.items() if name not in by}
        placed.append(_Placed(run, " · ".join(parts), _dataset(record), case, rest, software_of(record)))
    return placed


def _is_ignored(record: RunRecord) -> bool:
    outcome = record.outcome
    return isinstance(outcome, Trial) or (isinstance(outcome, Failure) and outcome.kind == "interrupted")


def _dataset(record: RunRecord) -> tuple[str, ...]:
    """Return the task and the dataset's name and options, which together identify the dataset."""
    spec = record.spec
    return spec.task, spec.dataset, msgspec.json.encode(spec.options_of_all_splits, order="sorted").decode()


def _by_swept_settings(placed: Sequence[_Placed]) -> tuple[list[_Placed], list[str]]:
    """Divide each case into smaller cases in which all runs have the same values of the swept settings. Return the
    runs, and a note about other settings that vary.

    A setting was swept if a candidate has runs with several values of this setting for the same seed and split.
    Settings that differ only between seeds or splits, such as settings tuned separately for each split, do not divide a
    case.
    """
    runs: dict[tuple[Any, ...], list[dict[str, str]]] = {}
    for one in placed:
        runs.setdefault((one.dataset, one.case, one.contender, one.draw), []).append(one.settings)
    swept: dict[tuple[str, ...], dict[str, None]] = {one.dataset: {} for one in placed}
    for (dataset, *_), settings in runs.items():
        swept[dataset] |= dict.fromkeys(differing(settings))
    divided = [
        dataclasses.replace(
            one, case=(*one.case, *(f"{name}={one.settings.get(name, 'none')}" for name in swept[one.dataset]))
        )
        for one in placed
    ]
    cells: dict[tuple[Any, ...], list[dict[str, str]]] = {}
    for one in divided:
        cells.setdefault((one.dataset, one.case, one.contender), []).append(one.settings)
    mixed = sorted({name for settings in cells.values() for name in differing(settings)})
    note = f"runs of different seeds or splits are averaged although they differ in {', '.join(mixed)}"
    return divided, [note] if mixed else []


def _newest(placed: Sequence[_Placed]) -> tuple[list[_Placed], list[str]]:
    """For each candidate and case, return the runs with the newest package versions and data. Also return a note about
    the runs that are ignored.

    The record of a failed run may lack some package versions. A failed run is ignored only if a recorded version
    differs.
    """
    newest: dict[tuple[Any, ...], _Placed] = {}
    for one in placed:
        key = (one.dataset, one.case, one.contender)
        if not one.failed and (key not in newest or one.run.record.started_at >= newest[key].run.record.started_at):
            newest[key] = one
    kept = []
    for one in placed:
        last = newest.get((one.dataset, one.case, one.contender))
        if last is None or one.software.items() <= last.software.items():
            kept.append(one)
    ignored = len(placed) - len(kept)
    note = f"runs with older package versions or other data are ignored: {ignored}"
    return kept, [note] if ignored else []


_Cells = dict[tuple[str, ...], dict[tuple[str, ...], dict[str, list[_Placed]]]]
"""Runs by dataset, case and candidate."""


def _cells(placed: Sequence[_Placed]) -> _Cells:
    cells: _Cells = {}
    for one in placed:
        cells.setdefault(one.dataset, {}).setdefault(one.case, {}).setdefault(one.contender, []).append(one)
    return cells


def _ranked(cells: _Cells, contenders: list[str], baseline: str) -> tuple[list[str], list[str]]:
    """Return the candidates to rank, and a note about each omitted candidate.

    If fewer than three datasets have runs of all candidates, the candidate with runs on the fewest datasets is omitted.
    This step is repeated as long as it makes more datasets usable. Failed runs are treated like successful runs here.
    """
    run_on = {
        name: {d for d, cases in cells.items() if any(name in case for case in cases.values())} for name in contenders
    }

    def common(names: Sequence[str]) -> int:
        return sum(any(set(names) <= case.keys() for case in cases.values()) for cases in cells.values())

    kept = list(contenders)
    while len(kept) > 2 and common(kept) < MIN_DATASETS:
        candidates = [[name for name in kept if name != other] for other in kept if other != baseline]
        best = max(candidates, key=lambda names: (common(names), sum(len(run_on[name]) for name in names)))
        if common(best) <= common(kept) and common(kept):
            break
        kept = best
    omitted = [name for name in contenders if name not in kept]
    note = "is not ranked, because it shares too few datasets with the other candidates"
    return kept, [f"{name} {note}" for name in omitted]


def _fields(
    cells: _Cells, contenders: Sequence[str], name: str, plugins: Mapping[str, Metric], price_per_hour: float | None
) -> tuple[list[_Field], list[LeftOut]]:
    """Return the usable cases, and the omitted cases with the reason for each omission.

    Raises the same errors as `rank` if the metric is invalid.
    """
    fields, left_out = [], []
    known: dict[str, None] = {}
    for dataset, cases in cells.items():
        done = [one.run.record for case in cases.values() for runs in case.values() for one in runs if not one.failed]
        metrics = available(done, plugins, price_per_hour)
        known |= dict.fromkeys(metrics)
        for key, runs in cases.items():
            label = " · ".join((*dataset[:2], *_shown(key, cases)))
            present = {contender: runs[contender] for contender in contenders if contender in runs}
            absent = [contender for contender in contenders if contender not in runs]
            if not present:
                continue
            metric = metrics.get(name)
            reason = ""
            if absent:
                reason = f"not run: {', '.join(absent)}"
            elif metric is None:
                reason = f"no value of {name}" if done else "all runs failed"
            elif metric.never_compared:
                raise UsageError(f"the runs cannot be ranked by {name}, because {metric.never_compared}")
            elif metric.higher_is_better is None:
                reason = unranked_note([name]).rstrip(".")
            else:
                field = _Field(label, "\n".join(dataset), metric, present)
                empty = [c for c in contenders if not field.side(c) and any(not one.failed for one in present[c])]
                if empty:
                    reason = f"no value of {name}{_quality_only(present, empty)}: {', '.join(empty)}{metric.advice}"
                else:
                    fields.append(field)
            if reason:
                left_out.append(LeftOut(case=label, reason=reason))
    if name not in known:
        raise UnknownNameError("metric", name, known)
    return fields, left_out


def _quality_only(present: Mapping[str, Sequence[_Placed]], empty: Sequence[str]) -> str:
    found = any(one.run.record.quality_only for name in empty for one in present[name])
    return " (quality-only runs)" if found else ""


def _shown(key: tuple[str, ...], cases: Mapping[tuple[str, ...], object]) -> list[str]:
    """Return the parts of a case's key that differ between the cases of its dataset."""
    return [part for place, part in enumerate(key) if len({other[place] for other in cases}) > 1]


def _placement(
    policy: Policy,
    fields: Sequence[_Field],
    left_out: Sequence[LeftOut],
    contenders: Sequence[str],
    baseline: str,
    ties: Ties,
) -> Placement:
    cases, left = [], list(left_out)
    undecided = comparisons = 0
    problems: dict[str, None] = {}
    for field in fields:
        sides = {name: field.side(name) for name in contenders}
        if policy == "imputed" and sides[baseline]:
            sides = {
                name: side if name == baseline else side + _imputed(field, name, sides[baseline])
                for name, side in sides.items()
            }
        without = [name for name, side in sides.items() if not side]
        if without:
            kinds = [f"{name} ({', '.join(_kinds(field.failed(name)))})" for name in without]
            left.append(LeftOut(case=field.name, reason=f"failed: {', '.join(kinds)}"))
            continue
        metric = field.metric
        shared = 0.0
        if metric.group == "score":
            shared = max(overlap([run.record for run in side]) for side in sides.values())
        values = [_by_draw(side, metric) for side in sides.values()]
        case = Case(
            field.dataset,
            tuple(map(_by_split, values) if shared else values),
            higher_is_better=bool(metric.higher_is_better),
            geometric=metric.relative,
            overlap=shared,
        )
        if ties == "verdict":
            tied, missing, unread = _tied(case, list(sides.values()), metric)
            problems |= dict.fromkeys(unread)
            case = dataclasses.replace(case, tied=tied)
            undecided += missing
        comparisons += len(contenders) * (len(contenders) - 1) // 2
        cases.append(case)
    found = standings(cases, contenders, contenders.index(baseline)) if cases else None
    return Placement(
        failures=policy,
        standings=found,
        left_out=left,
        undecided=undecided,
        comparisons=comparisons,
        notes=[*problems, *_notes(found)],
    )


def _imputed(field: _Field, contender: str, base: Sequence[StoredRun]) -> list[StoredRun]:
    """Return the baseline's runs that replace a candidate's failed runs.

    If the baseline has no runs with the seeds and splits of the failed runs, an equal number of other baseline runs is
    used, so that every candidate has values.
    """
    draws = {one.draw for one in field.failed(contender)}
    same = [run for run in base if (run.record.spec.split, run.record.spec.seed) in draws]
    return same or list(base[: len(draws)])


def _by_draw(side: Sequence[StoredRun], metric: RunMetric) -> dict[Draw, float]:
    """Return the mean of the metric over the repeats of each combination of split and seed."""
    values: dict[Draw, list[float]] = {}
    for run in side:
        value = metric.value(run.record)
        assert value is not None
        values.setdefault((run.record.spec.split, run.record.spec.seed), []).append(float(value))
    return {draw: sum(repeats) / len(repeats) for draw, repeats in values.items()}


def _by_split(values: Mapping[Draw, float]) -> dict[Draw, float]:
    """Return the mean over the seeds of each fold or random split, because runs on the same split have the same test
    examples. The keys of the result have the seed 0."""
    splits: dict[Draw, list[float]] = {}
    for (split, _), value in values.items():
        splits.setdefault((split, 0), []).append(value)
    return {draw: sum(seeds) / len(seeds) for draw, seeds in splits.items()}


def _tied(
    case: Case, sides: Sequence[list[StoredRun]], metric: RunMetric
) -> tuple[frozenset[tuple[int, int]], int, list[str]]:
    """Return the pairs of candidates that tie, the number of pairs without a verdict, and a note about each file that
    cannot be read.

    A verdict may be based on a subset of the runs. If a verdict contradicts the means over all runs, the pair also
    counts as a tie.
    """
    tied, missing, problems, levels = set(), 0, [], case.levels
    for i, j in itertools.combinations(range(len(sides)), 2):
        if [id(run) for run in sides[i]] == [id(run) for run in sides[j]]:  # imputed
            tied.add((i, j))
            continue
        try:
            found = compare(Match(sides[i], sides[j]), metric, CONFIDENCE)
        except RecordError as error:
            problems.append(f"comparisons that depend on an unreadable file count as ties: {error}")
            missing += 1
            tied.add((i, j))
            continue
        missing += found.low is None or not found.interleaved
        better = "better" if (levels[j] > levels[i]) == case.higher_is_better else "worse"
        if found.verdict != better or not found.interleaved or levels[i] == levels[j]:
            tied.add((i, j))
    return frozenset(tied), missing, problems


def _kinds(failed: Sequence[_Placed]) -> list[str]:
    kinds = Counter(one.run.record.outcome.kind for one in failed if isinstance(one.run.record.outcome, Failure))
    return list(kinds)


def _notes(found: Standings | None) -> list[str]:
    if found is None:
        return ["no dataset can be used"]
    notes = []
    if found.datasets < MIN_DATASETS:
        notes.append(
            f"too few datasets for confidence intervals ({found.datasets}): at least {MIN_DATASETS} are required"
        )
    if any(one.ratio is None for one in found.contenders):
        notes.append("a ratio is missing if its value or the value of the baseline is zero, negative or too large")
    return notes
