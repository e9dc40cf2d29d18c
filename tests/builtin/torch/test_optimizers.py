"""Tests of fused optimizer kernels and gradient scaling. The steps are compared with numpy in ``test_networks.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch_cases import batch_of, open_session, request_of

import harness
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


OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"optimizer": "rmsprop"},
    {"optimizer": "rmsprop", "weight_decay": 0.1},
    {"optimizer": "rmsprop", "epsilon": 0.0},
    {"optimizer": "adam", "weight_decay": 0.1},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "adagrad", "weight_decay": 0.1, "decoupled_decay": True},
    {"optimizer": "lion", "weight_decay": 0.1},
    {"optimizer": "lamb", "weight_decay": 0.1},
    {"optimizer": "adam", "l1": 0.1},
]


def scaled_steps(recipe: harness.Recipe, optimizer: Any, parameters: list[Any], unscale: bool) -> list[list[Any]]:
    """Return the parameters after each of 20 steps with gradient scaling, of which steps 1, 6 and 7 overflow."""
    import torch

    scaler = torch.amp.GradScaler("cpu")
    rng = torch.Generator().manual_seed(0)
    history = []
    for number in range(20):
        factors = [torch.randn(parameter.shape, generator=rng) for parameter in parameters]
        if number in (0, 5, 6):
            factors[number % 2].view(-1)[0] = float("nan" if number == 5 else "inf")
        optimizer.zero_grad()
        loss = sum((factor * parameter).sum() for factor, parameter in zip(factors, parameters, strict=True))
        scaler.scale(loss).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        history.append([parameter.detach().clone() for parameter in parameters] + [torch.tensor(scaler.get_scale())])
    return history


def parameters_to_train() -> list[Any]:
    import torch

    shapes = [(3, 2, 2, 2), (4,)]
    made = [torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n, shape in enumerate(shapes)]
    made[0] = made[0].to(memory_format=torch.channels_last)
    return [torch.nn.Parameter(tensor) for tensor in made]


@pytest.mark.parametrize("unscale", [False, True], ids=["plain", "unscaled before"])
@pytest.mark.parametrize("options", OPTIMIZERS, ids=str)
def test_scaled_steps_equal_those_that_the_host_skips(options: dict[str, Any], unscale: bool) -> None:
    """The optimizers without fused kernels let GradScaler skip steps on the host, which makes it wait for the GPU."""
    import torch
    from harness_torch.optimizers import build_optimizer

    recipe = harness.Recipe(**options)
    ours, theirs = parameters_to_train(), parameters_to_train()
    optimizer = build_optimizer(recipe, ours[:1], ours[1:], scaled=True)
    plain = build_optimizer(recipe, theirs[:1], theirs[1:])
    plain._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    steps = zip(
        scaled_steps(recipe, optimizer, ours, unscale), scaled_steps(recipe, plain, theirs, unscale), strict=True
    )
    exact = recipe.optimizer not in (
        "sgd",
        "adam",
        "adamw",
    )  # fused kernels unscale the gradients themselves, with another rounding
    for number, (got, expected) in enumerate(steps):
        for mine, reference in zip(got, expected, strict=True):
            torch.testing.assert_close(
                mine, reference, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-7, msg=str(number)
            )


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("options", OPTIMIZERS, ids=str)
def test_fp16_steps_copy_nothing_to_the_host(
    options: dict[str, Any], clip_norm: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, the host would wait for the value. Here, the CPU reports fp16 as supported."""
    import torch
    from harness_torch import session as session_module

    cpu = harness.DeviceInfo(name="cpu", description="", precisions=("fp16",))
    monkeypatch.setattr(session_module, "require", lambda device, precision: cpu)
    request = request_of("mlp", precision="fp16", recipe=options | {"clip_norm": clip_norm})
    session, batch = open_session(request), batch_of(request.info)
    assert session.notes()["gradient_scaling"] == "dynamic"

    def refused(tensor: Any) -> None:
        raise AssertionError("the host waits for a value")

    for name in ("item", "__bool__", "__float__", "__int__", "tolist", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, refused)
    for _ in range(3):
        session.train_step(batch, 1e-2)


@pytest.mark.parametrize(("scale", "skipped"), [(1.0, False), (2.0**40, True)])
def test_fixed_loss_scale_never_changes(scale: float, *, skipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that overflow are skipped, and the replay of the parity check counts the skipped steps."""
    from harness_torch import session as session_module

    from harness.checks.parity.replay import Replay
    from harness.testing.sessions import weights_for

    cpu = harness.DeviceInfo(name="cpu", description="", precisions=("fp16",))
    monkeypatch.setattr(session_module, "require", lambda device, precision: cpu)
    request = request_of("mlp", precision="fp16", recipe={"optimizer": "adam", "loss_scale": scale})
    one, other = open_session(request), open_session(request)
    assert one.notes()["gradient_scaling"] == f"fixed, {scale:g}"
    replay = Replay(one, other, weights_for(request.parameters), request.recipe, request.parameters, "fp16")
    for _ in range(3):
        replay.step(batch_of(request.info), 1e-3)
    arrays = replay.arrays()
    assert (arrays["skipped"][0], len(arrays["loss"])) == ((3, 0) if skipped else (0, 3))
    assert skipped or (arrays["error"] <= 1e-2 * arrays["size"] + arrays["rounding"]).all()
    assert one._scaler.get_scale() == scale
