"""Tests of the parity check between small numpy backends, from the command line to the table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import click.testing
import msgspec
import pytest
from command_line import harness_cli, harness_process
from toy_plugin import PEERS, SET_FAST, install, install_toy

from harness import load as load_results
from harness.checks.parity.verdict import load
from harness.records import Failure, ParityMark, RunRecord

SAME, HASTY = ("--backend", "toy-numpy,peer-wide"), ("--backend", "toy-numpy,peer-hasty")


@pytest.fixture(autouse=True, scope="module")
def _plugins() -> Iterator[None]:
    """Install the toy and its peers without the faulty backends, each of which would be tried as the reference."""
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        install(patch, PEERS)
        patch.setenv("HARNESS_DISABLE_PLUGINS", "toy-faults")
        yield


def parity(*arguments: str, results: Path, status: int = 0) -> click.testing.Result:
    return harness_cli("parity", "--task", "toy-regress", *arguments, results=results, status=status)


def run(*arguments: str, results: Path) -> click.testing.Result:
    return harness_cli("run", "--task", "toy-regress", "--quiet", *SET_FAST, *arguments, results=results)


@pytest.fixture(scope="module")
def checked(_plugins: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the results of two backends that agree, over two seeds, and the output of the command."""
    results = tmp_path_factory.mktemp("checked")
    return results, run(*SAME, "--parity", "--seed", "0,1", results=results).stdout


@pytest.fixture
def results(checked: tuple[Path, str], tmp_path: Path) -> Path:
    """Return a copy of the results that the test may change."""
    return Path(shutil.copytree(checked[0], tmp_path / "results"))


def test_equivalent_backends_pass(tmp_path: Path) -> None:
    done = harness_process("parity", "--task", "toy-regress", *SAME, "--format", "json", "--results", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (printed,) = json.loads(done.stdout)
    (kept,) = load(tmp_path).values()
    assert json.loads(msgspec.json.encode(kept)) == printed
    assert kept.passed
    assert kept.backends == ("toy-numpy", "peer-wide")
    assert kept.reference == "peer-wide"
    assert kept.parameters == 10
    assert [stage.name for stage in kept.stages] == [
        "inputs", "weights", "logits", "loss", "gradients", "step", "optimizer", "late", "curve", "trained"
    ]  # fmt: skip
    logits = kept.stages[2]
    assert logits.from_reference["peer-wide"] == 0
    assert 0 < (logits.from_reference["toy-numpy"] or 0) < 1e-6


def test_differing_backends_fail_with_an_explanation(tmp_path: Path) -> None:
    done = parity(*HASTY, results=tmp_path, status=1)
    assert "DIFFERS: the values of `linear." in done.stdout
    assert "the step of peer-hasty is 2 times as large as that of toy-numpy" in done.stdout
    assert "check peer-hasty" in done.stdout
    (kept,) = load(tmp_path).values()
    assert not kept.passed


def test_backend_that_ignores_the_weights_of_examples_fails(tmp_path: Path) -> None:
    weighted = ("--dataset", "peer-weighted", "--steps", "3")
    done = parity(*weighted, "--backend", "toy-numpy,peer-unweighted", results=tmp_path, status=1)
    assert "DIFFERS: " in done.stdout
    assert "check peer-unweighted" in done.stdout
    parity(*weighted, *SAME, results=tmp_path)


def test_run_on_data_with_weights_and_a_backend_without_them_fails(tmp_path: Path) -> None:
    arguments = ("--dataset", "peer-weighted", "--backend", "toy-numpy,peer-old")
    harness_cli("run", "--task", "toy-regress", *SET_FAST, *arguments, results=tmp_path, status=1)
    record, failed = load_results(tmp_path).records
    assert isinstance(failed.outcome, Failure)
    assert failed.outcome.message.startswith("backend 'peer-old' does not support example weights")
    details = record.provenance.data.details  # type: ignore[union-attr]
    # (sum of k)^2 / sum of k^2 for k = 0 to 159
    assert details["effective_train_examples"] == pytest.approx(3 * 160 * 159 / (2 * 319), abs=0.1)


def test_failing_backend_does_not_pass_and_saves_no_verdict(tmp_path: Path) -> None:
    done = parity("--backend", "toy-numpy,peer-broken", results=tmp_path, status=1)
    assert "peer-broken could not be checked: unsupported: no wheels" in done.stdout
    assert load(tmp_path) == {}


def test_verdict_of_a_shorter_check_is_not_saved(tmp_path: Path) -> None:
    done = parity(*SAME, "--steps", "3", results=tmp_path)
    assert "partly checked: optimizer: only 3 training steps were checked, instead of 50" in done.stdout
    assert load(tmp_path) == {}


def test_partly_checked_model_fails_only_if_the_check_is_strict(tmp_path: Path) -> None:
    done = parity(*SAME, "--steps", "0", "--format", "markdown", results=tmp_path)
    assert done.stdout.splitlines()[2].rstrip(" |").endswith("partly checked")
    parity(*SAME, "--steps", "0", "--strict", results=tmp_path, status=1)


def test_single_backend_is_refused(tmp_path: Path) -> None:
    done = parity("--backend", "toy-numpy", results=tmp_path, status=2)
    assert "needs two backends" in done.stderr


def test_all_with_a_task_is_refused(tmp_path: Path) -> None:
    done = parity("--all", results=tmp_path, status=2)
    assert "--all selects every task and model" in done.stderr


def test_three_backends_are_compared_with_the_first(tmp_path: Path) -> None:
    done = parity("--backend", "toy-numpy,peer-wide,peer-hasty", "--format", "markdown", results=tmp_path, status=1)
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert "toy-numpy / peer-wide" in lines[2]
    assert lines[2].rstrip(" |").endswith("same")
    assert lines[3].rstrip(" |").endswith("differs")


def marks_of(results: Path) -> list[str]:
    return [row.text("parity") for row in load_results(results).table().rows]


def test_run_with_parity_records_its_marks(checked: tuple[Path, str], results: Path) -> None:
    assert "parity same (" in checked[1]
    records = load_results(results).records
    assert len(records) == 4
    (key,) = load(results)
    for record in records:
        (mark,) = record.parity
        assert (mark.passed, mark.verdict) == (True, key)
        assert {record.spec.backend, mark.backend} == {"toy-numpy", "peer-wide"}
    for path in (results / "parity").iterdir():
        path.unlink()
    assert all(mark.startswith("same (") for mark in marks_of(results)), "the records contain their marks"


def test_marks_of_partial_checks_and_of_older_records_are_partly_checked(results: Path) -> None:
    (path,) = (results / "parity").iterdir()
    verdict = next(iter(load(results).values()))
    stages = [*verdict.stages[:-1], msgspec.structs.replace(verdict.stages[-1], partly="a reason")]
    partial = msgspec.structs.replace(verdict, stages=stages)
    assert (verdict.state, partial.state, partial.partly) == ("same", "partly checked", "trained: a reason")
    path.write_bytes(msgspec.json.encode(partial))
    assert marks_of(results) == ["partly checked", "partly checked"]
    assert partial.mark("a").state == "partly checked"
    older = {"backend": "a", "passed": True, "error": 1e-7, "verdict": ""}
    assert msgspec.convert(older, ParityMark).state == "partly checked"
    assert msgspec.convert(older | {"passed": False}, ParityMark).state == "differs"


def test_verdict_of_an_older_version_is_ignored(results: Path) -> None:
    (path,) = (results / "parity").iterdir()
    path.write_text(path.read_text().replace('"schema_version": 3', '"schema_version": 2'))
    assert load(results) == {}


def test_rows_that_differ_have_a_ratio_only_with_all_ratios(tmp_path: Path) -> None:
    run(*HASTY, results=tmp_path)
    assert marks_of(tmp_path) == ["unchecked", "unchecked"]
    parity(*HASTY, results=tmp_path, status=1)
    assert marks_of(tmp_path) == ["differs", "differs"]

    def ratios(*arguments: str) -> list[float | None]:
        report = harness_cli("report", "--format", "json", *arguments, results=tmp_path)
        return [row["train_ratio"] for row in json.loads(report.stdout)["rows"]]

    assert ratios() == [1.0, None]
    assert ratios("--all-ratios")[1] is not None


def changed(record: RunRecord, what: str) -> RunRecord:
    replace = msgspec.structs.replace
    if what == "library":
        packages = record.environment.packages | {"numpy": "0.0"}
        return replace(record, environment=replace(record.environment, packages=packages))
    if what == "plugin":
        plugins = [replace(ref, version="9") for ref in record.provenance.plugins]
        return replace(record, provenance=replace(record.provenance, plugins=plugins))
    if what == "data":
        assert record.provenance.data is not None
        data = replace(record.provenance.data, outputs=9)
        return replace(record, provenance=replace(record.provenance, data=data))
    changes = {
        "model": {"model_options": {"bias": False}},
        "precision": {"precision": "bf16"},
        "compile": {"compile": True},
        "optimizer": {"recipe": replace(record.spec.recipe, momentum=0.9)},
        "seed": {"seed": 7},
        "threads": {"threads": 64},
        "epochs": {"recipe": replace(record.spec.recipe, epochs=99)},
        "protocol": {"protocol": replace(record.spec.protocol, window_s=9.0)},
    }
    return replace(record, spec=replace(record.spec, **changes[what]))


def test_verdict_applies_only_to_the_same_computation(results: Path) -> None:
    from harness.analysis.comparison_table import build_table

    verdicts = list(load(results).values())
    records = [msgspec.structs.replace(record, parity=[]) for record in load_results(results)]

    def states(what: str) -> set[str]:
        rows = build_table([changed(record, what) for record in records], verdicts).rows
        return {row.text("parity").partition(" ")[0] for row in rows}

    for what in ("seed", "threads", "epochs", "protocol"):
        assert states(what) == {"same"}, what
    for what in ("library", "plugin", "data", "model", "precision", "compile", "optimizer"):
        assert states(what) == {"unchecked"}, what


def test_damaged_verdicts_are_ignored(results: Path) -> None:
    (path,) = (results / "parity").iterdir()
    path.write_text(path.read_text()[:100])
    assert load(results) == {}


def test_assert_parity_passes_or_raises() -> None:
    """The function runs in the process of a plugin's tests; the backends still compute in separate processes."""
    from harness.testing import assert_parity

    verdict = assert_parity(task="toy-regress", backends=("toy-numpy", "peer-wide"), steps=3)
    assert verdict.passed
    with pytest.raises(AssertionError, match="DIFFERS: the values of `linear"):
        assert_parity(task="toy-regress", backends=("toy-numpy", "peer-hasty"), steps=3)
