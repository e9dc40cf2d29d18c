"""Match the runs in BASE with the runs in NEW."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from harness.analysis.compare import baseline
from harness.analysis.differences import IDENTITY, changes, described
from harness.errors import RecordError, UsageError
from harness.plan.weights import is_servable
from harness.plugins.catalog import Catalog
from harness.records import RunSpec, Success
from harness.records.index import Setting, Summary
from harness.records.printing import note
from harness.records.store import RECORD, Store, StoredRun, read_record


@dataclass(frozen=True)
class Match:
    """Two sets of runs to compare. All runs in a set have the same settings."""

    base: list[StoredRun]
    """Successful runs with one setting, including all seeds, splits and repeats."""
    new: list[StoredRun]

    @property
    def name(self) -> str:
        """Task, dataset, model, backend, device and precision. Values that differ are written as ``base -> new``."""
        mine, other = (runs[0].record.spec for runs in (self.base, self.new))
        parts = []
        for field in IDENTITY:
            before, after = getattr(mine, field), getattr(other, field)
            parts.append(before if before == after else f"{before} -> {after}")
        return " · ".join(parts)

    @property
    def differences(self) -> list[tuple[str, str, str]]:
        """Tuples ``(name, base, new)`` for the settings, machine properties, package versions, commits and numbers of
        quality-only runs that differ."""
        return changes(*(described(runs[0].record) | _quality_only(runs) for runs in (self.base, self.new)))


def _quality_only(runs: Sequence[StoredRun]) -> dict[str, str]:
    count = sum(run.record.quality_only for run in runs)
    return {"quality-only runs": f"{count} of {len(runs)}"} if count else {}


def find(text: str, results: Path, catalog: Callable[[], Catalog], *, strict: bool = False) -> list[StoredRun]:
    """Return the runs that `text` refers to.

    `text` is a path or part of the ids of runs in `results`. A path refers to a results directory, the directory of a
    run, a baseline file or a suite file (``.toml``). The planned runs of a suite are looked up in `results`. `catalog`
    is called only for a suite. Raises `harness.UsageError` if no run matches, and `harness.RecordError` if a record
    cannot be read. If `strict` is False, unreadable records in a results directory are excluded with a warning.
    """
    return find_each([text], results, catalog, strict=strict)[0]


def find_each(
    texts: Sequence[str], results: Path, catalog: Callable[[], Catalog], *, strict: bool = False
) -> list[list[StoredRun]]:
    """Return the runs that each text refers to, as in `find`. The directory `results` is read only once."""

    @cache
    def with_names() -> list[StoredRun]:
        return _readable(results, strict, lambda run: any(text in run.name for text in texts))

    return [_found(text, results, catalog, with_names, strict) for text in texts]


def _found(
    text: str,
    results: Path,
    catalog: Callable[[], Catalog],
    with_names: Callable[[], list[StoredRun]],
    strict: bool,
) -> list[StoredRun]:
    path = Path(text)
    # Functions of os.path return False for names that are too long or contain null characters.
    if os.path.isfile(path / RECORD):  # noqa: PTH113
        return [StoredRun(path, read_record(path / RECORD))]
    if os.path.isdir(path):  # noqa: PTH112
        runs = _readable(path, strict)
        if not runs:
            raise UsageError(f"{path}: the directory contains no runs")
        return runs
    if os.path.isfile(path):  # noqa: PTH113
        return _of_suite(path, results, catalog()) if path.suffix == ".toml" else baseline.load(path)
    if os.sep in text:
        raise UsageError(f"{path}: there is no results directory, run or baseline at this path; check the spelling")
    runs = with_names()
    matching = [run for run in runs if run.path.name == text]
    matching = matching or [run for run in runs if run.path.name.startswith(text)]
    matching = matching or [run for run in runs if text in run.path.name]
    if not matching:
        raise UsageError(f"{text!r} is neither a directory nor a run in {results}; list the runs with `harness report`")
    return matching


def _readable(results: Path, strict: bool, wanted: Callable[[Summary], bool] | None = None) -> list[StoredRun]:
    """Return the runs in a results directory, and print a warning for each record that cannot be read.

    If `wanted` is given, return only the runs for which `wanted` returns True. Raises `harness.RecordError` if no
    record can be read. If `strict` is True, a single unreadable record is enough to raise the error.
    """
    loaded = Store(results).load(wanted)
    if loaded.problems and (strict or not loaded.summaries):
        raise RecordError("; ".join(loaded.problems))
    for problem in loaded.problems:
        note(f"{problem}; this run is excluded")
    return loaded.runs


def _of_suite(path: Path, results: Path, catalog: Catalog) -> list[StoredRun]:
    from harness.data.checkpoint import locate
    from harness.plan import suite
    from harness.plan.expand import expand_all
    from harness.plan.stages import staged

    store = Store(results)

    def trained(spec: RunSpec) -> StoredRun | None:
        key = _device_independent_key(spec)
        runs = store.load(lambda run: _model(run.setting) == _model(spec)).runs
        return next((run for run in runs if is_servable(run) and _device_independent_key(run.record.spec) == key), None)

    stages = staged(suite.load(path).selections, catalog, locate, store.find_trained, trained)
    specs = expand_all(stages.selections, catalog)
    planned = {_device_independent_key(spec) for spec in specs}
    models = {_model(spec) for spec in specs}
    runs = _readable(results, strict=True, wanted=lambda run: _model(run.setting) in models)
    matching = [run for run in runs if _device_independent_key(run.record.spec) in planned]
    if not matching:
        raise UsageError(
            f"{path}: no runs of this suite were found in {results}; run the suite first: harness run --suite {path}"
        )
    return matching


def _device_independent_key(spec: RunSpec) -> str:
    """Return the key of a spec without its device. The device is excluded because ``auto`` is resolved when the run
    starts."""
    return msgspec.structs.replace(spec, device="auto").key


def _model(run: RunSpec | Setting) -> tuple[str, ...]:
    """Return the settings that determine the key of a spec.

    The name of the user's own data is excluded.
    """
    return run.task, run.model, run.backend, run.precision


def match(base: Sequence[StoredRun], new: Sequence[StoredRun]) -> tuple[list[Match], list[str]]:
    """Return the matches between two sets of runs, and the names of settings that occur in only one set.

    Runs with equal settings are matched first, followed by runs whose settings differ only in the named environment.
    The remaining runs are matched if their task, dataset, model, backend, device and precision are equal and unique in
    both sets. The runs that are still unmatched are matched by the same rules, ignoring the backend and its
    environment. If each set has only one setting, these two settings are always matched.
    """
    sides = [_groups(base), _groups(new)]
    matches = []
    steps = [_settings, _settings_but_env, _identity, _settings_but_backend, _identity_but_backend]
    if all(len(side) == 1 for side in sides):
        steps.append(_anything)
    for alike in steps:
        for key in dict.fromkeys(alike(group[0]) for group in sides[0]):
            candidates = [[group for group in side if alike(group[0]) == key] for side in sides]
            if [len(groups) for groups in candidates] == [1, 1]:
                matches.append(Match(candidates[0][0], candidates[1][0]))
                for side, groups in zip(sides, candidates, strict=True):
                    side.remove(groups[0])
    left = [
        f"{' · '.join(_identity(group[0]))} ({which})"
        for which, side in zip(("base", "new"), sides, strict=True)
        for group in side
    ]
    return matches, left


def _groups(runs: Sequence[StoredRun]) -> list[list[StoredRun]]:
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        if isinstance(run.record.outcome, Success):
            groups.setdefault(run.record.spec.group_key, []).append(run)
    return list(groups.values())


def _settings(run: StoredRun) -> tuple[str, ...]:
    return (run.record.spec.group_key,)


def _identity(run: StoredRun) -> tuple[str, ...]:
    return tuple(getattr(run.record.spec, name) for name in IDENTITY)


def _settings_but_env(run: StoredRun) -> tuple[str, ...]:
    return (msgspec.structs.replace(run.record.spec, env="").group_key,)


def _settings_but_backend(run: StoredRun) -> tuple[str, ...]:
    """Return a key of the settings without the backend, its environment and the backend that exported the weights."""
    weights = run.record.spec.weights
    if weights is not None:
        weights = msgspec.structs.replace(weights, exported=None)
    return (msgspec.structs.replace(run.record.spec, backend="", env="", weights=weights).group_key,)


def _identity_but_backend(run: StoredRun) -> tuple[str, ...]:
    return tuple(getattr(run.record.spec, name) for name in IDENTITY if name != "backend")


def _anything(run: StoredRun) -> tuple[str, ...]:
    return ()
