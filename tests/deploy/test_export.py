"""Tests of ``harness export`` that need no framework."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import engine_plugin
import msgspec
import numpy as np
import pytest
from command_line import MAIN, harness_cli
from own_files import houses, write_csv
from toy_plugin import SET_FAST, install_toy

from harness.deploy import export as exporting
from harness.deploy.card import model_card
from harness.deploy.export import PARTIAL, export
from harness.errors import HarnessError, RecordError, UsageError
from harness.execute import exporting as execute_exporting
from harness.execute.weights import load
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import Failure, Preprocessing
from harness.records.arrays import read_arrays, write_arrays
from harness.records.export import Export, read_export
from harness.records.scratch import temporary
from harness.records.store import ARRAYS, Store, StoredRun

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    return discover()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    file = write_csv(folder / "houses|<b>.csv", {**houses(80), "side": ["left", "right"] * 40})
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        data = ("--dataset", str(file), "--target-column", "price", "--slice-columns", "side")
        chosen = ("--task", "regression", "--model", "toy-linear", "--backend", "toy-numpy", *SET_FAST)
        words = ("run", *chosen, *data, "--set", "recipe.optimizer=sgd", "-q", "--save-weights")
        harness_cli(*words, results=folder / "results")
    return folder / "results"


@pytest.fixture
def run(results: Path) -> StoredRun:
    (stored,) = Store(results).load().runs
    return stored


def test_export_writes_weights_preprocessing_and_a_card(run: StoredRun, results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    words = ("export", run.record.run_id, "--format", "safetensors", "--output", str(folder))
    assert "relative difference between the outputs: 0.0e+00" in harness_cli(*words, results=results).stdout
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "export.json",
        "model.safetensors",
        "preprocessing.json",
    ]
    for name, array in load(run.path / "weights.safetensors").items():
        np.testing.assert_array_equal(load(folder / "model.safetensors")[name], array)
    msgspec.json.decode((folder / "preprocessing.json").read_bytes(), type=Preprocessing)
    made = msgspec.json.decode((folder / "export.json").read_bytes(), type=Export)
    assert (made.run, made.format, made.examples, made.same_labels) == (run.record.run_id, "safetensors", 16, None)
    done = harness_cli(*words, results=results, status=2)
    assert "already exists" in done.stderr
    assert read_export(folder) == made
    (folder / "preprocessing.json").write_bytes((folder / "preprocessing.json").read_bytes() + b" ")
    with pytest.raises(RecordError, match=r"preprocessing\.json: the file has changed; export the model again"):
        read_export(folder)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "absent")
    done = harness_cli(*words[:-1], str(link), results=results, status=2)
    assert "already exists" in done.stderr


def test_card_has_quality_slices_data_license_use_and_cost(run: StoredRun, catalog: Catalog) -> None:
    made = Export(
        run=run.record.run_id, format="safetensors", files=["a"], digest="", weights_digest="", exporter="toy-numpy",
        packages={}, inputs={}, outputs="", examples=16, same_labels=None, error=0.0,
    )  # fmt: skip
    card = model_card(run, made, catalog)
    for heading in ("Intended use", "Quality", "Slices", "Data", "Cost", "Files"):
        assert f"\n## {heading}\n" in card
    assert "| license | your own data |" in card
    assert "| side | left |" in card
    assert "houses\\|&lt;b>.csv" in card
    assert "samples/s" in card
    family = catalog.models[catalog.model(run.record.spec.model)[0].name]
    assert f"{family.value.summary} (plugin {family.plugin.name}, " in card
    flops = run.record.outcome.model.flops_per_sample
    assert f"| FLOPs per example | {flops:,.0f} |" in card


def test_export_that_differs_from_the_run_is_refused(run: StoredRun, catalog: Catalog, tmp_path: Path) -> None:
    copy = StoredRun(Path(shutil.copytree(run.path, tmp_path / run.path.name)), run.record)
    arrays = read_arrays(copy.path / ARRAYS)
    write_arrays(copy.path / ARRAYS, {**arrays, "test_outputs": arrays["test_outputs"] * np.float32(1.001)})
    with pytest.raises(HarnessError, match=r"differs from the trained model: the outputs differ by 1.0e-03"):
        export(copy, "safetensors", tmp_path / "model", catalog, timeout_s=60)
    assert not (tmp_path / "model").exists()
    assert not list(tmp_path.glob(".partial-*"))


def test_export_removes_the_folders_of_killed_exports_and_keeps_those_in_use(
    run: StoredRun, results: Path, tmp_path: Path
) -> None:
    words = ("export", run.record.run_id, "--format", "safetensors", "--results", str(results), "--output")
    process = subprocess.Popen([*MAIN, *words, str(tmp_path / "a")], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not (left := list(tmp_path.glob(f"{PARTIAL}*"))):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert left[0].is_dir()
    of_another_program = tmp_path / ".partial-download"
    of_another_program.mkdir()
    with temporary(tmp_path, f"{PARTIAL}other-") as in_use:
        harness_cli(*words, str(tmp_path / "b"), results=results)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-download", in_use.name, "b"]


@pytest.mark.parametrize("blocking", ["file", "folder"])
def test_output_that_appears_during_the_export_is_kept(
    run: StoredRun, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocking: str
) -> None:
    output = tmp_path / "model"

    def card(*arguments: object) -> str:
        if blocking == "file":
            output.write_text("mine")
        else:
            output.mkdir()
        return "card"

    monkeypatch.setattr(exporting, "model_card", card)
    with pytest.raises(UsageError, match="already exists; pass a new folder"):
        export(run, "safetensors", output, catalog, timeout_s=60)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert output.read_text() == "mine" if blocking == "file" else list(output.iterdir()) == []


def test_export_to_a_folder_that_cannot_be_written_names_the_reason(
    run: StoredRun, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"model: cannot be written, because .*file is not a folder"):
        export(run, "safetensors", tmp_path / "file" / "model", catalog, timeout_s=60)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporting, "write_new", full)
    with pytest.raises(UsageError, match=r"model: cannot be written: No space left on device"):
        export(run, "safetensors", tmp_path / "model", catalog, timeout_s=60)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_exported_folder_is_not_a_run(run: StoredRun, catalog: Catalog, results: Path, tmp_path: Path) -> None:
    export(run, "safetensors", tmp_path / "model", catalog, timeout_s=60)
    refused = harness_cli("show", str(tmp_path / "model"), results=results, status=2).stderr
    assert "model is an exported model, not a run; pass the run from which it was exported" in refused
    refused = harness_cli("predict", str(tmp_path / "model"), "new.csv", results=results, status=2).stderr
    assert f"which no backend can execute; pass run {run.record.run_id} instead" in refused


def test_exported_model_predicts_new_data_like_its_run(run: StoredRun, results: Path, tmp_path: Path) -> None:
    plugin, folder = ("--plugin", engine_plugin.__file__), str(tmp_path / "model")
    words = ("export", run.record.run_id, "--format", engine_plugin.FORMAT, "--output", folder)
    harness_cli(*words, *plugin, results=results)
    new = str(write_csv(tmp_path / "new.csv", {**houses(5), "side": ["left"] * 5}))
    done = harness_cli("predict", folder, new, *plugin, results=results)
    assert done.stdout == harness_cli("predict", run.record.run_id, new, results=results).stdout
    assert done.stdout.count("\n") == 6


def test_full_disk_is_named_whatever_the_exporter_reports(
    run: StoredRun, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = Failure(kind="error", message="unexpected pos 253376 vs 253280")
    monkeypatch.setattr(execute_exporting, "call_in_child", lambda *_, **__: failure)
    for free, words in (
        (2**30, "by toy-numpy: unexpected pos"),
        (2**10, "by toy-numpy: the disk is full; unexpected pos"),
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with pytest.raises(HarnessError, match=words):
            export(run, "safetensors", tmp_path / "model", catalog, timeout_s=60)


def test_format_that_the_backend_does_not_export_is_refused(run: StoredRun, catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model 'toy' cannot be exported as onnx; no plugin exports it in this format"):
        export(run, "onnx", tmp_path / "model", catalog, timeout_s=60)


def test_exported_files_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "predict.md").read_text(encoding="utf-8")
    for name in ("export.json", "README.md", "preprocessing.json", "model.onnx", "model.pt2", "model.safetensors"):
        assert f"`{name}`" in page
