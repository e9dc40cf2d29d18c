"""Tests of the gates of ``harness compare``. The comparison fails if a bound is violated or cannot be checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from command_line import store
from hypothesis import given
from hypothesis import strategies as st
from sample_records import failure, record, success

from harness.analysis.compare.baseline import save
from harness.analysis.compare.gates import bound_on, parse
from harness.analysis.compare.judge import Comparison
from harness.records import MetricInfo, Outcome, RunRecord, Success
from harness.records.store import ARRAYS, RECORD, StoredRun

SEEDS = range(5)


def invoke(*arguments: object) -> Result:
    from harness.cli.root import cli

    return CliRunner().invoke(cli, ["compare", *map(str, arguments)], prog_name="harness")


def keep(path: Path, records: Sequence[RunRecord]) -> Path:
    store(path, records)
    return path


def runs(
    quality: float | None = 0.7, speed: float = 1000.0, *, seeds: Sequence[int] = SEEDS, minute: int = 0, **changes: Any
) -> list[RunRecord]:
    """Return successful runs with slightly different values.

    The first one starts at `minute`, and the others follow two minutes apart.
    """
    made = []
    for n, seed in enumerate(seeds):
        score = {"accuracy": None if quality is None else quality + seed / 1e4, "f1_macro": 0.5 + seed / 1e4}
        outcome = success(test=score, train=speed * (1 + n / 1e3))
        made.append(record(outcome, seed=seed, started_at=f"2026-01-01T00:{minute + 2 * n:02}:00Z", **changes))
    return made


def failed(seed: int = 9, outcome: Outcome | None = None, **changes: Any) -> RunRecord:
    return record(outcome or failure(), seed=seed, **changes)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return keep(tmp_path / "base", runs())


@pytest.fixture
def same(tmp_path: Path) -> Path:
    return keep(tmp_path / "new", runs(minute=1))


@pytest.mark.parametrize("bound", ["accuracy:-0.01", "accuracy:-2%", "train_samples_per_s:-5%", "host_peak_mib:+50"])
def test_unchanged_runs_pass(base: Path, same: Path, bound: str) -> None:
    done = invoke(base, same, "--fail-on", bound)
    assert (done.exit_code, "Failed" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(
    "bound",
    [
        "accuracy:-0.05",
        "accuracy:-5%",
        "train_samples_per_s:-5%",
        "train_samples_per_s:-100",
        "latency_p50_ms:+5%",
        "latency_p50_ms:+1",
    ],
)
def test_relative_and_absolute_bounds_are_accepted_for_every_metric(base: Path, tmp_path: Path, bound: str) -> None:
    worse = [
        record(
            success(0.6 + n / 1e4, train=800.0 + n, p50_ms=15 + n / 1e3),
            seed=n,
            started_at=f"2026-01-01T00:{2 * n + 1:02}:00Z",
        )
        for n in SEEDS
    ]
    new = keep(tmp_path / "worse", worse)
    done = invoke(base, new, "--fail-on", bound)
    assert done.exit_code == 1
    assert f"Failed: {bound}: nlp · cldr-langid" in done.stderr
    name, _, value = bound.partition(":")
    wide = f"{name}:{value[0]}{'60%' if value.endswith('%') else 600}"
    assert invoke(base, new, "--fail-on", wide).exit_code == 0


def comparison(base: float, *, relative: bool) -> Comparison:
    return Comparison(
        metric="x",
        higher_is_better=True,
        relative=relative,
        base=base,
        new=base,
        change=0.0,
        low=0.0,
        high=0.0,
        detectable=0.0,
        verdict="inconclusive",
        evidence="",
    )


@given(st.floats(1e-3, 1e6), st.floats(1e-6, 90), st.sampled_from([-1, 1]))
def test_bound_in_percent_and_the_equal_absolute_bound_agree(base: float, size: float, sign: int) -> None:
    percent = sign * size
    absolute = percent / 100 * base
    (one, other) = parse([f"x:{percent:+}%", f"x:{absolute:+}"])
    for relative in (True, False):
        compared = comparison(base, relative=relative)
        assert bound_on(one, compared) == pytest.approx(bound_on(other, compared))


@pytest.mark.parametrize(("base", "bound"), [(-0.5, -0.025), (0.5, -0.025), (0.0, None)])
def test_bound_in_percent_of_a_score_is_relative_to_its_magnitude(base: float, bound: float | None) -> None:
    (gate,) = parse(["x:-5%"])
    assert bound_on(gate, comparison(base, relative=False)) == (bound and pytest.approx(bound))


def test_bound_in_percent_of_zero_cannot_be_checked(tmp_path: Path) -> None:
    perfect = [record(success(0.0, primary="rmse"), seed=seed) for seed in SEEDS]
    worse = [record(success(0.5 + seed / 1e4, primary="rmse"), seed=seed) for seed in SEEDS]
    base, new = keep(tmp_path / "base", perfect), keep(tmp_path / "new", worse)
    for options in ([], ["--allow-missing"]):
        done = invoke(base, new, "--fail-on", "rmse:+5%", *options)
        assert done.exit_code == 1
        assert "not checked: the mean of the base is 0, so the relative bound cannot be computed" in done.stderr
    assert invoke(base, new, "--fail-on", "rmse:+0.01").exit_code == 1
    later = "2025-11-22T13:00:00Z"
    same = keep(
        tmp_path / "same", [record(success(0.0, primary="rmse"), seed=seed, started_at=later) for seed in SEEDS]
    )
    assert invoke(base, same, "--fail-on", "rmse:+0.01").exit_code == 0


def unreadable(path: Path) -> Path:
    folder = next(folder for folder in path.iterdir() if (folder / RECORD).is_file())
    (folder / RECORD).write_text('{"schema_version": 2}')
    return path


def nothing(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


OTHER = {"task": "vision", "dataset": "digits", "model": "resnet-20"}
TWO = {"model": "lstm"}
NEVER_EXCUSED: dict[str, Any] = {
    "a failed run of NEW": (
        runs(),
        [*runs(minute=1), failed()],
        "runs of NEW failed: nlp-cldr-langid-bert-tiny-torch-s9",
    ),
    "a failed run of another setting of NEW": (
        runs(),
        [*runs(minute=1), failed(**OTHER)],
        "runs of NEW failed: vision",
    ),
    "only failed runs in NEW": (runs(), [failed(seed) for seed in SEEDS], "all runs of NEW failed"),
    "only failed runs in BASE": ([failed(seed) for seed in SEEDS], runs(), "all runs of BASE failed"),
    "a setting whose runs failed in NEW": (
        [*runs(), *runs(**TWO)],
        [*runs(minute=1), *(failed(seed, **TWO) for seed in SEEDS)],
        "runs of NEW failed: nlp-cldr-langid-lstm",
    ),
    "no matching settings": ([*runs(), *runs(**TWO)], runs(**OTHER), "no successful runs of BASE and NEW match"),
    "no runs": (runs(), nothing, "the directory contains no runs"),
    "an unreadable record": (runs(), unreadable, "not a valid record"),
    "too few runs everywhere": (
        runs(seeds=[0, 1]),
        runs(seeds=[0, 1], minute=1),
        "there is no confidence interval: fewer than 3 seeds",
    ),
    "no value anywhere": (
        runs(None),
        runs(None, minute=1),
        "5 of 5 runs of BASE have no value for accuracy and 5 of 5",
    ),
}


@pytest.mark.parametrize("case", NEVER_EXCUSED)
@pytest.mark.parametrize("options", [[], ["--allow-missing"]], ids=["strict", "allow-missing"])
def test_comparison_that_cannot_be_checked_fails(tmp_path: Path, case: str, options: list[str]) -> None:
    before, after, reason = NEVER_EXCUSED[case]
    base = keep(tmp_path / "base", before)
    new = after(keep(tmp_path / "new", runs())) if after is unreadable else None
    new = new or (after(tmp_path / "new") if callable(after) else keep(tmp_path / "new", after))
    done = invoke(base, new, "--fail-on", "accuracy:-0.01", "--fail-on", "f1_macro:-1%", *options)
    if case == "no value anywhere":
        assert "Failed: f1_macro" not in done.stderr
    else:
        assert "Failed: f1_macro:-1%: " in done.stderr
    assert done.exit_code == 1
    (line, *_) = [line for line in done.stderr.splitlines() if line.startswith("Failed: accuracy:-0.01: ")]
    assert "not checked: " in line
    assert reason in done.stderr


EXCUSED: dict[str, Any] = {
    "a setting without runs in NEW": (
        [*runs(), *runs(**TWO)],
        runs(minute=1),
        "lstm · torch · cpu · fp32 (base): not checked",
    ),
    "a setting without runs in BASE": (
        runs(),
        [*runs(minute=1), *runs(**TWO)],
        "lstm · torch · cpu · fp32 (new): not checked",
    ),
    "other settings on each side": (
        [*runs(), *runs(**TWO)],
        [*runs(minute=1), *runs(**OTHER)],
        "resnet-20 · torch · cpu · fp32 (new): not checked: only one of BASE and NEW has runs",
    ),
    "a setting without the metric": (
        [*runs(), *runs(None, **TWO)],
        [*runs(minute=1), *runs(None, minute=1, **TWO)],
        "5 of 5 runs of BASE have no value for accuracy and 5 of 5 runs of NEW have no value for accuracy",
    ),
    "a run without the metric": (
        [*runs(), *runs(**TWO)],
        [*runs(minute=1), *runs(seeds=range(4), minute=1, **TWO), *runs(None, seeds=[4], minute=11, **TWO)],
        "not checked: 1 of 5 runs of NEW have no value for accuracy",
    ),
    "a setting of which NEW lacks a seed": (
        [*runs(), *runs(**TWO)],
        [*runs(minute=1), *runs(seeds=range(4), minute=1, **TWO)],
        "not checked: BASE has runs with seed 4, but NEW does not",
    ),
    "a setting with too few runs": (
        [*runs(), *runs(seeds=[0, 1], **TWO)],
        [*runs(minute=1), *runs(seeds=[0, 1], minute=1, **TWO)],
        "there is no confidence interval: ",
    ),
}


@pytest.mark.parametrize("case", EXCUSED)
def test_setting_that_cannot_be_checked_fails_unless_missing_data_are_allowed(tmp_path: Path, case: str) -> None:
    before, after, reason = EXCUSED[case]
    base, new = keep(tmp_path / "base", before), keep(tmp_path / "new", after)
    strict = invoke(base, new, "--fail-on", "accuracy:-0.01")
    assert strict.exit_code == 1
    assert reason in strict.stderr
    lenient = invoke(base, new, "--fail-on", "accuracy:-0.01", "--allow-missing")
    assert lenient.exit_code == 0, lenient.stderr
    assert "Warning: accuracy:-0.01: " in lenient.stderr
    assert reason in lenient.stderr


@pytest.mark.parametrize("case", EXCUSED)
def test_allow_missing_does_not_excuse_a_broken_bound(tmp_path: Path, case: str) -> None:
    before, after, _ = EXCUSED[case]
    slower = [msgspec.structs.replace(one, outcome=success(0.3 + one.spec.seed / 1e4)) for one in runs(minute=1)]
    rest = [one for one in after if one.spec.model != "bert-tiny"]
    base, new = keep(tmp_path / "base", before), keep(tmp_path / "new", [*slower, *rest])
    done = invoke(base, new, "--fail-on", "accuracy:-0.01", "--allow-missing")
    assert done.exit_code == 1
    assert "Failed: accuracy:-0.01: nlp · cldr-langid · bert-tiny" in done.stderr


PARTLY: dict[str, Any] = {
    "fewer seeds": (runs(), runs(seeds=[0, 2, 4], minute=1), "BASE has runs with seed 1, seed 3, but NEW does not"),
    "other seeds": (runs(), runs(seeds=range(10, 15), minute=1), "BASE has runs with seed 0, seed 1, seed 2, seed 3"),
    "many missing seeds": (runs(seeds=range(12)), runs(seeds=range(3), minute=1), "seed 6, seed 7 and 4 more, but"),
    "fewer splits": (
        [one for split in range(4) for one in runs(seeds=[0], minute=4 * split, dataset_options={"split": split})],
        [one for split in range(3) for one in runs(seeds=[0], minute=4 * split + 1, dataset_options={"split": split})],
        "BASE has runs with seed 0 of split 3, but NEW does not",
    ),
}


@pytest.mark.parametrize("bound", ["accuracy:-0.01", "train_samples_per_s:-9%", "host_peak_mib:+5%"])
@pytest.mark.parametrize("case", PARTLY)
def test_bound_that_holds_for_a_part_of_the_seeds_fails_unless_missing_data_are_allowed(
    tmp_path: Path, case: str, bound: str
) -> None:
    before, after, reason = PARTLY[case]
    base, new = keep(tmp_path / "base", before), keep(tmp_path / "new", after)
    strict, lenient = (invoke(base, new, "--fail-on", bound, *more) for more in ([], ["--allow-missing"]))
    assert (strict.exit_code, reason in strict.stderr) == (1, True), strict.stderr
    assert (lenient.exit_code, reason in lenient.stderr) == (0, True), lenient.stderr
    more_seeds = invoke(new, base, "--fail-on", bound) if case == "fewer seeds" else lenient
    assert more_seeds.exit_code == 0, more_seeds.stderr


@pytest.mark.parametrize("bound", ["train_samples_per_s:-100%", "train_samples_per_s:-2000"])
def test_bound_that_cannot_be_violated_fails(base: Path, same: Path, bound: str) -> None:
    done = invoke(base, same, "--fail-on", bound, "--allow-missing")
    assert done.exit_code == 1
    assert "is not possible, so the bound cannot be violated" in done.stderr


def with_scores(one: RunRecord, **changes: Any) -> RunRecord:
    assert isinstance(one.outcome, Success)
    scores = msgspec.structs.replace(one.outcome.scores, **changes)
    return msgspec.structs.replace(one, outcome=msgspec.structs.replace(one.outcome, scores=scores))


@pytest.mark.parametrize("bound", ["accuracy:-1", "accuracy:-5", "accuracy:-100%", "accuracy:-0.71"])
def test_bound_that_no_score_can_violate_fails(tmp_path: Path, bound: str) -> None:
    """For example, an absolute bound of -5 may have been meant as a percentage."""
    meaning = {"accuracy": MetricInfo(higher_is_better=True, bounds=(0.0, 1.0))}
    base, new = (
        keep(tmp_path / name, [with_scores(one, metrics=meaning) for one in runs(quality, minute=minute)])
        for name, quality, minute in (("base", 0.7, 0), ("new", 0.1, 1))
    )
    done = invoke(base, new, "--fail-on", bound, "--allow-missing")
    assert (done.exit_code, "so the bound cannot be violated" in done.stderr) == (1, True), done.stderr


def other_data(one: RunRecord) -> RunRecord:
    return msgspec.structs.replace(one, provenance=msgspec.structs.replace(one.provenance, dataset_digest="e" * 64))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("bound", ["accuracy:-0.01", "train_samples_per_s:-5%"])
def test_runs_with_other_data_fail(tmp_path: Path, base: Path, bound: str, count: int) -> None:
    made = runs(minute=1)
    new = keep(tmp_path / "new", [*map(other_data, made[:count]), *made[count:]])
    done = invoke(base, new, "--fail-on", bound, "--allow-missing")
    assert done.exit_code == 1
    assert "not checked: the runs used different data" in done.stderr


def test_run_without_the_digest_of_its_data_fails(tmp_path: Path, base: Path) -> None:
    def without_digest(one: RunRecord) -> RunRecord:
        return msgspec.structs.replace(one, provenance=msgspec.structs.replace(one.provenance, dataset_digest=""))

    first, *rest = runs(minute=1)
    new = keep(tmp_path / "new", [without_digest(first), *rest])
    done = invoke(base, new, "--fail-on", "accuracy:-0.01", "--allow-missing")
    assert (done.exit_code, "not checked: the runs used different data" in done.stderr) == (1, True), done.stderr


def test_other_data_are_not_explained_by_other_options_of_the_task(tmp_path: Path) -> None:
    sides = []
    for number, digest in enumerate(("a", "b")):
        made = runs(minute=number, dataset_options={"sha256": digest * 64}, task_options={"max_length": 8 + number})
        one = [
            msgspec.structs.replace(r, provenance=msgspec.structs.replace(r.provenance, dataset_digest=digest * 64))
            for r in made
        ]
        sides.append(keep(tmp_path / digest, one))
    done = invoke(*sides, "--fail-on", "accuracy:-0.01", "--allow-missing")
    assert (done.exit_code, "not checked: the runs used different data" in done.stderr) == (1, True), done.stderr


def test_runs_with_other_options_of_the_task_are_compared(tmp_path: Path, base: Path) -> None:
    """Task options change how the same examples are prepared, and therefore change the digest."""
    made = [other_data(one) for one in runs(minute=1, task_options={"max_length": 8})]
    done = invoke(base, keep(tmp_path / "new", made), "--fail-on", "accuracy:-0.01")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("speed", [0.0, -1.0])
@pytest.mark.parametrize("side", ["base", "new"])
def test_value_that_has_no_ratio_is_not_left_out(tmp_path: Path, side: str, speed: float) -> None:
    sides = {"base": runs(seeds=range(4)), "new": runs(seeds=range(4), minute=1)}
    sides[side] += runs(speed=speed, seeds=[4], minute=12)
    base, new = (keep(tmp_path / name, made) for name, made in sides.items())
    done = invoke(base, new, "--fail-on", "train_samples_per_s:-5%", "--allow-missing")
    assert done.exit_code == 1
    assert f"train_samples_per_s is not positive in 1 of 5 runs of {side.upper()}" in done.stderr


def test_copies_of_a_run_do_not_count_as_repeats(tmp_path: Path, base: Path) -> None:
    new = keep(tmp_path / "new", runs(seeds=[0], minute=1))
    (run,) = new.iterdir()
    for number in range(3):
        shutil.copytree(run, new / f"copy-{number}")
    done = invoke(base, new, "--fail-on", "train_samples_per_s:-5%", "--allow-missing")
    assert done.exit_code == 1
    assert "this copy of the run in" in done.stderr


def baseline(path: Path, records: Sequence[RunRecord]) -> Path:
    save(path, [StoredRun(Path(one.run_id), one) for one in records])
    return path


@pytest.mark.parametrize("side", ["BASE", "NEW"])
def test_run_that_a_baseline_contains_twice_does_not_count_as_a_repeat(tmp_path: Path, base: Path, side: str) -> None:
    one, *rest = runs(minute=1)
    copy = msgspec.structs.replace(one, run_id=one.run_id.removesuffix("-1") + "-2", repeat=2)
    twice = baseline(tmp_path / "twice.json", [one, copy, *rest])
    done = invoke(*((twice, base) if side == "BASE" else (base, twice)), "--fail-on", "accuracy:-0.01")
    assert done.exit_code == 1
    assert f"not checked: {side} contains the run {one.run_id} more than once; remove the copies" in done.stderr


@pytest.mark.parametrize("options", [[], ["--allow-missing"]], ids=["strict", "allow-missing"])
def test_runs_that_are_in_both_sides_fail(tmp_path: Path, base: Path, options: list[str]) -> None:
    saved = baseline(tmp_path / "baseline.json", runs())
    keep(base, runs(0.5, minute=1))  # the baseline was saved before these runs
    bound = ("--fail-on", "accuracy:-0.15", *options)
    for sides in ((saved, base), (base, base), (saved, saved), ("nlp", "torch", "--results", base)):
        done = invoke(*sides, *bound)
        assert done.exit_code == 1
        assert "not checked: BASE and NEW both contain the run nlp-cldr-langid-bert-tiny-torch-s0" in done.stderr
        assert invoke(*sides).exit_code == 2


DEFINITIONS = [
    MetricInfo(higher_is_better=True, unit="%", bounds=(0, 100)),
    MetricInfo(higher_is_better=False, bounds=(0, 1)),
]


@pytest.mark.parametrize("other", DEFINITIONS, ids=["unit", "direction"])
@pytest.mark.parametrize("options", [[], ["--allow-missing"]], ids=["strict", "allow-missing"])
def test_scores_with_different_definitions_fail(tmp_path: Path, other: MetricInfo, options: list[str]) -> None:
    def defined(one: RunRecord, info: MetricInfo) -> RunRecord:
        assert isinstance(one.outcome, Success)
        scores = msgspec.structs.replace(one.outcome.scores, metrics={"accuracy": info})
        return msgspec.structs.replace(one, outcome=msgspec.structs.replace(one.outcome, scores=scores))

    usual = MetricInfo(higher_is_better=True, bounds=(0, 1))
    base = keep(tmp_path / "base", [defined(one, usual) for one in runs()])
    new = keep(tmp_path / "new", [defined(one, other) for one in runs(50.0, minute=1)])
    done = invoke(base, new, "--fail-on", "accuracy:-0.01", *options)
    assert done.exit_code == 1
    assert "not checked: the runs disagree on the direction or the unit of accuracy" in done.stderr
    (compared,) = json.loads(invoke(base, new, "--metric", "accuracy", "--format", "json").stdout)
    assert [one["verdict"] for one in compared["comparisons"]] == ["inconclusive"]


@pytest.mark.parametrize(
    ("bounds", "warned"),
    [
        (["accuracy:+0.01"], True),
        (["train_samples_per_s:+5%"], True),
        (["latency_p50_ms:-5%"], True),
        (["accuracy:-0.01"], False),
        (["accuracy:-0.01", "accuracy:+0.01"], False),
        (["latency_p50_ms:+5%"], False),
    ],
)
def test_bound_that_limits_only_improvements_gives_a_warning(
    base: Path, same: Path, bounds: list[str], warned: bool
) -> None:
    options = [word for bound in bounds for word in ("--fail-on", bound)]
    done = invoke(base, same, *options)
    assert (f"Warning: {bounds[0]} limits only improvements" in done.stderr) == warned, done.stderr


def test_unreadable_predictions_fail(tmp_path: Path) -> None:
    base, new = (keep(tmp_path / str(minute), runs(seeds=[0], minute=minute)) for minute in (0, 1))
    for folder in (*base.iterdir(), *new.iterdir()):
        (folder / ARRAYS).write_bytes(b"damaged")
    done = invoke(base, new, "--fail-on", "accuracy:-0.01", "--allow-missing")
    assert done.exit_code == 1
    assert "Failed: accuracy:-0.01: not checked: " in done.stderr
    assert "cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not a baseline file"),
        ('{"baseline_version": 1, "records": [{}]}', "not a valid record"),
        ('{"baseline_version": 1, "records": []}', "no successful runs of BASE and NEW match"),
    ],
)
def test_baseline_that_cannot_be_compared_fails(same: Path, tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "base.json").write_text(content)
    done = invoke(tmp_path / "base.json", same, "--fail-on", "accuracy:-0.01", "--allow-missing")
    assert done.exit_code == 1
    assert "Failed: accuracy:-0.01: not checked: " in done.stderr
    assert reason in done.stderr


def test_baseline_of_unreadable_records_is_not_saved(tmp_path: Path, base: Path) -> None:
    from harness.cli.root import cli

    file = tmp_path / "baseline.json"
    done = CliRunner().invoke(cli, ["baseline", str(unreadable(base)), str(file)])
    assert (done.exit_code, "not a valid record" in done.stderr, file.exists()) == (1, True, False), done.stderr


def test_baseline_lists_the_failed_runs_that_it_excludes(tmp_path: Path) -> None:
    from harness.cli.root import cli

    results = keep(tmp_path / "results", [*runs(), failed()])
    arguments = ["baseline", str(results), str(tmp_path / "base.json")]
    done = CliRunner().invoke(cli, arguments, prog_name="harness")
    assert done.exit_code == 0
    assert "Warning: failed runs are excluded: nlp-cldr-langid-bert-tiny-torch-s9" in done.stderr
    assert "Saved 5 runs" in done.stdout


def test_unknown_metric_fails_only_its_own_bound(base: Path, same: Path) -> None:
    done = invoke(base, same, "--fail-on", "acuracy:-0.01", "--fail-on", "accuracy:-0.01", "--allow-missing")
    assert done.exit_code == 1
    assert "Failed: acuracy:-0.01: not checked: unknown metric 'acuracy'; did you mean 'accuracy'?" in done.stderr
    assert "Failed: accuracy" not in done.stderr


def test_metric_that_is_never_compared_fails(base: Path, same: Path) -> None:
    done = invoke(base, same, "--fail-on", "time_to_target_s:+10%")
    assert done.exit_code == 1
    assert "time_to_target_s is never compared" in done.stderr


def test_bound_is_checked_for_a_metric_that_is_not_among_those_of_the_option_metric(base: Path, tmp_path: Path) -> None:
    slow = keep(tmp_path / "slow", runs(speed=500.0, minute=1))
    done = invoke(base, slow, "--metric", "accuracy", "--fail-on", "train_samples_per_s:-5%")
    assert done.exit_code == 1
    assert "Failed: train_samples_per_s:-5%" in done.stderr


def test_runs_with_other_settings_are_not_matched_if_a_side_has_several(tmp_path: Path) -> None:
    """Otherwise, a setting without runs in NEW would be compared with an unrelated one."""
    base = keep(tmp_path / "base", [*runs(), *runs(**TWO)])
    new = keep(tmp_path / "new", [*runs(minute=1), *runs(minute=1, **OTHER)])
    done = invoke(base, new)
    assert "lstm -> resnet-20" not in done.output
    alone = invoke(
        keep(tmp_path / "lstm", runs(**TWO)), keep(tmp_path / "resnet", runs(**OTHER)), "--metric", "accuracy"
    )
    assert "lstm -> resnet-20" in alone.output


def test_runs_too_noisy_for_an_absolute_bound_give_a_warning(tmp_path: Path) -> None:
    def noisy(speeds: Sequence[float], minute: int) -> list[RunRecord]:
        return [runs(speed=s, seeds=[n], minute=minute + 2 * n)[0] for n, s in enumerate(speeds)]

    base = keep(tmp_path / "base", noisy([900.0, 1100.0, 1000.0], 0))
    new = keep(tmp_path / "new", noisy([1000.0, 900.0, 1100.0], 1))
    done = invoke(base, new, "--fail-on", "train_samples_per_s:-10")
    assert done.exit_code == 0
    assert "train_samples_per_s:-10: changes smaller than" in done.stderr


@pytest.mark.parametrize("metric", ["accuracy", "device_peak_mib"])
def test_requested_metric_without_values_is_a_usage_error_with_the_reason(tmp_path: Path, metric: str) -> None:
    base, new = (keep(tmp_path / str(minute), runs(None, minute=minute)) for minute in (0, 1))
    done = invoke(base, new, "--metric", metric)
    assert done.exit_code == 2
    assert (
        f"the runs cannot be compared by {metric}, because the runs of BASE or NEW have no value for this metric"
        in done.stderr
    )


def test_requested_metric_without_values_is_a_warning_next_to_one_with_values(base: Path, same: Path) -> None:
    done = invoke(base, same, "--metric", "accuracy,device_peak_mib")
    assert done.exit_code == 0
    assert "accuracy" in done.stdout
    assert "device_peak_mib" not in done.stdout
    assert "Warning: the runs cannot be compared by device_peak_mib, because" in done.stderr


def test_allow_missing_without_a_bound_is_a_usage_error(base: Path, same: Path) -> None:
    done = invoke(base, same, "--allow-missing")
    assert done.exit_code == 2
    assert "--allow-missing requires --fail-on" in done.stderr


def test_comparison_without_bounds_keeps_its_exit_statuses(base: Path, same: Path, tmp_path: Path) -> None:
    assert invoke(base, same).exit_code == 0
    assert invoke(base, nothing(tmp_path / "empty")).exit_code == 2
    assert invoke(base, unreadable(same)).exit_code == 1


def test_cost_needs_a_price(base: Path, same: Path) -> None:
    arguments = (base, same, "--fail-on", "train_cost_per_million:+5%")
    without = invoke(*arguments)
    assert without.exit_code == 1
    assert "no value for train_cost_per_million; pass the price of the machine with --price-per-hour" in without.stderr
    assert invoke(*arguments, "--price-per-hour", "2.5").exit_code == 0
    without = invoke(base, same, "--metric", "train_cost_per_million")
    assert (without.exit_code, "--price-per-hour" in without.stderr) == (2, True)


def test_higher_cost_is_worse(base: Path, tmp_path: Path) -> None:
    slower = keep(tmp_path / "slower", runs(speed=800.0, minute=1))
    metric = "train_cost_per_million"
    done = invoke(
        base, slower, "--metric", metric, "--fail-on", f"{metric}:+10%", "--price-per-hour", "3", "--format", "json"
    )
    (comparison,) = json.loads(done.stdout)[0]["comparisons"]
    assert (done.exit_code, comparison["verdict"], comparison["unit"]) == (1, "worse", "per 1M")
    assert comparison["change"] == pytest.approx(0.25, rel=0.01)
    assert comparison["base"] == pytest.approx(3 / 3600 * 1e6 / 1002, rel=1e-3)


def test_quality_stands_for_the_primary_metric(base: Path, tmp_path: Path) -> None:
    worse = keep(tmp_path / "worse", runs(quality=0.6, minute=1))
    done = invoke(base, worse, "--metric", "accuracy,quality", "--fail-on", "quality:-0.05", "--format", "json")
    accuracy, quality = json.loads(done.stdout)[0]["comparisons"]
    assert (done.exit_code, accuracy | {"metric": "quality"}) == (1, quality)


def test_metric_that_is_never_compared_names_the_reason(base: Path, same: Path) -> None:
    done = invoke(base, same, "--metric", "parameters")
    assert (done.exit_code, "because the value is a property of the model" in done.stderr) == (2, True)


@pytest.mark.parametrize("count", [1, 5])
def test_gate_on_the_speed_of_quality_only_runs_fails(base: Path, tmp_path: Path, count: int) -> None:
    """The records contain speeds, as if simultaneous runs had been timed without a check."""
    new = [msgspec.structs.replace(each, quality_only=n < count) for n, each in enumerate(runs(minute=1))]
    path = keep(tmp_path / "quality", new)
    reason = f"{count} of 5 runs of NEW have no value for train_samples_per_s (quality only)"
    for options in ((), ("--allow-missing",)):
        done = invoke(base, path, "--fail-on", "train_samples_per_s:-50%", *options)
        assert done.exit_code == 1
        assert reason in " ".join(done.stderr.split())
        assert f"quality-only runs: none -> {count} of 5" in " ".join(done.stdout.split())
    assert invoke(base, path, "--fail-on", "accuracy:-0.05").exit_code == 0
