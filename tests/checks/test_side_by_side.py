"""Tests of the A/A check of simultaneous runs, and of its effect on planned runs."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import Invoke
from sample_records import record, success
from toy_plugin import SET_FAST
from toy_runs import toy_specs

from harness.analysis.compare.side_by_side import figures
from harness.checks import side_by_side
from harness.checks.side_by_side import Figure, SideBySideCheck, check, codes_of, load_of, measured_part
from harness.errors import UsageError
from harness.execute.resume import package_versions
from harness.execute.side_by_side import Lane
from harness.measure.environment import collect
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.records import PluginRef, RunSpec
from harness.records.store import Store, StoredRun

LANES = (Lane((0,)), Lane(((os.cpu_count() or 1) - 1,)))


def run(minute: int, speed: float, p50_ms: float = 10.0) -> StoredRun:
    outcome = success(train=speed, inference=speed, p50_ms=p50_ms)
    started_at = f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00.000+00:00"
    return StoredRun(Path(), record(outcome, started_at=started_at))


def results(*, slower: float = 1.0, noise: float = 0.002, rounds: int = 8) -> dict[str, str]:
    """Return the result of each metric, for runs in the order A B B A. B is slower by a factor."""
    draw = random.Random(1)
    alone, beside = [], []
    for minute in range(2 * rounds):
        is_alone = minute % 4 in (0, 3)
        factor = draw.gauss(1, noise) / (1 if is_alone else slower)
        (alone if is_alone else beside).append(run(minute, 1000 * factor, 10 / factor))
    return {figure.metric: figure.result for figure in figures({"key": ("title", alone, {(0,): beside})})}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "same"),
        ({"slower": 1.01}, "same"),  # the change is smaller than the margin, and measured precisely
        ({"slower": 1.08}, "differs"),
        ({"slower": 0.92}, "differs"),
        ({"slower": 1.05}, "differs"),
        ({"noise": 0.1}, "undecided"),
        ({"rounds": 2}, "undecided"),
    ],
)
def test_figures_pass_only_if_the_change_is_certainly_within_the_margin(
    settings: dict[str, Any], expected: str
) -> None:
    names = ("train_samples_per_s", "inference_samples_per_s", "latency_p50_ms")
    assert results(**settings) == dict.fromkeys(names, expected)


def test_figures_without_interleaving_are_undecided() -> None:
    alone, beside = [run(n, 1000 + n) for n in range(8)], [run(8 + n, 1000 + n) for n in range(8)]
    assert {figure.result for figure in figures({"key": ("title", alone, {(0,): beside})})} == {"undecided"}


GOOD = Figure(
    setting="",
    cores=(0,),
    metric="train_samples_per_s",
    unit="",
    alone=1.0,
    beside=1.0,
    change=0.0,
    low=-0.01,
    high=0.01,
    margin=0.05,
    evidence="",
)


@pytest.fixture
def specs(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunSpec, ...]:
    """Two settings with two seeds each. The machine has two lanes."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(side_by_side, "lanes_for", lambda specs, jobs: LANES)
    return toy_specs(catalog, "recipe.batch_size=8,16", seeds=(0, 1))


def saved(specs: tuple[RunSpec, ...], catalog: Catalog, **changes: Any) -> SideBySideCheck:
    """Save a check of these settings that passed, with changes."""
    made = SideBySideCheck(
        checked_at="2026-01-02T00:00:00+00:00",
        environment=collect(),
        jobs=2,
        lanes=[(lane.cores, lane.gpu) for lane in LANES],
        loads={load_of(spec): spec.title for spec in specs},
        versions={load_of(spec): package_versions(spec, catalog) for spec in specs},
        codes=codes_of(specs, catalog),
        rounds=8,
        figures=[GOOD],
    )
    made = msgspec.structs.replace(made, **changes)
    side_by_side._save(made)
    return made


def test_measured_part_after_a_passed_check_is_timed(specs: tuple[RunSpec, ...], catalog: Catalog) -> None:
    assert measured_part(specs, catalog, 2, quality_only=False).reason.startswith(
        "quality only: simultaneous runs with these settings"
    )
    found = saved(specs, catalog)
    timed = measured_part(specs, catalog, 2, quality_only=False)
    assert (timed.quality_only, timed.checked_at, timed.reason) == (False, found.checked_at, "")
    slower = toy_specs(catalog, "recipe.batch_size=8", "recipe.learning_rate=0.01", seeds=(7,))
    assert not measured_part(slower, catalog, 2, quality_only=False).quality_only
    assert measured_part(specs, catalog, 2, quality_only=True).quality_only
    assert measured_part(specs, catalog, 1, quality_only=False) == side_by_side.Part(False)


def environment(**changes: Any) -> dict[str, Any]:
    return {"environment": msgspec.structs.replace(collect(), **changes)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (environment(cpu="Z80"), "applies to another machine: CPU Z80 -> "),
        (environment(cores=977), "applies to another machine: cores 977 -> "),
        ({"lanes": [((0,), ""), ((5, 6), "")]}, "used different cores or GPUs"),
        ({"jobs": 3}, "simultaneous runs with these settings were not checked"),
        ({"loads": {}}, "simultaneous runs with these settings were not checked"),
        ({"versions": {}}, "packages of toy-numpy have changed"),
        ({"codes": {}}, "the code of harness has changed since the check on 2026-01-02"),
        ({"figures": []}, "did not pass"),
        (
            {"figures": [GOOD, msgspec.structs.replace(GOOD, change=-0.05, low=-0.06, high=-0.04)]},
            "did not pass (train_samples_per_s of : -5.0%, -6.0% to -4.0%)",
        ),
    ],
)
def test_measured_part_without_an_applicable_check_is_the_quality(
    changes: dict[str, Any], reason: str, specs: tuple[RunSpec, ...], catalog: Catalog
) -> None:
    saved(specs, catalog, **changes)
    part = measured_part(specs, catalog, 2, quality_only=False)
    assert (part.quality_only, part.checked_at) == (True, "")
    assert reason in part.reason


@pytest.mark.parametrize("digest", ["0" * 64, ""])
def test_measured_part_with_other_code_of_a_plugin_is_the_quality(
    digest: str, specs: tuple[RunSpec, ...], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown digest, such as that of a plugin in a zip file, may have changed."""
    saved(specs, catalog)
    changed = catalog.refs_for(specs[0])[-1]

    def edited(ref: PluginRef) -> PluginRef:
        return msgspec.structs.replace(ref, code_digest=digest) if ref == changed else with_digest(ref)

    monkeypatch.setattr(side_by_side, "with_digest", edited)
    part = measured_part(specs, catalog, 2, quality_only=False)
    assert f"the code of {changed.name} has changed since the check on 2026-01-02" in part.reason
    saved(specs, catalog)  # with the new code
    assert measured_part(specs, catalog, 2, quality_only=False).quality_only is (digest == "")


def test_check_that_became_invalid_during_the_wait_for_the_device_is_not_used(
    specs: tuple[RunSpec, ...], catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from harness.api import carry_out

    @contextmanager
    def waited(*_: Any, **__: Any) -> Iterator[bool]:
        saved(specs, catalog, codes={})
        yield True

    monkeypatch.setattr("harness.execute.side_by_side.lanes_for", lambda specs, jobs: LANES)
    monkeypatch.setattr("harness.execute.device_lock.measuring_on", waited)
    saved(specs, catalog)
    made = carry_out(toy_specs(catalog, "recipe.epochs=1", "recipe.batch_size=8"), catalog, Store(tmp_path), jobs=2)
    assert [record.quality_only for record in made] == [True]


def test_measured_part_is_decided_by_the_newest_check(specs: tuple[RunSpec, ...], catalog: Catalog) -> None:
    saved(specs, catalog)
    more = toy_specs(catalog, "recipe.batch_size=8,16,32")
    saved((*specs, *more), catalog, checked_at="2026-01-03T00:00:00+00:00", figures=[])
    assert "the check on 2026-01-03 did not pass" in measured_part(specs, catalog, 2, quality_only=False).reason
    (folder,) = Path(os.environ["HARNESS_CACHE"]).glob(side_by_side.FOLDER)
    for path in folder.iterdir():
        path.write_text("{")
    assert "not checked" in measured_part(specs, catalog, 2, quality_only=False).reason


@pytest.mark.parametrize("kind", [{"threads": 2}, {"precisions": ("bf16",)}, {"models": ("toy-through-origin",)}])
def test_load_of_depends_on_what_a_step_computes(kind: dict[str, Any], catalog: Catalog) -> None:
    (spec,), (other,) = toy_specs(catalog), toy_specs(catalog, **kind)
    (alike,) = toy_specs(catalog, "recipe.epochs=9", "protocol.window_s=0.5", seeds=(3,))
    assert load_of(spec) == load_of(alike) != load_of(other)


def test_check_executes_every_setting_alone_and_in_every_lane(
    specs: tuple[RunSpec, ...], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "MIN_ROUNDS", 1)
    seen: list[side_by_side.Settings] = []

    def judge(settings: side_by_side.Settings) -> list[Figure]:
        seen.append(settings)
        return [GOOD]

    found = check(toy_specs(catalog, "recipe.epochs=1"), catalog, 2, judge, rounds=1)
    ((_, alone, beside),) = seen[0].values()
    assert {cores: len(runs) for cores, runs in beside.items()} == {lane.cores: 1 for lane in LANES}
    cores = [each.record.provenance.notes["cores"] for runs in beside.values() for each in runs]
    assert cores == [str(list(lane.cores)) for lane in LANES]
    assert [each.record.provenance.notes["cores"] for each in alone] == [str(sorted(os.sched_getaffinity(0)))]
    assert side_by_side._saved() == [found]
    assert found.passed


@pytest.mark.parametrize(("jobs", "rounds", "problem"), [(1, 8, "--jobs 2 or more"), (2, 3, "--repeat 4 or more")])
def test_check_with_invalid_numbers_is_refused(jobs: int, rounds: int, problem: str, catalog: Catalog) -> None:
    with pytest.raises(UsageError, match=problem):
        check(toy_specs(catalog), catalog, jobs, figures, rounds=rounds)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.01, 0.01, "same"),
        (0.001, 0.049, "same"),
        (-0.049, -0.001, "same"),
        (-0.05, 0.01, "undecided"),
        (-0.01, 0.05, "undecided"),
        (0.001, 0.05, "differs"),
        (-0.06, -0.055, "differs"),
        (None, None, "undecided"),
    ],
)
def test_result_depends_on_the_interval_and_the_margin(low: float | None, high: float | None, expected: str) -> None:
    assert msgspec.structs.replace(GOOD, low=low, high=high).result == expected


@pytest.mark.parametrize("passed", [True, False])
def test_selftest_command_with_jobs_prints_the_figures(
    passed: bool, invoke: Invoke, specs: tuple[RunSpec, ...], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = msgspec.structs.replace(GOOD, low=0.06, high=0.08, change=0.07)
    made = saved(specs, catalog, figures=[GOOD] if passed else [GOOD, bad])
    monkeypatch.setattr(side_by_side, "check", lambda *arguments, **settings: made)
    done = invoke("selftest", "--jobs", "2", "--task", "toy-regress", "--threads", "1", *SET_FAST)
    assert done.exit_code == (0 if passed else 1), done.output
    assert "train_samples_per_s" in done.stdout
    assert ("differs" in done.stdout, "not passed" in done.stdout) == (not passed, not passed)
    refused = invoke("selftest", "--task", "toy-regress")
    assert refused.exit_code == 2
    assert "--task can only be used with --jobs" in refused.stderr


@pytest.mark.parametrize("quality_only", [False, True])
def test_timed_simultaneous_runs_state_their_check(
    quality_only: bool, invoke: Invoke, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs are timed only if the check passed."""
    import harness

    monkeypatch.setattr("harness.plugins.discover", lambda *_: catalog)
    monkeypatch.setattr("harness.execute.side_by_side.lanes_for", lambda specs, jobs: LANES)
    monkeypatch.setattr(side_by_side, "lanes_for", lambda specs, jobs: LANES)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    planned = toy_specs(catalog, "recipe.epochs=1", seeds=(0, 1))
    saved(planned, catalog, figures=[] if quality_only else [GOOD])
    overrides = [text for text in SET_FAST if text != "--set"] + ["recipe.epochs=1"]
    made = harness.run("toy-regress", "toy-numpy", seed=(0, 1), threads=1, jobs=2, overrides=overrides)
    assert [each.quality_only for each in made] == [quality_only] * 2
    places = [each.placement for each in made]
    checked_at = "" if quality_only else "2026-01-02T00:00:00+00:00"
    assert [place and (place.jobs, place.checked_at) for place in places] == [(2, checked_at)] * 2
