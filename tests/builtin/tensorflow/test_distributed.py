"""Tests that training on two devices agrees with training in one process."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from data_parallel import executed, on_one_device, spec_of, with_local_statistics

from harness.plugins import discover
from harness.records import RunSpec

pytestmark = pytest.mark.tensorflow


def in_this_process(spec: RunSpec) -> RunSpec:
    """Return the specification with the number of threads of the other tests, because TensorFlow sets it once per
    process."""
    return msgspec.structs.replace(spec, threads=2)


def test_two_devices_have_the_loss_curve_of_one(tmp_path: Path) -> None:
    """The only batch of each of the 50 epochs is the training split, whose parts have different sizes."""
    catalog = discover()
    overrides = ("recipe.batch_size=400", "recipe.epochs=50", "recipe.clip_norm=0.5")
    spec = spec_of(catalog, "tensorflow", "regression", "mlp", *overrides)
    record, losses, weights = executed(spec, catalog, tmp_path)
    expected, expected_weights = on_one_device(in_this_process(spec), catalog)
    assert len(losses) == 50
    np.testing.assert_allclose(losses, expected, rtol=5e-6)
    for name, value in weights.items():
        np.testing.assert_allclose(value, expected_weights[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert record.provenance.notes["collectives"] == "MultiWorkerMirroredStrategy"
    assert "batch_norm" not in record.provenance.notes


@pytest.mark.slow
@pytest.mark.plugins("vision")
def test_batch_norm_uses_the_statistics_of_each_part(tmp_path: Path) -> None:
    catalog = discover()
    small = ("model.embedding_size=4", "model.hidden_sizes=[4,8]", "model.depths=[1,1]", "model.layer_type=basic")
    recipe = ("recipe.batch_size=64", "recipe.epochs=1", "recipe.optimizer=sgd", "recipe.momentum=0.9")
    spec = spec_of(catalog, "tensorflow", "vision", "resnet-20", *small, *recipe)
    record, losses, weights = executed(spec, catalog, tmp_path)
    expected, expected_weights = with_local_statistics(in_this_process(spec), catalog)
    alone, _ = on_one_device(in_this_process(spec), catalog)
    assert record.provenance.notes["batch_norm"] == "local"
    error, difference = (abs(losses / other - 1).max() for other in (expected, alone))
    assert error < 1e-5
    assert difference > 10 * error  # the statistics of whole batches give other losses
    for name, value in weights.items():
        np.testing.assert_allclose(value, expected_weights[name], rtol=2e-3, atol=2e-4, err_msg=name)
