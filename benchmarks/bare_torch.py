"""Minimal hand-written training and inference loops in PyTorch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.contender import Contender, weights_of
from harness import Network, SessionRequest, Split


class Parts(NamedTuple):
    """Objects shared by all PyTorch contenders."""

    network: Network
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer


def parts_of(request: SessionRequest, weights: dict[str, Any]) -> Parts:
    """Build a model with the given weights, and an optimizer as specified in the recipe."""
    network = request.build(request.config, request.info, request.recipe.dropout)
    with torch.no_grad():
        for name, binding in network.bindings.items():
            binding.variable.copy_(torch.from_numpy(np.array(binding.to_own(weights[name]))))
    recipe = request.recipe
    trained = {p.name: p for p in request.parameters if p.trainable}
    groups = [
        {
            "params": [network.bindings[name].variable for name, p in trained.items() if p.decay == decays],
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for decays in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    arguments: dict[str, Any] = {"lr": recipe.learning_rate, "fused": True}
    if recipe.optimizer == "sgd":
        arguments |= {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
        return Parts(network, network.module, torch.optim.SGD(groups, **arguments))
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    arguments |= {"betas": (recipe.beta1, recipe.beta2), "eps": recipe.epsilon}
    return Parts(network, network.module, kind(groups, **arguments))


def loss_of(request: SessionRequest, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if request.info.objective == "regression":
        return F.mse_loss(outputs, targets)
    return F.cross_entropy(outputs, targets, label_smoothing=request.recipe.label_smoothing)


def prepare(request: SessionRequest, weights: dict[str, Any]) -> Contender:
    network, model, optimizer = parts_of(request, weights)
    recipe, size = request.recipe, request.recipe.batch_size

    def train(split: Split, order: Any) -> None:
        model.train()
        for start in range(0, len(order) - size + 1, size):
            index = order[start : start + size]
            inputs = {name: torch.from_numpy(array[index]) for name, array in split.inputs.items()}
            targets = torch.from_numpy(split.targets[index])
            optimizer.zero_grad()
            loss = loss_of(request, model(**inputs), targets)
            loss.backward()
            if recipe.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()

    def infer(split: Split) -> Any:
        model.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(split) - size + 1, size):
                outputs = model(**{n: torch.from_numpy(a[start : start + size]) for n, a in split.inputs.items()})
                parts.append(outputs.numpy())
        return np.concatenate(parts)

    return Contender(train, infer, lambda: weights_of(network, request, lambda v: v.detach().numpy().copy()))
