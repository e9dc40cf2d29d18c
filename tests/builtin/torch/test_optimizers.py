"""Fused optimizer kernels. What a step means is compared with numpy in ``test_networks.py``."""

from __future__ import annotations

import numpy as np
import pytest
from torch_cases import batch_of, open_session, request_of

from harness.execute.weights import initial_weights

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("family", ["resnet", "wav2vec2"])
def test_fused_kernels_agree_with_plain_ones_in_every_memory_layout(family: str) -> None:
    """Convolutions are stored channels last, and fused kernels walk over raw memory."""
    import torch

    request = request_of(family, recipe={"optimizer": "adamw", "weight_decay": 0.1, "epsilon": 1e-3})
    session = open_session(request)
    network = request.build(request.config, request.info, 0.0)
    with torch.no_grad():
        for name, array in initial_weights(request.parameters, 0).items():
            network.bindings[name].variable.copy_(torch.from_numpy(array))
    groups = [
        {
            "params": [
                network.bindings[p.name].variable for p in request.parameters if p.trainable and p.decay == decay
            ],
            "weight_decay": 0.1 * decay,
        }
        for decay in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, eps=1e-3, foreach=False, fused=False)
    batch = batch_of(request.info)
    tensors = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network.module(**tensors), torch.from_numpy(batch.targets))
        loss.backward()
        optimizer.step()
        session.train_step(batch, 1e-3)
    for name, array in session.get_weights().items():
        expected = network.bindings[name].variable.detach().numpy()
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5, err_msg=name)
