"""Tests that training on two devices agrees with training in one process."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_parallel import executed, on_one_device, spec_of, with_local_statistics
from torch_cases import batch_of, open_session, request_of

from harness import Batch, DeviceGroup, DeviceInfo
from harness.plugins import discover

pytestmark = pytest.mark.torch


def test_two_devices_have_the_loss_curve_of_one(tmp_path: Path) -> None:
    """The only batch of each of the 50 epochs is the training split, whose parts have different sizes."""
    catalog = discover()
    overrides = ("recipe.batch_size=400", "recipe.epochs=50", "recipe.clip_norm=0.5")
    spec = spec_of(catalog, "torch", "regression", "mlp", *overrides)
    record, losses, weights = executed(spec, catalog, tmp_path)
    expected, expected_weights = on_one_device(spec, catalog)
    assert len(losses) == 50
    np.testing.assert_allclose(losses, expected, rtol=5e-6)
    for name, value in weights.items():
        np.testing.assert_allclose(value, expected_weights[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert record.provenance.notes["collectives"] == "gloo"
    assert "batch_norm" not in record.provenance.notes


def test_fp16_gradients_in_the_backward_pass_are_as_large_as_on_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, they would overflow at a smaller loss scale. Here, the CPU reports fp16 as supported.

    Both processes of the group have the same examples, so a group with only one process computes the same average.
    """
    import torch.distributed as dist
    from harness_torch import distributed
    from harness_torch import session as session_module

    def join(group: DeviceGroup, library: str) -> None:
        dist.init_process_group(library, store=dist.HashStore(), rank=0, world_size=1)

    monkeypatch.setattr(distributed, "_join", join)
    cpu = DeviceInfo(name="cpu", description="", precisions=("fp16",))
    monkeypatch.setattr(session_module, "require", lambda device, precision: cpu)
    recipe = {"dropout": 0.0, "loss_scale": 1024.0}
    request = request_of("mlp", precision="fp16", recipe=recipe)
    part = batch_of(request.info)
    whole = Batch(
        {name: np.concatenate([array, array]) for name, array in part.inputs.items()},
        np.concatenate([part.targets, part.targets]),
    )
    group = DeviceGroup(rank=0, addresses=("127.0.0.1:1", "127.0.0.1:2"))
    found = []
    for changes, batch in (({}, whole), ({"group": group}, Batch(part.inputs, part.targets, weight=0.5))):
        session = open_session(dataclasses.replace(request, **changes))
        largest: list[float] = []

        def watch(module: Any, inputs: Any, outputs: Any, largest: list[float] = largest) -> None:
            outputs.register_hook(lambda gradient: largest.append(float(gradient.abs().max())))

        session._module.register_forward_hook(watch)  # type: ignore[attr-defined]
        _, gradients = session.gradients(batch)
        found.append((largest, gradients))
        session.close()
    (largest, gradients), (largest_in_group, gradients_in_group) = found
    assert max(largest_in_group) == pytest.approx(max(largest), rel=1e-3)
    for name, value in gradients_in_group.items():
        np.testing.assert_allclose(value, gradients[name], rtol=2e-2, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.plugins("vision")
def test_batch_norm_uses_the_statistics_of_each_part(tmp_path: Path) -> None:
    catalog = discover()
    small = ("model.embedding_size=4", "model.hidden_sizes=[4,8]", "model.depths=[1,1]", "model.layer_type=basic")
    recipe = ("recipe.batch_size=64", "recipe.epochs=1", "recipe.optimizer=sgd", "recipe.momentum=0.9")
    spec = spec_of(catalog, "torch", "vision", "resnet-20", *small, *recipe)
    record, losses, weights = executed(spec, catalog, tmp_path)
    expected, expected_weights = with_local_statistics(spec, catalog)
    alone, _ = on_one_device(spec, catalog)
    assert record.provenance.notes["batch_norm"] == "local"
    error, difference = (abs(losses / other - 1).max() for other in (expected, alone))
    assert error < 1e-5
    assert difference > 10 * error  # the statistics of whole batches give other losses
    for name, value in weights.items():
        np.testing.assert_allclose(value, expected_weights[name], rtol=2e-3, atol=2e-4, err_msg=name)
