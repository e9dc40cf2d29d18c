"""Tests of backends that execute exported models, with a toy exporter and a toy engine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import engine_plugin
import msgspec
import numpy as np
import pytest
from command_line import harness_cli
from toy_plugin import SET_FAST, install_toy

import harness
from harness.errors import CombinationError, HarnessError, PluginError, RecordError, UsageError
from harness.execute.exporting import CALIBRATION, executable_model, slice_of
from harness.plan.expand import expand
from harness.plan.exporter import exporter_for
from harness.plan.rerun import selection as selection_of
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.plugins.offers import check_offer
from harness.records import ExportedModel, RunSpec, Success
from harness.records.export import Export, files_digest, read_export
from harness.records.store import Store, StoredRun

pytestmark = pytest.mark.usefixtures("toy")
PLUGIN = ("--plugin", engine_plugin.__file__)


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    return discover((engine_plugin.__file__,))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results directory with a trained run, and two runs of the engine with its weights."""
    results = tmp_path_factory.mktemp("exported") / "results"
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        patch.setenv("HARNESS_CACHE", str(results.parent / "cache"))
        chosen = ("--task", "toy-regress", "--backend", "toy-numpy")
        harness_cli("run", *chosen, *SET_FAST, "-q", "--save-weights", results=results)
        served = ("--weights", "toy-regress", "--backend", "toy-engine", "--precision", "fp32,int8")
        harness_cli("run", *PLUGIN, *served, *SET_FAST, "-q", results=results)
    return results


@pytest.fixture
def runs(results: Path, monkeypatch: pytest.MonkeyPatch) -> list[StoredRun]:
    monkeypatch.setenv("HARNESS_CACHE", str(results.parent / "cache"))
    return Store(results).load().runs


def served(*sources: object, backend: str = "toy-engine", precision: str = "fp32") -> Selection:
    return Selection(weights=sources, backends=(backend,), precisions=(precision,))  # type: ignore[arg-type]


def exported(run: StoredRun, folder: Path) -> Path:
    """Write an exported model of a run without starting a process."""
    folder.mkdir()
    np.savez(folder / engine_plugin.FILE, **{"linear.weight": np.zeros((2, 4)), "linear.bias": np.zeros(2)})
    files = [engine_plugin.FILE]
    made = Export(
        run=run.record.run_id, format=engine_plugin.FORMAT, files=files, digest=files_digest(folder, files),
        weights_digest=run.record.provenance.final_weights_digest or "", exporter="toy-exporter", packages={},
        inputs={}, outputs="", examples=1, same_labels=None, error=0.0,
    )  # fmt: skip
    (folder / "export.json").write_bytes(msgspec.json.encode(made))
    return folder


def test_calibration_examples_are_spread_evenly_over_the_split() -> None:
    assert slice_of(3).tolist() == [0, 1, 2]
    positions = slice_of(10_000)
    assert (len(positions), positions[0], positions[-1]) == (CALIBRATION, 0, 9999)
    assert set(np.diff(positions)) <= {39, 40}


def test_engine_has_a_row_with_quality_and_cost(runs: list[StoredRun]) -> None:
    trained, fp32, int8 = runs
    source = trained.record.outcome
    assert isinstance(source, Success)
    for run, allowed in ((fp32, 1e-5), (int8, 0.1)):
        outcome, provenance = run.record.outcome, run.record.provenance
        assert isinstance(outcome, Success)
        assert outcome.scores.test == pytest.approx(source.scores.test, rel=allowed)
        assert outcome.speed.inference_samples_per_s
        assert outcome.latency.p50_ms
        assert outcome.memory.host_peak_bytes
        assert outcome.scores.reference is None
        assert next(iter(outcome.phases_s)) == "export"
        assert provenance.final_weights_digest is None
        assert provenance.notes["exported_by"].startswith("toy-exporter (numpy ")
        weights = run.record.spec.weights
        assert weights is not None
        assert weights.exported == ExportedModel(exporter="toy-exporter")
    assert fp32.record.outcome.scores.test != int8.record.outcome.scores.test  # type: ignore[union-attr]
    assert "converted_digest" not in fp32.record.provenance.notes
    assert int8.record.provenance.notes["toy_calibration"] == "160"  # all training examples
    names = {(ref.name, ref.value) for ref in fp32.record.provenance.plugins}
    assert any("engine_plugin" in value for _, value in names)


def test_table_has_a_row_for_each_precision(results: Path) -> None:
    table = harness.load(results).table()
    assert [row.cells["precision"].value for row in table.rows] == ["fp32", "fp32", "int8"]


def test_audit_of_an_engine_passes(runs: list[StoredRun], results: Path) -> None:
    done = harness_cli("audit", *PLUGIN, runs[2].record.run_id, "--format", "json", results=results)
    findings = msgspec.json.decode(done.stdout)
    findings = findings if isinstance(findings, list) else findings["findings"]
    assert [finding for finding in findings if finding["passed"] is False] == []


def test_rerun_selection_gives_the_same_spec(runs: list[StoredRun], catalog: Catalog, results: Path) -> None:
    for run in runs[1:]:
        chosen = selection_of(run.record.spec, catalog).resolved(pytest.fail, Store(results).find)
        assert expand(chosen, catalog) == (run.record.spec,)


def test_key_depends_on_the_exporter_and_the_exported_files_but_not_on_the_path(runs: list[StoredRun]) -> None:
    spec = runs[1].record.spec

    def changed(**fields: str) -> RunSpec:
        assert spec.weights is not None
        model = msgspec.structs.replace(spec.weights.exported or ExportedModel(exporter=""), **fields)
        return msgspec.structs.replace(spec, weights=msgspec.structs.replace(spec.weights, exported=model))

    assert changed(path="/elsewhere").key == spec.key
    assert changed(exporter="another").key != spec.key
    assert changed(digest="0" * 64).key != spec.key
    assert changed(digest="0" * 64).group_key == spec.group_key
    assert changed(exporter="another").group_key != spec.group_key
    before = msgspec.to_builtins(spec)
    assert spec.key == spec.key
    assert msgspec.to_builtins(spec) == before


def test_training_and_int8_training_are_refused_in_planning(catalog: Catalog) -> None:
    for backends in (("toy-engine",), ("toy-numpy", "toy-engine")):
        with pytest.raises(CombinationError, match="'toy-engine' cannot train, because it only computes predictions"):
            expand(Selection(tasks=("toy-regress",), backends=backends), catalog)
    with pytest.raises(CombinationError, match="int8 is only for inference"):
        expand(Selection(tasks=("toy-regress",), backends=("toy-numpy",), precisions=("fp32", "int8")), catalog)


def test_default_backends_of_training_leave_engines_out(catalog: Catalog) -> None:
    specs = expand(Selection(tasks=("toy-regress",)), catalog)
    assert "toy-numpy" in {spec.backend for spec in specs}
    assert not {"toy-engine", "toy-exporter"} & {spec.backend for spec in specs}


def test_default_backends_of_inference_include_engines(runs: list[StoredRun], catalog: Catalog) -> None:
    backends = {spec.backend for spec in expand(Selection(weights=(runs[0],)), catalog)}
    assert {"toy-numpy", "toy-exporter", "toy-engine"} <= backends


def test_list_shows_the_use_of_each_backend(results: Path) -> None:
    text = harness_cli("list", "backends", *PLUGIN).stdout
    lines = {words[0]: " ".join(words[1:]) for line in text.splitlines() if (words := line.split())}
    assert lines["toy-engine"].startswith("inference of toy-npz models")
    assert lines["toy-exporter"].startswith("inference ")
    assert lines["toy-numpy"].startswith("training, inference")


def test_format_without_an_exporter_is_refused_with_the_reasons(catalog: Catalog) -> None:
    assert exporter_for(engine_plugin.FORMAT, "toy", "toy-numpy", catalog) == "toy-exporter"
    with pytest.raises(CombinationError, match="toy-exporter: no_such_module is not installed"):
        exporter_for("toy-absent", "toy", "toy-numpy", catalog)
    with pytest.raises(CombinationError, match=r"no plugin exports it in this format; known formats: .*safetensors"):
        exporter_for("unknown", "toy", "toy-numpy", catalog)


def test_folder_of_an_exported_model_is_executed_without_exporting(
    runs: list[StoredRun], catalog: Catalog, results: Path, tmp_path: Path
) -> None:
    folder = exported(runs[0], tmp_path / "model")
    chosen = served(str(folder)).resolved(pytest.fail, Store(results).find)
    (spec,) = expand(chosen, catalog)
    assert spec.weights is not None
    made = ExportedModel(exporter="toy-exporter", digest=read_export(folder).digest, path=str(folder))
    assert spec.weights.exported == made
    assert executable_model(spec, catalog)[0] == folder
    again = selection_of(spec, catalog).resolved(pytest.fail, Store(results).find)
    assert expand(again, catalog) == (spec,)


def test_changed_or_foreign_folders_are_refused(
    runs: list[StoredRun], catalog: Catalog, results: Path, tmp_path: Path
) -> None:
    folder = exported(runs[0], tmp_path / "model")
    find = Store(results).find
    with pytest.raises(CombinationError, match="'toy-numpy' does not execute exported models; pass --weights"):
        expand(served(str(folder), backend="toy-numpy").resolved(pytest.fail, find), catalog)
    made = read_export(folder)
    for change, error, message in (
        ({"weights_digest": "0"}, UsageError, "exported from weights other than those of run"),
        (
            {"format": "onnx"},
            CombinationError,
            "exported as onnx, but backend 'toy-engine' executes models",
        ),
        ({"files": ["../model/weights.npz", "../../x"]}, RecordError, "is not in the folder"),
        ({"files": ["absent"]}, RecordError, "cannot be read"),
        ({"version": 9}, RecordError, "version 9 cannot be read; this version of harness reads versions up to 2"),
        ({"preprocessing_digest": "0"}, RecordError, "preprocessing.json: cannot be read"),
    ):
        (folder / "export.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(made, **change)))
        with pytest.raises(error, match=message):
            expand(served(str(folder)).resolved(pytest.fail, find), catalog)
    (folder / "export.json").write_bytes(msgspec.json.encode(made))
    (spec,) = expand(served(str(folder)).resolved(pytest.fail, find), catalog)
    np.savez(folder / engine_plugin.FILE, np.zeros(1))
    with pytest.raises(RecordError, match="the files of the exported model have changed"):
        executable_model(spec, catalog)


def test_damaged_export_in_the_cache_is_made_again(runs: list[StoredRun], catalog: Catalog, tmp_path: Path) -> None:
    spec = runs[1].record.spec
    folder, _ = executable_model(spec, catalog)
    before = (folder / engine_plugin.FILE).read_bytes()
    (folder / engine_plugin.FILE).write_bytes(b"damaged")
    assert executable_model(spec, catalog)[0] == folder
    assert (folder / engine_plugin.FILE).read_bytes() == before


def test_export_that_differs_from_the_model_fails(
    runs: list[StoredRun], catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(engine_plugin.FAULT, "wrong")
    with pytest.raises(HarnessError, match=r"differs from the model of the framework: the outputs differ by 1\.0e-02"):
        executable_model(runs[1].record.spec, catalog)
    assert list((tmp_path / "cache" / "exports").iterdir()) == []


def test_evaluation_uses_the_engine(runs: list[StoredRun], results: Path) -> None:
    name = runs[0].record.run_id
    done = harness_cli("evaluate", *PLUGIN, name, "--backend", "toy-engine", results=results)
    assert "toy-engine" in done.stdout


def test_exported_session_has_no_weights_and_refuses_to_train() -> None:
    session = engine_plugin.EngineSession(Path())
    assert session.get_weights() == {}
    with pytest.raises(harness.UnsupportedError, match="part of the exported model"):
        session.set_weights({})
    with pytest.raises(harness.UnsupportedError, match="only computes predictions"):
        session.train_step(harness.Batch({}, np.zeros(1)), 0.1)


def test_engine_that_claims_to_train_is_refused() -> None:
    class Wrong(engine_plugin.Engine):
        trains = True

    with pytest.raises(PluginError, match="executes exported models and cannot train; set trains = False"):
        check_offer("harness_backends", Wrong())


@pytest.mark.slow
def test_engine_passes_the_conformance_kit(catalog: Catalog, runs: list[StoredRun]) -> None:
    from harness.testing.rules.backends import BACKEND_RULES
    from harness.testing.workbench import Workbench

    bench = Workbench(catalog.backend("toy-engine"), catalog, "toy")
    slow = ("backend-respects-threads", "backend-frees-memory", "backend-synchronizes")
    findings = [rule.apply("toy-engine", bench) for rule in BACKEND_RULES if rule.name not in slow]
    assert [finding.seen for finding in findings if finding.passed is False] == []
    assert {finding.rule for finding in findings if finding.passed} >= {
        "backend-opens",
        "backend-computes-the-exported-model",
        "backend-respects-precision",
        "backend-rejects-missing-devices",
    }


def test_engine_with_other_outputs_breaks_a_rule_of_the_kit(catalog: Catalog, runs: list[StoredRun]) -> None:
    from harness.testing.rules.backends import BACKEND_RULES
    from harness.testing.workbench import Workbench

    class Scaled(engine_plugin.EngineSession):
        def predict(self, inputs: Any) -> Any:
            return super().predict(inputs) * 1.001

    class Wrong(engine_plugin.Engine):
        def open(self, request: Any) -> engine_plugin.EngineSession:
            return Scaled(request.exported)

    (rule,) = (rule for rule in BACKEND_RULES if rule.name == "backend-computes-the-exported-model")
    finding = rule.apply("toy-engine", Workbench(Wrong(), catalog, "toy"))
    assert finding.passed is False


def test_cached_exports_survive_a_copy_of_the_results(
    runs: list[StoredRun], catalog: Catalog, results: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(results, tmp_path / "copy"))
    (spec,) = expand(served(Store(copied).find(runs[0].record.run_id)), catalog)
    assert executable_model(spec, catalog)[0] == executable_model(runs[1].record.spec, catalog)[0]
