"""Determine which of the planned runs must be executed and which are already in the results directory."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast, get_args

import msgspec

from harness.errors import UnknownNameError
from harness.execute.machines import machine_difference
from harness.measure import environment
from harness.plugins import environments
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.records import CheckpointPlan, Environment, Failure, FailureKind, PluginRef, RunSpec
from harness.records.header import HeaderTrial, StoredHeader
from harness.records.index import Setting
from harness.records.reading import is_stored
from harness.records.store import ARRAYS, WEIGHTS, Store


@dataclass(frozen=True)
class Decision:
    """Decision to execute a planned run or to use a stored run instead."""

    spec: RunSpec
    stored: StoredHeader | None
    """Header of the stored run that is used instead of the planned run. The value is None if the planned run must be
    executed."""
    reason: str
    """Reason for the decision, such as ``done on 28 Nov 2026`` or ``torch 2.12.0 -> 2.13.0``. The string is empty for a
    run that has never been executed.
    """
    checkpoints: CheckpointPlan | None = None
    """Checkpoints of a run to be executed, or None."""
    resumed: str = ""
    """Position from which a resumed run continues, such as ``from step 1200 of 5000``. The string is empty if the run
    is executed from the beginning."""
    ignored: str = ""
    """Reason why a run does not use its checkpoint, or an empty string."""


def decide(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    *,
    save_weights: bool = False,
    quality_only: bool = False,
    compared: Collection[str] = (),
    retry: Collection[FailureKind] | None = None,
    batch_size_backoff: bool = False,
    machines: Sequence[Environment] | None = None,
    collected: Collection[str] = (),
    rerun: bool = False,
) -> list[Decision]:
    """Return a decision for each of `specs`, in the same order.

    A successful stored run replaces a planned run if the requested specification, the plugins' code, the versions of
    Python and the packages, and the class of the machine are the same. The class of a machine is defined by its
    processor, number of cores, CPU quota, main memory and, for runs on a GPU, its GPUs and their driver. If
    `save_weights` is true, the stored run must have saved weights. If the key of the spec is in `compared`, the stored
    run must have a parity result. Each stored run replaces at most one planned run. All requested repeats are therefore
    executed. A run whose batch size was reduced is used only if `batch_size_backoff` is true. A run that measured only
    quality is used only if `quality_only` is true.

    `machines` contains the environments of the machines that can execute the runs. By default, `machines` contains only
    this machine. A stored run can be used if it was executed on a machine of the same class as one of `machines`.

    Failed and interrupted runs are executed again. If `retry` is given, only interrupted runs and runs with one of the
    given kinds of failure are executed again. For all other failed runs, the stored records are used. The runs whose
    ids are in `collected` are results of this command and are used even if they failed. If `rerun` is true, only the
    runs in `collected` are used.

    Raises `harness.RecordError` if the results directory cannot be read.
    """
    keys = [spec.key for spec in specs]  # Compute each key only once, because this takes 30 microseconds.
    wanted = dict(zip(keys, specs, strict=True))
    similar = {_selected(spec) for spec in specs}
    stored = _by_request(store.headers(lambda run: _selected(run.setting) in similar), wanted)
    places = [Here(catalog)] if machines is None else [Here(catalog, machine) for machine in machines]
    usable: dict[str, list[tuple[StoredHeader, str]]] = {}
    reasons: dict[str, str] = {}
    for key, spec in wanted.items():
        usable[key] = []
        for run in stored.get(key, ()):
            new = run.record.run_id in collected
            if rerun and not new:
                continue
            differences = [
                place.difference(
                    spec, run, save_weights=save_weights, quality_only=quality_only, compared=key in compared
                )
                for place in places
            ]
            changed = None if None in differences else differences[0]
            outcome = run.record.outcome
            if isinstance(outcome, HeaderTrial):
                continue  # A trial has no test scores.
            reduced = run.record.batch_size_reduced_from is not None
            if changed is None and reduced and (isinstance(outcome, Failure) or not batch_size_backoff):
                continue  # report the reason for the run with the requested batch size
            if changed is None and isinstance(outcome, Failure) and not new:
                if outcome.kind == "interrupted":
                    changed = "interrupted before"
                elif retry is None or outcome.kind in retry:
                    changed = f"failed before: {outcome.kind}"
            if changed is None:
                day = _day(run.record.started_at)
                size = f" with batch size {run.record.spec.recipe.batch_size}" if reduced else ""
                done = f"failed on {day}: {outcome.kind}" if isinstance(outcome, Failure) else f"done on {day}{size}"
                usable[key].append((run, done))
            else:
                reasons[key] = changed  # report the reason for the newest run
    for runs in usable.values():
        # Prefer successful runs, and among them those that were measured completely.
        runs.sort(key=lambda one: (isinstance(one[0].record.outcome, Failure), one[0].record.quality_only))
    decisions = []
    for key, spec in zip(keys, specs, strict=True):
        if usable[key]:
            decisions.append(Decision(spec, *usable[key].pop(0)))
        else:
            decisions.append(Decision(spec, None, reasons.get(key, "")))
    return decisions


def _selected(setting: RunSpec | Setting) -> tuple[str, ...]:
    return setting.task, setting.dataset, setting.model, setting.backend, setting.precision


def _by_request(runs: Sequence[StoredHeader], wanted: Mapping[str, RunSpec]) -> dict[str, list[StoredHeader]]:
    """Return the stored runs, grouped by the key of the requested specification. The runs for each key are sorted by
    start time."""
    # Older records contain only the key of the specification with the resolved device, not the requested key.
    resolved: dict[str, str] = {}
    if not all(run.record.request_key for run in runs):
        for key, spec in wanted.items():
            for device in {spec.device, "cpu"} if spec.device == "auto" else {spec.device}:
                resolved.setdefault(msgspec.structs.replace(spec, device=device).key, key)
    found: dict[str, list[StoredHeader]] = defaultdict(list)
    for run in runs:
        key = run.record.request_key or resolved.get(run.record.key, "")
        if key in wanted:
            found[key].append(run)
    return found


class Here:
    """Environment of this process or of another machine, to compare with the environments of stored runs."""

    def __init__(self, catalog: Catalog, machine: Environment | None = None) -> None:
        self._catalog, self._machine = catalog, machine
        self._environment = environment.collect() if machine is None else machine
        self._versions: dict[tuple[str, str], Mapping[str, str]] = {}
        self._digests: dict[PluginRef, str] = {}
        self._known_codes: dict[tuple[str, ...], Mapping[str, str]] = {}

    def difference(
        self, spec: RunSpec, run: StoredHeader, *, save_weights: bool, quality_only: bool, compared: bool
    ) -> str | None:
        """Return the reason why a stored run cannot be used instead of a planned run, or None if it can be used."""
        record = run.record
        changed = self.changed(spec, record.provenance.plugins, record.environment, record.spec.device)
        if changed:
            return changed
        if record.quality_only and not quality_only:
            return "only the quality was measured"
        if isinstance(record.outcome, Failure):
            return None
        if not _exists(f"{run.path}/{ARRAYS}"):
            return f"{ARRAYS} is missing"
        if save_weights and not is_stored(run.path / WEIGHTS) and record.provenance.final_weights_digest:
            return "the weights were not saved"
        if compared and not record.parity:
            return "parity was not checked"
        return None

    def changed(self, spec: RunSpec, plugins: Iterable[PluginRef], environment: Environment, device: str) -> str | None:
        """Return the reason why a run of `spec` with these plugins, environment and device is not comparable to a run
        in the current environment.

        Return None if the runs are comparable.
        """
        return (
            _first_change("plugin", _codes(plugins), self._codes(spec), shown=False)
            or self._other_lock(environment, spec)
            or _first_change("", self._with_python(environment, spec), self._packages(spec))
            or other_machine(environment, self._environment, on_gpu=device != "cpu")
        )

    def _packages(self, spec: RunSpec) -> Mapping[str, str]:
        place = spec.backend, spec.env
        if place not in self._versions:
            self._versions[place] = package_versions(spec, self._catalog, self._machine)
        return self._versions[place]

    def _other_lock(self, then: Environment, spec: RunSpec) -> str | None:
        """Return a message if the packages in the named environment have changed since the run.

        If the versions of packages listed in the environment have changed, None is returned. Changed package versions
        are already reported when the versions are compared.
        """
        same = then.lock_digest == environments.lock_digest(spec.env)
        if same or _first_change("", self._with_python(then, spec), self._packages(spec)):
            return None
        return f"the lock of environment {spec.env!r} changed"

    def _with_python(self, then: Environment, spec: RunSpec) -> Mapping[str, str]:
        # A run that failed early has not recorded its packages. Compare only the version of Python.
        packages = then.packages or self._packages(spec)
        return {**packages, "Python": then.python}

    def _codes(self, spec: RunSpec) -> Mapping[str, str]:
        combination = (spec.task, spec.dataset if spec.source is None else "", spec.model, spec.backend)
        if combination not in self._known_codes:
            refs = self._catalog.refs_for(spec)
            for ref in refs:
                if ref not in self._digests:
                    self._digests[ref] = with_digest(ref).code_digest
            self._known_codes[combination] = {ref.name: self._digests[ref] for ref in refs}
        return self._known_codes[combination]


def package_versions(spec: RunSpec, catalog: Catalog, machine: Environment | None = None) -> dict[str, str]:
    """Return the versions of Python, the core packages and the backend's packages in a spec's environment, on this or
    another machine."""
    names = (*environment.CORE_PACKAGES, *catalog.backend(spec.backend).packages)
    if machine is not None and not spec.env:
        titles = map(environment.title, names)
        return {
            "Python": machine.python,
            **{name: machine.packages[name] for name in titles if name in machine.packages},
        }
    versions = environments.load(spec.env).versions(names) if spec.env else environment.versions(names)
    return {"Python": environments.python_version(spec.env), **versions}


def _exists(path: str) -> bool:
    """Return True if a file or link exists. `os.lstat` is twice as fast with a string as with a Path."""
    try:
        os.lstat(path)
    except (OSError, ValueError):
        return False
    return True


def _codes(plugins: Iterable[PluginRef]) -> Mapping[str, str]:
    return {ref.name: ref.code_digest for ref in plugins}


def _first_change(kind: str, then: Mapping[str, str], now: Mapping[str, str], *, shown: bool = True) -> str:
    """Return the first name that has different values in `then` and `now`.

    If all values are equal, return an empty string. If `shown` is true, the name is followed by both values.
    """
    for name in (*now, *then):
        old, new = then.get(name), now.get(name)
        if old == new and (old or shown):  # If the digest is unknown, assume that the code has changed.
            continue
        title = f"{kind} {name}".strip()
        if old is None or new is None:
            return f"{title} {'added' if old is None else 'removed'}"
        return f"{title} {old} -> {new}" if shown else f"{title} changed"
    return ""


def other_machine(then: Environment, now: Environment, *, on_gpu: bool) -> str | None:
    """Return a description of the difference between two machines. If both machines belong to the same class, return
    None."""
    change = machine_difference(then, now, on_gpu=on_gpu)
    return f"another machine: {change}" if change else None


def _day(started_at: str) -> str:
    try:
        return f"{datetime.fromisoformat(started_at):%-d %b %Y}"
    except ValueError:
        return started_at


MAX_LINES = 20
"""Maximum number of runs for which `describe` returns one line per run."""


def describe(decisions: Iterable[Decision], titles: Mapping[str, str] = {}) -> list[str]:
    """Return one line for each run that is skipped, resumed or executed again, with the reason.

    If there are many runs, return one line for each reason instead. `titles` maps the key of each run to its title.
    """
    explained = [(decision, *_explanation(decision)) for decision in decisions]
    explained = [each for each in explained if each[2]]
    if len(explained) <= MAX_LINES:
        return [
            f"{word}: {titles.get(decision.spec.key, decision.spec.title)}: {reason}"
            + (f" ({decision.stored.record.run_id})" if decision.stored else "")
            for decision, word, reason in explained
        ]
    counts = Counter((word, reason) for _, word, reason in explained)
    return [f"{word} {count} {'run' if count == 1 else 'runs'}: {reason}" for (word, reason), count in counts.items()]


def _explanation(decision: Decision) -> tuple[str, str]:
    """Return one word that describes the action taken for a planned run, and the reason for this action."""
    if decision.stored is not None:
        return "skip", decision.reason
    if decision.resumed:
        return "resume", decision.resumed
    if decision.ignored:
        return "restart", f"the checkpoint is not used: {decision.ignored}"
    return "redo", decision.reason


def failure_kinds(names: str | Iterable[str] | None) -> tuple[FailureKind, ...] | None:
    """Return the failure kinds with these names. Raises `harness.UnknownNameError` if a name is unknown."""
    if names is None:
        return None
    known = get_args(FailureKind)
    kinds = tuple([names] if isinstance(names, str) else names)
    for kind in kinds:
        if kind not in known:
            raise UnknownNameError("kind of failure", kind, known)
    return cast("tuple[FailureKind, ...]", kinds)
