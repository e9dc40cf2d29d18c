"""A/A check that determines whether the speed of simultaneous runs can be measured.

The check executes runs one at a time (A) and several at a time (B), in the order A B B A. The speeds of runs with the
same settings are compared; see `harness.analysis.compare.side_by_side`. The result is saved in the cache directory and
applies to the same settings, cores, code, package versions and class of machine.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from harness.data.cache import cache_dir
from harness.errors import HarnessError, RecordError, UsageError
from harness.execute.machines import HARNESS
from harness.execute.resume import other_machine, package_versions
from harness.execute.runner import DEFAULT_TIMEOUT_S, LOCAL, Listener, run_all
from harness.execute.side_by_side import Lane, SideBySide, lanes_for
from harness.interfaces import Executor
from harness.measure.environment import collect
from harness.plugins import environments
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.records import Environment, Failure, Protocol, RunRecord, RunSpec
from harness.records.files import replacing
from harness.records.reading import load_named
from harness.records.spec import key_of
from harness.records.store import Store, StoredRun

FOLDER = "side-by-side"
ROUNDS = 8
"""Default number of rounds. In each round, every setting is run once on its own and once in each lane."""
MIN_ROUNDS = 4
NEUTRAL = frozenset(
    ("epochs", "learning_rate", "schedule", "warmup_fraction", "step_size", "milestones", "beta1", "beta2", "epsilon")
)
"""Recipe settings that do not affect the computations in a training step."""


class Figure(Struct, frozen=True, kw_only=True):
    """Change in a metric between the sequential runs of a setting and its simultaneous runs in one lane."""

    setting: str
    cores: tuple[int, ...]
    metric: str
    unit: str
    alone: float
    """Mean of the sequential runs."""
    beside: float
    """Mean of the simultaneous runs in the lane."""
    change: float
    """Relative change, such as -0.02 for a decrease of 2%."""
    low: float | None
    high: float | None
    """Limits of the confidence interval for the change, or None if there are too few runs."""
    margin: float
    """Largest relative change that the interval may include."""
    evidence: str
    """Number of pairs of runs used to compute the interval."""

    @property
    def result(self) -> Literal["same", "differs", "undecided"]:
        """``same`` if the interval is within the margin, ``differs`` if the interval excludes zero and extends beyond
        the margin, and ``undecided`` otherwise.
        """
        if self.low is None or self.high is None:
            return "undecided"
        if -self.margin < self.low and self.high < self.margin:
            return "same"
        return "differs" if self.low > 0 or self.high < 0 else "undecided"


class SideBySideCheck(Struct, frozen=True, kw_only=True):
    """Result of an A/A check."""

    checked_at: str
    """Time of the check (UTC, ISO 8601)."""
    environment: Environment
    jobs: int
    lanes: list[tuple[tuple[int, ...], str]]
    """Cores and GPU of each lane."""
    loads: dict[str, str]
    """Title of each setting. The key of a setting is computed by `load_of`."""
    versions: dict[str, dict[str, str]]
    """Versions of Python and of the packages, for each setting."""
    codes: dict[str, dict[str, str]] = {}
    """For each setting, the digests of its code and of its named environment's lock file; see `codes_of`."""
    rounds: int
    figures: list[Figure]

    @property
    def passed(self) -> bool:
        """True if the result of every comparison is ``same``."""
        return bool(self.figures) and all(figure.result == "same" for figure in self.figures)


@dataclass(frozen=True)
class Part:
    """Scope of the measurements in the planned runs, either everything or only quality."""

    quality_only: bool
    checked_at: str = ""
    """Time of the check that permits measuring the speed of simultaneous runs, or an empty string if speed is not
    measured.
    """
    reason: str = ""
    """Reason why only quality is measured, or an empty string if the user requested a quality-only measurement."""


def load_of(spec: RunSpec) -> str:
    """Return a key that identifies all settings that affect how a run uses the machine.

    The seed, the split, the measurement protocol and the recipe settings in `NEUTRAL` are ignored.
    """
    values = msgspec.to_builtins(msgspec.structs.replace(spec, seed=0, protocol=Protocol()))
    values["recipe"] = {name: value for name, value in values["recipe"].items() if name not in NEUTRAL}
    values["dataset_options"] = spec.options_of_all_splits
    return key_of(values)


def codes_of(specs: Sequence[RunSpec], catalog: Catalog) -> dict[str, dict[str, str]]:
    """Return, for each setting, the digests of its code and of its named environment's lock file."""
    digest = functools.cache(lambda ref: with_digest(ref).code_digest)
    found = {}
    for load, spec in {load_of(spec): spec for spec in specs}.items():
        found[load] = {ref.name: digest(ref) for ref in (HARNESS, *catalog.refs_for(spec))}
        if spec.env:
            found[load][f"environment {spec.env}"] = environments.lock_digest(spec.env)
    return found


def measured_part(
    specs: Sequence[RunSpec], catalog: Catalog, jobs: int, *, quality_only: bool, batch_size_backoff: bool = False
) -> Part:
    """Return whether to measure everything or only quality when executing `jobs` runs at the same time.

    If the runs are executed one after another, speed is measured. If they are executed at the same time, speed is
    measured only if the most recent check that covers all of their settings passed. If `batch_size_backoff` is true,
    speed is not measured, because the check does not cover smaller batches. Raises `harness.UsageError` if the machine
    does not have enough cores or GPUs.
    """
    if jobs == 1:
        return Part(quality_only)
    lanes = lanes_for(specs, jobs)
    if quality_only or not specs:
        return Part(True)
    if batch_size_backoff:
        return Part(True, reason="quality only: --batch-size-backoff can use batch sizes that were not checked")
    reason = "simultaneous runs with these settings were not checked"
    for found in sorted(_saved(), key=lambda each: each.checked_at, reverse=True):
        if found.jobs != jobs or not {load_of(spec) for spec in specs} <= found.loads.keys():
            continue
        reason = _obstacle(found, specs, catalog, lanes)
        if not reason:
            return Part(False, found.checked_at)
        break
    advice = f"to measure speed, first run `harness selftest --jobs {jobs}` with the same settings"
    return Part(True, reason=f"quality only: {reason}; {advice}")


def _obstacle(found: SideBySideCheck, specs: Sequence[RunSpec], catalog: Catalog, lanes: Sequence[Lane]) -> str:
    """Return the reason why the speed of these runs cannot be measured, or an empty string if it can be measured."""
    day = found.checked_at[:10]
    on_gpu = any(spec.device != "cpu" for spec in specs)
    if changed := other_machine(found.environment, collect(), on_gpu=on_gpu):
        return f"the check on {day} applies to {changed}"
    if found.lanes != _plain(lanes):
        return f"the check on {day} used different cores or GPUs"
    for spec in {load_of(spec): spec for spec in specs}.values():
        if found.versions.get(load_of(spec)) != package_versions(spec, catalog):
            return f"packages of {spec.backend} have changed since the check on {day}"
    for load, codes in codes_of(specs, catalog).items():
        for name, digest in codes.items():
            if not digest or found.codes.get(load, {}).get(name) != digest:  # an unknown digest may have changed
                return f"the code of {name} has changed since the check on {day}"
    if not found.passed:
        first = next((figure for figure in found.figures if figure.result != "same"), None)
        figure = f" ({first.metric} of {first.setting}: {described(first)})" if first else ""
        return f"the check on {day} did not pass{figure}"
    return ""


def _plain(lanes: Iterable[Lane]) -> list[tuple[tuple[int, ...], str]]:
    return [(lane.cores, lane.gpu) for lane in lanes]


def described(figure: Figure) -> str:
    """Return the change and its interval as text."""
    ends = "" if figure.low is None or figure.high is None else f", {figure.low:+.1%} to {figure.high:+.1%}"
    return f"{figure.change:+.1%}{ends}"


Settings = Mapping[str, tuple[str, list[StoredRun], dict[tuple[int, ...], list[StoredRun]]]]
"""For each setting: the title, the sequential runs, and the simultaneous runs grouped by the cores of their lanes."""


def check(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    jobs: int,
    judge: Callable[[Settings], list[Figure]],
    *,
    rounds: int = ROUNDS,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    listener: Listener | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> SideBySideCheck:
    """Run the settings of `specs` one at a time and then `jobs` at a time, and save a comparison of their speeds.

    `judge` compares the speeds. Raises `harness.UsageError` if `jobs` is less than 2, `rounds` is too small, or there
    are not enough cores or GPUs. Raises `harness.HarnessError` if a run fails or the result cannot be saved.
    """
    if jobs < 2:
        raise UsageError(f"a check of simultaneous runs needs --jobs 2 or more, got {jobs}")
    if rounds < MIN_ROUNDS:
        raise UsageError(f"a check of simultaneous runs needs --repeat {MIN_ROUNDS} or more, got {rounds}")
    lanes = lanes_for(specs, jobs)
    by_load: dict[str, RunSpec] = {}
    for spec in specs:
        by_load.setdefault(load_of(spec), spec)
    chosen, codes = list(by_load.values()), codes_of(specs, catalog)
    silent = dataclasses.replace(catalog, plugins=())  # trackers must not log these runs
    settings: Settings = {key: (spec.title, [], {lane.cores: [] for lane in lanes}) for key, spec in by_load.items()}
    with tempfile.TemporaryDirectory(prefix="harness-side-by-side-") as folder:
        store = Store(Path(folder))

        def executed(planned: Sequence[RunSpec], executor: str | Executor) -> list[RunRecord]:
            records = run_all(planned, silent, store, timeout_s=timeout_s, listener=listener, executor=executor)
            for record in records:
                if isinstance(record.outcome, Failure):
                    outcome = record.outcome
                    raise HarnessError(f"{record.spec.title} failed: {outcome.kind}: {outcome.message}")
            return records

        def one_after_another() -> None:
            for key, record in zip(by_load, executed(chosen, LOCAL), strict=True):
                settings[key][1].append(_run(record))

        def side_by_side(number: int) -> None:
            """Run all settings once in each lane. The order differs between lanes and rounds, so that different
            settings also run at the same time, as they do in a plan.
            """
            size = len(chosen)
            turns = [[lane * size + (i + lane * number) % size + 1 for i in range(size)] for lane in range(jobs)]
            records = executed(chosen * jobs, SideBySide(lanes, turns))
            for key, record in zip(list(by_load) * jobs, records, strict=True):
                assert record.placement is not None
                settings[key][2][record.placement.cores].append(_run(record))

        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            steps: list[Callable[[], None]] = [one_after_another, partial(side_by_side, number)]
            for step in steps if number % 2 == 0 else steps[::-1]:
                step()
    found = SideBySideCheck(
        checked_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=collect(),
        jobs=jobs,
        lanes=_plain(lanes),
        loads={key: spec.title for key, spec in by_load.items()},
        versions={key: package_versions(spec, catalog) for key, spec in by_load.items()},
        codes=codes,
        rounds=rounds,
        figures=judge(settings),
    )
    _save(found)
    return found


def _run(record: RunRecord) -> StoredRun:
    """Return a run without its placement, so that sequential and simultaneous runs can be paired."""
    return StoredRun(Path(record.run_id), msgspec.structs.replace(record, placement=None))


# ---- storage ----------------------------------------------------------------------------------------------


def _save(found: SideBySideCheck) -> None:
    """Replace the previous check with the same settings, lanes and class of machine."""
    environment = found.environment
    machine = [environment.cpu, environment.cores, [gpu.name for gpu in environment.gpus]]
    identity = msgspec.json.encode([machine, found.jobs, found.lanes, sorted(found.loads)])
    path = cache_dir() / FOLDER / f"{found.jobs}-{hashlib.sha256(identity).hexdigest()[:16]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(found), indent=1))
    except OSError as error:
        raise HarnessError(
            f"{path}: cannot write the file: {error.strerror}; set HARNESS_CACHE to a writable directory"
        ) from None


def _saved() -> list[SideBySideCheck]:
    """Return the saved checks. Damaged files are ignored, and their settings are treated as unchecked."""
    found = []
    try:
        paths = sorted((cache_dir() / FOLDER).glob("*.json"))
    except OSError:
        return []
    for path in paths:
        try:
            found.append(load_named(path, SideBySideCheck))
        except RecordError:
            continue
    return found
