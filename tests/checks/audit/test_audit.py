"""Tests that every check of an audit passes on an unchanged run and fails on one that was tampered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import harness_cli, harness_process
from toy_plugin import SET_FAST, install_toy

from harness.checks.audit import from_record, replay
from harness.execute.weights import load, save
from harness.records.store import ARRAYS, PREPROCESSING, RECORD, WEIGHTS

pytestmark = pytest.mark.usefixtures("toy")
TIMED = "timed predictions match the scored predictions"
CHANGED = "training changed the weights, and the trained weights were evaluated"
CLOCK = "the step timer agrees with wall-clock time"
SCORES = "scores match the predictions"
INTERVALS = "confidence intervals match the predictions"
VALIDATION = "validation scores match the predictions"
SEEDS = "runs with different seeds have different weights"
REPEATS = "repeats used the same initial weights and data, and are not copies"
SAVED = "the saved weights reproduce the predictions"
PREPARED = "the saved preprocessing matches its digest"
CACHED = "no results are cached between batches"
COMPLETE = "the raw samples are complete"
PARITY = "recorded parity results match the stored verdicts"
ROOFLINE = "the roofline was measured on the device of the run"
ALL = [check.name for check in (*from_record.CHECKS, *replay.CHECKS)]


def trained(results: Path, *arguments: str, backend: str = "toy-numpy") -> list[Path]:
    chosen = ("--task", "toy-classify", "--backend", backend, "--threads", "1", *SET_FAST)
    harness_cli("run", *chosen, "-q", *arguments, results=results)
    return sorted(path for path in results.glob("[!.]*") if path.is_dir())


def audit(run: Path, status: int) -> dict[str, bool | None]:
    done = harness_cli("audit", run, "--format", "json", results=run.parent, status=status)
    findings = json.loads(done.stdout)
    assert json.loads((run / "audit.json").read_text()) == findings
    return {finding["check"]: finding["passed"] for finding in findings}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results directory with two seeds, twice each, and their weights."""
    folder = tmp_path_factory.mktemp("honest")
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        trained(folder, "--seed", "0,1", "--repeat", "2", "--save-weights")
    return folder


@pytest.fixture
def results(honest: Path, tmp_path: Path) -> Path:
    """Return a copy that the test may change."""
    return Path(shutil.copytree(honest, tmp_path / "results"))


def first(results: Path) -> Path:
    return next(path for path in sorted(results.glob("[!.]*")) if "-s0-" in path.name and path.name.endswith("-1"))


def rewrite(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads((run / RECORD).read_text())
    change(record)
    (run / RECORD).write_text(json.dumps(record))


def test_audit_of_an_unchanged_run_passes(results: Path) -> None:
    absent = {PARITY: None, ROOFLINE: None}
    assert audit(first(results), 0) == dict.fromkeys(ALL, True) | absent
    text = harness_process("audit", first(results).name, "--results", str(results), cwd=results)
    assert (text.returncode, text.stdout.count("\nok ")) == (0, len(ALL) - len(absent))
    assert not [line for line in text.stdout.splitlines() if line.startswith("ok ") and " but " in line]
    assert "outcome.memory.host_counter" in text.stdout.partition("Fields that no audit can check completely:")[2]


@pytest.mark.parametrize(
    ("failing", "change"),
    [
        (TIMED, lambda r: r["outcome"]["evidence"].update(timed_error=0.01)),
        (CLOCK, lambda r: r["outcome"]["evidence"].update(clock_s=1.0 + 1.1 * r["outcome"]["evidence"]["wall_s"])),
        (CLOCK, lambda r: r["outcome"]["phases_s"].update(train=2 * r["wall_s"])),
    ],
)
def test_a_changed_record_is_noticed(results: Path, failing: str, change: Callable[[dict[str, Any]], None]) -> None:
    rewrite(first(results), change)
    found = audit(first(results), 1)
    assert {check for check, passed in found.items() if passed is False} == {failing}


def test_one_seed_under_two_numbers_is_noticed(results: Path) -> None:
    other = json.loads((next(path for path in results.glob("[!.]*") if "-s1-" in path.name) / RECORD).read_text())
    rewrite(first(results), lambda r: r.update(provenance=other["provenance"]))
    assert audit(first(results), 1)[SEEDS] is False


def test_changed_saved_weights_are_noticed(results: Path) -> None:
    run = first(results)
    save(run / WEIGHTS, {name: array + 1 for name, array in load(run / WEIGHTS).items()})
    found = audit(run, 1)
    assert [check for check, passed in found.items() if passed is False] == [SAVED]


@pytest.mark.parametrize("length", [0, 50])
def test_damaged_saved_weights_are_noticed(results: Path, length: int) -> None:
    run = first(results)
    (run / WEIGHTS).write_bytes((run / WEIGHTS).read_bytes()[:length])
    assert audit(run, 1)[SAVED] is False


def test_changed_preprocessing_is_noticed(results: Path) -> None:
    run = first(results)
    file = run / PREPROCESSING
    assert audit(run, 0)[PREPARED] is True
    file.write_bytes(file.read_bytes() + b" ")
    assert [check for check, passed in audit(run, 1).items() if passed is False] == [PREPARED]
    file.unlink()
    assert audit(run, 0)[PREPARED] is None


def test_changed_predictions_are_noticed(results: Path) -> None:
    run = first(results)
    with np.load(run / ARRAYS) as archive:
        arrays = dict(archive)
    arrays["test_outputs"] = arrays["test_outputs"][::-1]
    np.savez(run / ARRAYS, **arrays)
    found = audit(run, 1)
    assert {check for check, passed in found.items() if passed is False} == {COMPLETE, SCORES, INTERVALS, SAVED}


@pytest.mark.parametrize(
    ("backend", "failing"),
    [
        ("toy-hasty", TIMED),
        ("toy-restless", CHANGED),
        ("toy-idle", CHANGED),
        ("toy-remembers", CACHED),
    ],
)
def test_a_backend_that_cheats_is_noticed(backend: str, failing: str, tmp_path: Path) -> None:
    (run,) = trained(tmp_path, backend=backend)
    found = audit(run, 1)
    assert found[failing] is False


def test_range_of_windows_is_not_called_a_confidence_interval(tmp_path: Path) -> None:
    """Windows of one session depend on each other."""
    (run,) = trained(tmp_path, backend="toy-remembers")
    printed = harness_cli("audit", run, results=tmp_path, status=1).stdout
    (line,) = (line for line in printed.splitlines() if "as fast as new batches" in line)
    assert "within-run range" in printed
    assert "confidence interval" not in line


def test_check_that_cannot_be_made_is_neither_passed_nor_failed(tmp_path: Path) -> None:
    (run,) = trained(tmp_path)
    (run / ARRAYS).unlink()
    found = audit(run, 0)
    unchecked = {check for check, passed in found.items() if passed is None}
    assert {COMPLETE, SCORES, VALIDATION, SAVED, SEEDS, REPEATS, PARITY, ROOFLINE} < unchecked
    assert False not in found.values()


def test_run_that_cannot_be_repeated_is_not_checked(tmp_path: Path) -> None:
    (run,) = trained(tmp_path)
    rewrite(run, lambda r: r["spec"].update(dataset_options={"no_such_option": 1}))
    found = audit(run, 1)
    assert {found[check.name] for check in replay.CHECKS} == {None}


def test_audit_of_a_failed_run_is_refused(tmp_path: Path) -> None:
    harness_cli("run", "--task", "toy-classify", "--backend", "toy-value-error", "-q", results=tmp_path, status=1)
    (run,) = tmp_path.glob("toy-*")
    done = harness_cli("audit", run.name, results=tmp_path, status=2)
    assert "failed; only complete, successful runs can be audited" in done.stderr
