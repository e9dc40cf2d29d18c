"""Tests of runs that measure inference with the trained weights of another run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import serving_plugin
from command_line import harness_cli
from own_files import houses, write_csv
from toy_plugin import FAST, SET_FAST, install_toy

import harness
from harness.errors import CombinationError, UsageError
from harness.plan.expand import expand
from harness.plan.rerun import selection as selection_of
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import RunSpec, Success
from harness.records.spec import key_of
from harness.records.store import WEIGHTS, Store, StoredRun

pytestmark = pytest.mark.usefixtures("toy")
PLUGIN = ("--plugin", serving_plugin.__file__)


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    return discover((serving_plugin.__file__,))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results directory with a trained run, and two runs that used its weights."""
    results = tmp_path_factory.mktemp("weights") / "results"
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        chosen = ("--task", "toy-classify", "--backend", "toy-numpy")
        harness_cli("run", *chosen, *SET_FAST, "-q", "--save-weights", results=results)
        served = ("--weights", "toy-classify", "--backend", "toy-numpy,toy-serving")
        harness_cli("run", *PLUGIN, *served, *SET_FAST, "-q", results=results)
    return results


@pytest.fixture
def runs(results: Path) -> list[StoredRun]:
    return Store(results).load().runs


def test_served_run_has_quality_and_cost_of_inference_only(runs: list[StoredRun]) -> None:
    trained, *served = runs
    assert [run.record.spec.backend for run in served] == ["toy-numpy", "toy-serving"]
    for run in served:
        outcome, source = run.record.outcome, trained.record.outcome
        assert isinstance(outcome, Success)
        assert isinstance(source, Success)
        assert outcome.scores.test == pytest.approx(source.scores.test)
        assert outcome.speed.inference_samples_per_s
        assert outcome.latency.p50_ms
        assert outcome.memory.host_peak_bytes
        assert (outcome.curves, outcome.speed.train, outcome.speed.train_samples_per_s) == ([], None, None)
        assert "train" not in outcome.phases_s
        weights = run.record.spec.weights
        assert weights is not None
        assert weights.run == trained.record.run_id
        assert run.record.provenance.final_weights_digest == weights.digest


def test_table_shows_served_rows_next_to_the_trained_row(runs: list[StoredRun], results: Path) -> None:
    table = harness.load(results).table()
    name = runs[0].record.run_id
    assert [row.cells["options"].value for row in table.rows] == ["", f"weights of {name}", f"weights of {name}"]
    assert [row.cells["inference_ratio"].value is not None for row in table.rows] == [True] * 3
    assert [row.cells["train_samples_per_s"].value is None for row in table.rows] == [False, True, True]
    text = harness_cli("show", runs[1].record.run_id, results=results).stdout
    assert ["weights", "of", name] in [line.split() for line in text.splitlines()]
    assert "recipe.batch_size" in text
    assert "recipe.optimizer" not in text
    assert "recipe.epochs" not in text
    assert "none; the run used trained weights" in text


def test_audit_of_a_served_run_passes(runs: list[StoredRun], results: Path) -> None:
    done = harness_cli("audit", *PLUGIN, runs[2].record.run_id, "--format", "json", results=results)
    findings = json.loads(done.stdout)
    findings = findings if isinstance(findings, list) else findings["findings"]
    assert {finding["check"] for finding in findings if finding["passed"] is False} == set()
    passed = {finding["check"] for finding in findings if finding["passed"]}
    assert "a run that used trained weights has no training results" in passed
    assert "training changed the weights, and the trained weights were evaluated" in passed


def test_run_is_skipped_if_it_is_already_in_the_results(results: Path) -> None:
    (name,) = {run.record.spec.weights.run for run in Store(results).load().runs if run.record.spec.weights}
    done = harness_cli("run", "--weights", name, "--backend", "toy-numpy", *SET_FAST, results=results)
    assert "skip: " in done.stderr


def test_rerun_selection_gives_the_same_spec(runs: list[StoredRun], catalog: Catalog, results: Path) -> None:
    for run in runs[1:]:
        chosen = selection_of(run.record.spec, catalog).resolved(pytest.fail, Store(results).find)
        (spec,) = expand(chosen, catalog)
        assert spec == run.record.spec


def test_key_of_a_run_that_trains_has_no_weights(runs: list[StoredRun]) -> None:
    spec = runs[0].record.spec
    values = msgspec.to_builtins(spec)
    del values["weights"]
    assert key_of(values) == spec.key == runs[0].record.key


def test_key_of_a_served_run_depends_on_the_weights_but_not_on_their_path(runs: list[StoredRun]) -> None:
    spec = runs[1].record.spec
    assert spec.weights is not None

    def changed(**fields: str) -> RunSpec:
        return msgspec.structs.replace(spec, weights=msgspec.structs.replace(spec.weights, **fields))

    assert changed(path="elsewhere").key == spec.key
    assert changed(digest="0" * 64).key != spec.key
    assert changed(digest="0" * 64, run="other").group_key == spec.group_key


# ---- refusals -----------------------------------------------------------------------------------------------


def served(run: StoredRun, *backends: str, **fields: object) -> Selection:
    return Selection(weights=(run,), backends=backends, overrides=FAST, **fields)  # type: ignore[arg-type]


def test_backend_that_cannot_train_is_refused_without_weights(catalog: Catalog) -> None:
    chosen = Selection(tasks=("toy-classify",), overrides=FAST)
    with pytest.raises(
        CombinationError,
        match=r"'toy-serving' cannot train, because it only computes predictions; .* pass --weights RUN",
    ):
        expand(dataclasses.replace(chosen, backends=("toy-serving",)), catalog)
    assert "toy-serving" not in {spec.backend for spec in expand(chosen, catalog)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": ("toy-classify",)}, "remove --task"),
        ({"models": ("toy-linear",), "seeds": (1,)}, "remove --model, --seed"),
        ({"overrides": ("recipe.epochs=3",)}, "recipe.epochs cannot be changed"),
    ],
)
def test_options_that_the_run_determines_are_refused(
    runs: list[StoredRun], catalog: Catalog, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        expand(dataclasses.replace(served(runs[0], "toy-numpy"), **fields), catalog)  # type: ignore[arg-type]


def test_run_without_weights_and_served_run_are_refused(
    runs: list[StoredRun], catalog: Catalog, tmp_path: Path
) -> None:
    copy = StoredRun(Path(shutil.copytree(runs[0].path, tmp_path / runs[0].path.name)), runs[0].record)
    (copy.path / WEIGHTS).unlink()
    with pytest.raises(UsageError, match="no saved weights; repeat the run"):
        expand(served(copy, "toy-numpy"), catalog)
    with pytest.raises(UsageError, match="was not trained, but used the weights of"):
        expand(served(runs[1], "toy-numpy"), catalog)


def test_backend_that_cannot_serve_the_model_is_refused(runs: list[StoredRun], catalog: Catalog) -> None:
    with pytest.raises(
        CombinationError,
        match=r"'baseline' cannot run inference with model 'toy' .*; the model is implemented for: toy-abort",
    ):
        expand(served(runs[0], "baseline"), catalog)


def test_parity_with_trained_weights_is_refused(runs: list[StoredRun], results: Path) -> None:
    done = harness_cli(
        "run", "--weights", str(runs[0].path), "--backend", "toy-numpy", "--parity", results=results, status=2
    )
    assert "--parity compares how backends train" in done.stderr


def test_changed_data_are_refused_in_planning(catalog: Catalog, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "houses.csv", houses())
    chosen = ("--task", "regression", "--model", "toy-linear", "--backend", "toy-numpy", "--target-column", "price")
    settings = ("--set", "recipe.optimizer=sgd", *SET_FAST)
    results = tmp_path / "results"
    harness_cli("run", *chosen, *settings, "--dataset", str(file), "-q", "--save-weights", results=results)
    (run,) = Store(results).load().runs
    (spec,) = expand(served(run, "toy-numpy"), catalog)
    assert spec.source is not None
    write_csv(file, houses(41))
    with pytest.raises(UsageError, match="the content has changed"):
        expand(served(run, "toy-numpy"), catalog)


def test_weights_of_other_data_fail_in_the_run(runs: list[StoredRun], catalog: Catalog, tmp_path: Path) -> None:
    from harness.api import carry_out

    (spec,) = expand(served(runs[0], "toy-serving"), catalog)
    assert spec.weights is not None
    for field, message in (
        ("dataset_digest", "was trained on different data"),
        ("digest", "do not match the record of run"),
    ):
        wrong = msgspec.structs.replace(spec.weights, **{field: "0" * 64})
        (record,) = carry_out([msgspec.structs.replace(spec, weights=wrong)], catalog, Store(tmp_path))
        assert message in record.outcome.message  # type: ignore[union-attr]


def test_inference_session_refuses_to_train() -> None:
    session = serving_plugin.ServingSession()
    batch = harness.Batch({}, np.zeros(1))
    for method in (lambda: session.train_step(batch, 0.1), lambda: session.gradients(batch)):
        with pytest.raises(harness.UnsupportedError, match="only computes predictions"):
            method()


def test_backend_that_only_predicts_passes_the_conformance_kit(catalog: Catalog) -> None:
    from harness.testing.rules.backends import BACKEND_RULES
    from harness.testing.workbench import Workbench

    bench = Workbench(catalog.backend("toy-serving"), catalog, "toy")
    slow = ("backend-respects-threads", "backend-frees-memory")
    findings = [rule.apply("toy-serving", bench) for rule in BACKEND_RULES if rule.name not in slow]
    assert [finding.seen for finding in findings if finding.passed is False] == []
    assert {finding.rule for finding in findings if finding.passed} >= {"backend-opens", "backend-round-trips-weights"}
