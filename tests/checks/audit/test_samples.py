"""Tests that an audit notices changed raw samples."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from audited_runs import make
from toy_plugin import TOY_REF, install_toy

from harness.checks.audit import from_record, replay
from harness.checks.audit.check import Subject
from harness.checks.audit.finding import Finding
from harness.execute.variables import thread_environment
from harness.measure.quality.intervals import FORMER_METHODS
from harness.measure.roofline import hardware_of
from harness.measure.steady import Window, summary, suspicions
from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import Flag, Roofline, RunRecord, Success
from harness.records.arrays import digest, read_arrays
from harness.records.store import ARRAYS, Store, StoredRun

Arrays = dict[str, Any]


@pytest.fixture(scope="module")
def toy_catalog() -> Iterator[Catalog]:
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        for name, value in thread_environment(1).items():
            patch.setenv(name, value)
        yield load([TOY_REF])


@pytest.fixture(scope="module")
def honest(toy_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return make("toy-classify", toy_catalog, tmp_path_factory.mktemp("honest"))


@pytest.fixture
def run(honest: StoredRun, tmp_path: Path) -> StoredRun:
    """Return a copy that the test may change."""
    path = tmp_path / honest.record.run_id
    shutil.copytree(honest.path, path)
    return StoredRun(path, honest.record)


def failed(run: StoredRun, catalog: Catalog, record: RunRecord | None = None) -> set[str]:
    """Return the names of the checks of the record that fail."""
    subject = Subject(StoredRun(run.path, record or run.record), catalog)
    return {check.name for check in from_record.CHECKS if check.finding(subject).passed is False}


def rewrite(run: StoredRun, change: Callable[[Arrays], None]) -> Arrays:
    arrays = {name: array.copy() for name, array in read_arrays(run.path / ARRAYS).items()}
    change(arrays)
    np.savez(run.path / ARRAYS, **arrays)
    return arrays


def with_digest(record: RunRecord, arrays: Arrays, **changes: Any) -> RunRecord:
    """Return the record with the digest of the changed arrays, as if both had been manipulated."""
    outcome = record.outcome
    assert isinstance(outcome, Success)
    assert outcome.evidence
    evidence = msgspec.structs.replace(outcome.evidence, arrays_digest=digest(arrays))
    return msgspec.structs.replace(record, outcome=msgspec.structs.replace(outcome, evidence=evidence, **changes))


NAMES = tuple(
    f"{part}{name}"
    for part, names in {
        "train_": ("batch_size", "window_steps", "window_s", "losses"),
        "sampling_": ("window_steps", "window_s"),
        "inference_": ("window_batches", "window_s"),
        "test_": ("outputs", "targets"),
        "validation_": ("outputs", "targets"),
        "": ("latencies_s",),
    }.items()
    for name in names
)


def test_samples_unchanged_pass(run: StoredRun, toy_catalog: Catalog) -> None:
    assert failed(run, toy_catalog) == set()
    assert set(read_arrays(run.path / ARRAYS)) == set(NAMES)


@pytest.mark.parametrize("path", [".", "../{run}", "../{run}/"])
def test_samples_unchanged_pass_in_a_relative_path(
    path: str, run: StoredRun, toy_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.path)
    assert failed(StoredRun(Path(path.format(run=run.path.name)), run.record), toy_catalog) == set()


def shifted(array: Any) -> Any:
    return (np.roll(array, 1, axis=0) if array.ndim else array) + 1


def halved(array: Any) -> Any:
    return array[: len(array) // 2] if array.ndim else array * 2


def nan(array: Any) -> Any:
    return np.full(array.shape, np.nan)


def of_another_kind(array: Any) -> Any:
    return array.astype("float32" if array.dtype.kind == "i" else "int64")


def nested(array: Any) -> Any:
    return array[None]


CHANGES: tuple[Callable[[Any], Any] | None, ...] = (shifted, halved, nan, of_another_kind, nested, None)
"""Changes of an array; None removes it."""
CASES = [
    pytest.param(name, change, id=f"{name}-{change.__name__ if change else 'absent'}")
    for name in NAMES
    for change in CHANGES
    # The few windows after the recipe may leave the median, and thus all figures, unchanged.
    if not (change is shifted and name.startswith("sampling_"))
]


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize(("name", "change"), CASES)
def test_samples_changed_array_is_noticed_with_a_new_digest(
    name: str, change: Callable[[Any], Any] | None, run: StoredRun, toy_catalog: Catalog
) -> None:
    """The digest in the record is replaced too, so that other checks must notice the change."""

    def tamper(arrays: Arrays) -> None:
        if change is None:
            del arrays[name]
        else:
            arrays[name] = change(arrays[name])

    arrays = rewrite(run, tamper)
    assert failed(run, toy_catalog, with_digest(run.record, arrays))


@pytest.mark.parametrize("name", NAMES)
def test_samples_slightly_changed_array_is_noticed(name: str, run: StoredRun, toy_catalog: Catalog) -> None:
    def tamper(arrays: Arrays) -> None:
        last = (..., -1) if arrays[name].ndim else ()
        arrays[name][last] += 1 if arrays[name].dtype.kind == "i" else 1e-6

    rewrite(run, tamper)
    assert "the raw samples are complete" in failed(run, toy_catalog)


def test_samples_damaged_file_is_noticed(run: StoredRun, toy_catalog: Catalog) -> None:
    (run.path / ARRAYS).write_bytes(b"no archive")
    assert "the raw samples are complete" in failed(run, toy_catalog)


def test_samples_faster_windows_with_fitting_figures_are_noticed(run: StoredRun, toy_catalog: Catalog) -> None:
    """Inference windows that are shorter than the protocol allows are noticed although all figures agree."""

    def tamper(arrays: Arrays) -> None:
        arrays["inference_window_s"] /= 1000

    arrays, record = rewrite(run, tamper), run.record
    assert isinstance(record.outcome, Success)
    windows = [
        Window(*pair) for pair in zip(arrays["inference_window_batches"], arrays["inference_window_s"], strict=True)
    ]
    rate, steady = summary(windows, record.outcome.latency.batch_size, record.spec.protocol)
    speed = msgspec.structs.replace(record.outcome.speed, inference=steady, inference_samples_per_s=rate)
    kept = [
        flag
        for flag in record.outcome.flags
        if flag.metric == "train_throughput" or flag.kind in ("throttled", "other_load")
    ]
    found = suspicions(windows, record.spec.protocol)
    flags = [*kept, *(Flag(metric="inference_throughput", kind=kind, detail=detail) for kind, detail in found)]
    flags.sort(key=lambda flag: (flag.metric, flag.kind in ("throttled", "other_load")))
    forged = with_digest(record, arrays, speed=speed, flags=flags)
    assert failed(run, toy_catalog, forged) == {"the measurement followed the protocol"}


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.1, 2.0])
def test_samples_scaled_times_are_noticed_by_the_lengths_of_the_windows(
    factor: float, backend: str, tmp_path: Path
) -> None:
    """The number of steps in a window depends on the durations of the windows before it."""
    demo = Path(__file__).parents[3] / "results" / "reference" / "demo"
    (recorded,) = (run for run in Store(demo).load().runs if run.record.spec.backend == backend)
    path = tmp_path / recorded.path.name
    shutil.copytree(recorded.path, path)

    def tamper(arrays: Arrays) -> None:
        for name in ("train_window_s", "sampling_window_s", "inference_window_s", "latencies_s"):
            arrays[name] *= factor

    run = StoredRun(path, recorded.record)
    forged = StoredRun(path, with_digest(run.record, rewrite(run, tamper)))
    name = "the numbers of steps in the training windows match their durations"
    (check,) = (check for check in from_record.CHECKS if check.name == name)
    assert check.finding(Subject(forged, load([]))).passed is (factor == 1.0)


@pytest.mark.parametrize(
    ("protocol", "problem"),
    [
        ({"throughput_budget_s": 60.0, "min_steady_s": 30.0, "window_s": 0.001}, "inference stopped after"),
        ({"throughput_budget_s": 60.0, "min_steady_s": 30.0, "window_s": 0.001}, "training stopped after"),
        ({"latency_batches": 10_000, "latency_budget_s": 60.0}, "the latency measurement stopped too early"),
        ({"throughput_budget_s": 60.0, "latency_batches": 20, "latency_budget_s": 60.0}, "the latency measurement"),
    ],
)
def test_samples_fewer_than_the_protocol_requires_are_noticed(
    protocol: dict[str, Any], problem: str, run: StoredRun, toy_catalog: Catalog
) -> None:
    """Slow windows or batches could be removed from the samples, and all figures recomputed from the others."""
    rewrite(run, lambda arrays: arrays.update(latencies_s=arrays["latencies_s"][:50]))
    spec = msgspec.structs.replace(
        run.record.spec, protocol=msgspec.structs.replace(run.record.spec.protocol, **protocol)
    )
    subject = Subject(StoredRun(run.path, msgspec.structs.replace(run.record, spec=spec)), toy_catalog)
    (check,) = (check for check in from_record.CHECKS if check.name == "the measurement followed the protocol")
    finding = check.finding(subject)
    assert (finding.passed, problem in finding.detail) == (False, True), finding.detail


def test_samples_other_predictions_with_fitting_scores_are_noticed_by_saved_weights(
    run: StoredRun, toy_catalog: Catalog
) -> None:
    from harness.measure.quality.scorer import scorer

    def tamper(arrays: Arrays) -> None:
        arrays["test_outputs"] = np.eye(3, dtype=np.float32)[arrays["test_targets"]]

    arrays, record = rewrite(run, tamper), run.record
    assert isinstance(record.outcome, Success)
    assert record.provenance.data
    judge = scorer(
        record.provenance.data, "accuracy", [toy_catalog.metric(name) for name in record.outcome.scores.test]
    )
    perfect = judge.scores(
        (arrays["test_targets"], arrays["test_outputs"]),
        (arrays["validation_targets"], arrays["validation_outputs"]),
        None,
        {},
    )
    assert perfect.test["accuracy"] == 1.0
    forged = with_digest(record, arrays, scores=perfect)
    assert failed(run, toy_catalog, forged) == set()
    (saved,) = (check for check in replay.CHECKS if check.name == "the saved weights reproduce the predictions")
    with replay.opened(forged, toy_catalog.refs_for(forged.spec)) as repeated:
        assert saved.finding(Subject(StoredRun(run.path, forged), toy_catalog), repeated).passed is False


def test_samples_other_losses_or_another_recipe_are_noticed_by_repeated_steps(
    run: StoredRun, toy_catalog: Catalog
) -> None:
    """Both would agree with the rest of the record if the values that follow from them were changed too."""
    (check,) = (
        check for check in replay.CHECKS if check.name == "repeating the first training steps gives the recorded losses"
    )
    recipe = msgspec.structs.replace(run.record.spec.recipe, learning_rate=0.11)
    other = msgspec.structs.replace(run.record, spec=msgspec.structs.replace(run.record.spec, recipe=recipe))
    passed = []
    for record in (run.record, other):
        with replay.opened(record, toy_catalog.refs_for(record.spec)) as repeated:
            passed.append(check.finding(Subject(StoredRun(run.path, record), toy_catalog), repeated).passed)

    def tamper(arrays: Arrays) -> None:
        arrays["train_losses"] *= 0.99

    rewrite(run, tamper)
    with replay.opened(run.record, toy_catalog.refs_for(run.record.spec)) as repeated:
        passed.append(check.finding(Subject(run, toy_catalog), repeated).passed)
    assert passed == [True, False, False]


@pytest.mark.parametrize("step", [4, 20, -1])
def test_samples_other_later_loss_is_noticed_on_the_same_machine(
    step: int, run: StoredRun, toy_catalog: Catalog
) -> None:
    (check,) = (
        check for check in replay.CHECKS if check.name == "repeating the first training steps gives the recorded losses"
    )

    def tamper(arrays: Arrays) -> None:
        arrays["train_losses"][: replay.MORE_STEPS][step] *= 1.01

    rewrite(run, tamper)
    findings = []
    other = msgspec.structs.replace(
        run.record, environment=msgspec.structs.replace(run.record.environment, cpu="Other CPU")
    )
    for record in (run.record, other):
        with replay.opened(record, toy_catalog.refs_for(record.spec)) as repeated:
            findings.append(check.finding(Subject(StoredRun(run.path, record), toy_catalog), repeated))
    assert [finding.passed for finding in findings] == [False, True], findings
    assert findings[1].detail.startswith("3 losses")


def test_samples_losses_that_are_not_reproducible_are_not_a_finding(
    run: StoredRun, toy_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    (check,) = (
        check for check in replay.CHECKS if check.name == "repeating the first training steps gives the recorded losses"
    )
    exact, rng = replay._losses, np.random.default_rng(0)

    def noisy(*arguments: Any) -> Any:
        losses = exact(*arguments)
        losses[replay.STEPS :] *= 1 + 0.01 * rng.standard_normal(len(losses) - replay.STEPS)
        return losses

    monkeypatch.setattr(replay, "_losses", noisy)
    with replay.opened(run.record, toy_catalog.refs_for(run.record.spec)) as repeated:
        finding = check.finding(Subject(run, toy_catalog), repeated)
    assert (finding.passed, "later losses are not reproducible" in finding.detail) == (True, True), finding.detail


@pytest.mark.parametrize(("peak", "passed"), [(1.0, False), (1e15, True)])
def test_record_faster_than_the_roofline_is_noticed(
    peak: float, passed: bool, run: StoredRun, toy_catalog: Catalog
) -> None:
    record = run.record
    roofline = Roofline(
        backend=record.spec.backend,
        device=record.spec.device,
        precision=record.spec.precision,
        threads=record.spec.threads,
        hardware=hardware_of(record.environment, record.spec.device, record.provenance.device_name or ""),
        versions={
            name: record.environment.packages[name]
            for name in toy_catalog.backend(record.spec.backend).packages
            if name in record.environment.packages
        },
        matrix_flops_per_s=peak,
        copy_bytes_per_s=1e9,
        measured_at="2026-01-01T00:00:00Z",
    )
    forged = msgspec.structs.replace(record, roofline=roofline)
    assert ("the roofline was measured on the device of the run" not in failed(run, toy_catalog, forged)) is passed


def test_samples_other_targets_are_noticed_in_the_data(run: StoredRun, toy_catalog: Catalog) -> None:
    def tamper(arrays: Arrays) -> None:
        arrays["test_targets"] = arrays["test_outputs"].argmax(axis=1)

    rewrite(run, tamper)
    (check,) = (check for check in replay.CHECKS if check.name == "the stored targets match the data")
    with replay.opened(run.record, toy_catalog.refs_for(run.record.spec)) as repeated:
        assert check.finding(Subject(run, toy_catalog), repeated).passed is False


def found(name: str, record: RunRecord, run: StoredRun, catalog: Catalog, *others: RunRecord) -> Finding:
    """Return the finding of one check. `others` are the records of other runs in the results directory."""
    stored = [StoredRun(run.path.parent / other.run_id, other) for other in others]
    (check,) = (check for check in from_record.CHECKS if check.name == name)
    return check.finding(Subject(StoredRun(run.path, record), catalog, stored))


@pytest.mark.parametrize(
    "name",
    [
        "confidence intervals match the predictions",
        "scores by target and the descriptions of the metrics match the predictions",
    ],
)
def test_record_made_to_look_old_does_not_pass_what_old_records_lack(
    name: str, run: StoredRun, toy_catalog: Catalog
) -> None:
    outcome = run.record.outcome
    assert isinstance(outcome, Success)
    old = msgspec.structs.replace(
        outcome,
        speed=msgspec.structs.replace(outcome.speed, by_steps=None),
        scores=msgspec.structs.replace(outcome.scores, metrics={}, intervals={"accuracy": (0.87, 0.88)}),
    )
    forged = msgspec.structs.replace(run.record, outcome=old)
    assert found(name, run.record, run, toy_catalog).passed is True
    assert found(name, forged, run, toy_catalog).passed is None


def test_intervals_of_a_former_method_are_not_checked(run: StoredRun, toy_catalog: Catalog) -> None:
    name = "confidence intervals match the predictions"
    outcome = run.record.outcome
    assert isinstance(outcome, Success)
    for method, expected in ((FORMER_METHODS[0], None), ("unknown", False)):
        scores = msgspec.structs.replace(outcome.scores, interval_method=method, no_interval={})
        changed = msgspec.structs.replace(run.record, outcome=msgspec.structs.replace(outcome, scores=scores))
        assert found(name, changed, run, toy_catalog).passed is expected


def test_repeat_that_is_a_copy_is_noticed(run: StoredRun, toy_catalog: Catalog) -> None:
    name = "repeats used the same initial weights and data, and are not copies"
    copy = msgspec.structs.replace(
        run.record, run_id=f"{run.record.run_id[:-1]}2", repeat=2, started_at="2026-01-01T00:00:00Z"
    )
    assert found(name, run.record, run, toy_catalog, copy).passed is False
    assert isinstance(copy.outcome, Success)
    assert copy.outcome.evidence
    evidence = msgspec.structs.replace(copy.outcome.evidence, arrays_digest="0" * 64)
    genuine = msgspec.structs.replace(copy, outcome=msgspec.structs.replace(copy.outcome, evidence=evidence))
    assert found(name, run.record, run, toy_catalog, genuine).passed is True


def test_record_without_plugins_is_noticed(run: StoredRun, toy_catalog: Catalog) -> None:
    provenance = msgspec.structs.replace(run.record.provenance, plugins=[])
    forged = msgspec.structs.replace(run.record, provenance=provenance)
    assert found("the installed plugins match those of the run", forged, run, toy_catalog).passed is False
