"""Training and inference in PyTorch as one writes them by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from harness import SessionRequest, Split


def prepare(request: SessionRequest, weights: dict[str, Any]) -> tuple[Callable[..., None], Callable[..., Any]]:
    """`train(split, order)` and `infer(split)` over whole batches, of a model that starts from `weights`."""
    network = request.build(request.config, request.info, request.recipe.dropout)
    model: torch.nn.Module = network.module
    with torch.no_grad():
        for name, binding in network.bindings.items():
            binding.variable.copy_(torch.from_numpy(np.array(binding.to_own(weights[name]))))
    recipe, size = request.recipe, request.recipe.batch_size
    arguments: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), momentum=recipe.momentum, **arguments)
    else:
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(model.parameters(), betas=(recipe.beta1, recipe.beta2), eps=recipe.epsilon, **arguments)
    classification = request.info.objective == "classification"

    def train(split: Split, order: Any) -> None:
        model.train()
        for start in range(0, len(order) - size + 1, size):
            index = order[start : start + size]
            inputs = {name: torch.from_numpy(array[index]) for name, array in split.inputs.items()}
            targets = torch.from_numpy(split.targets[index])
            optimizer.zero_grad()
            outputs = model(**inputs)
            loss = F.cross_entropy(outputs, targets) if classification else F.mse_loss(outputs, targets)
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

    return train, infer
