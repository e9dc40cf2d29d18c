"""Comparison of losses and optimizers with float64 numpy code that follows the docstring of `harness.Recipe`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch_cases import batch_of, info_of, open_session, request_of

from harness import Batch, DataInfo, Recipe
from harness.execute.weights import initial_weights

pytestmark = pytest.mark.torch

RATES = [0.0, 0.02, 0.05, 0.05, 0.03, 0.01, 0.04, 0.02]


def _loss_and_gradients(w: dict[str, Any], batch: Batch, recipe: Recipe, info: DataInfo) -> tuple[float, Any]:
    """Return the loss and gradients of the linear model in float64.

    The loss is softmax cross-entropy with smoothed targets, or the mean squared error.
    """
    x = batch.inputs["features"].astype(np.float64)
    outputs = x @ w["linear.weight"].T + w["linear.bias"]
    if info.objective == "regression":
        error = outputs - batch.targets
        loss, slope = (error**2).mean(), 2 * error / error.size
    else:
        eps, classes = recipe.label_smoothing, info.outputs
        targets = (1 - eps) * np.eye(classes)[batch.targets] + eps / classes
        log_p = outputs - outputs.max(1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
        loss, slope = -(targets * log_p).sum(1).mean(), (np.exp(log_p) - targets) / len(x)
    gradients = {"linear.weight": slope.T @ x, "linear.bias": slope.sum(0)}
    if recipe.clip_norm is not None:
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        gradients = {name: g * min(1.0, recipe.clip_norm / norm) for name, g in gradients.items()}
    return float(loss), gradients


def _update(p: Any, g: Any, state: dict[str, Any], recipe: Recipe, rate: float, decay: float, step: int) -> Any:
    """Return the updated parameter, following the docstring of `Recipe`."""
    if recipe.optimizer == "sgd":
        g = g + decay * p
        v = state["v"] = recipe.momentum * state.get("v", 0) + g
        return p - rate * (g + recipe.momentum * v if recipe.nesterov else v)
    if recipe.optimizer == "rmsprop":
        g = g + decay * p
        s = state["s"] = 0.99 * state.get("s", 0) + 0.01 * g**2
        return p - rate * g / (np.sqrt(s) + recipe.epsilon)
    if recipe.optimizer == "adamw":
        p = p - rate * decay * p
    else:
        g = g + decay * p
    m = state["m"] = recipe.beta1 * state.get("m", 0) + (1 - recipe.beta1) * g
    s = state["s"] = recipe.beta2 * state.get("s", 0) + (1 - recipe.beta2) * g**2
    m_hat, s_hat = m / (1 - recipe.beta1**step), s / (1 - recipe.beta2**step)
    return p - rate * m_hat / (np.sqrt(s_hat) + recipe.epsilon)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "nesterov": True, "weight_decay": 0.3},
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.3},
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.3, "nesterov": True},
        {"optimizer": "rmsprop", "epsilon": 1e-3, "weight_decay": 0.3},
        {"optimizer": "adam", "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.3},
        {"optimizer": "adam", "epsilon": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.3},
        {"optimizer": "adamw", "epsilon": 1e-3, "weight_decay": 0.3, "clip_norm": 0.05},
        {"optimizer": "sgd", "clip_norm": 0.2},
        {"optimizer": "sgd", "clip_norm": 1e6},
        {"optimizer": "sgd", "label_smoothing": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("objective", ["classification", "regression"])
def test_steps_agree_with_the_recipe(changes: dict[str, Any], objective: str) -> None:
    import msgspec

    info = msgspec.structs.replace(info_of("linear"), objective=objective)
    request = request_of("linear", recipe=changes, info=info)
    session = open_session(request)
    decays = {each.name: request.recipe.weight_decay * each.decay for each in request.parameters}
    assert set(decays.values()) == {0.0, request.recipe.weight_decay}
    w = {name: array.astype(np.float64) for name, array in initial_weights(request.parameters, 0).items()}
    states: dict[str, dict[str, Any]] = {name: {} for name in w}
    for step, rate in enumerate(RATES, start=1):
        batch = batch_of(info, 6, seed=step)
        expected_loss, gradients = _loss_and_gradients(w, batch, request.recipe, info)
        loss = session.fetch(session.train_step(batch, rate))
        assert loss.dtype == np.float32
        assert float(loss) == pytest.approx(expected_loss, rel=1e-5)
        for name, g in gradients.items():
            w[name] = _update(w[name], g, states[name], request.recipe, rate, decays[name], step)
    for name, found in session.get_weights().items():
        np.testing.assert_allclose(found, w[name], rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw"])
def test_setting_weights_resets_the_optimizer(optimizer: str) -> None:
    request = request_of("mlp", recipe={"optimizer": optimizer, "momentum": 0.9})
    session = open_session(request)
    batch = batch_of(request.info)

    def run() -> dict[str, Any]:
        session.set_weights(initial_weights(request.parameters, 0))
        for rate in (0.01, 0.02):
            session.train_step(batch, rate)
        return session.get_weights()

    first, second = run(), run()
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)


@pytest.mark.parametrize("family", ["resnet", "wav2vec2"])
def test_fused_optimizers_agree_with_plain_ones_in_every_memory_layout(family: str) -> None:
    """Check that fused kernels, which operate on raw memory, are correct for kernels stored in channels-last format."""
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
