"""Tests of ``harness export`` that need no framework."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from command_line import harness_cli
from own_files import houses, write_csv
from toy_plugin import SET_FAST, install_toy

from harness.deploy.card import model_card
from harness.deploy.export import export
from harness.errors import HarnessError, RecordError, UsageError
from harness.execute.weights import load
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import Preprocessing
from harness.records.arrays import read_arrays, write_arrays
from harness.records.export import Export, read_export
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


def test_format_that_the_backend_does_not_export_is_refused(run: StoredRun, catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model 'toy' cannot be exported as onnx; no plugin exports it in this format"):
        export(run, "onnx", tmp_path / "model", catalog, timeout_s=60)


def test_exported_files_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "predict.md").read_text(encoding="utf-8")
    for name in ("export.json", "README.md", "preprocessing.json", "model.onnx", "model.pt2", "model.safetensors"):
        assert f"`{name}`" in page
