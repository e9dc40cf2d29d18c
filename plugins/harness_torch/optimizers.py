"""The optimizers of `harness.Recipe`, implemented by `torch.optim`, which defines them in the same way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from harness import Recipe


def build_optimizer(
    recipe: Recipe, decayed: Iterable[torch.nn.Parameter], others: Iterable[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Build the optimizer for `recipe`, with weight decay for `decayed` only.

    Fused implementations compute the same update in a single pass.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(decayed), "weight_decay": recipe.weight_decay},
        {"params": list(others), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate, betas = recipe.learning_rate, (recipe.beta1, recipe.beta2)
    match recipe.optimizer:
        case "sgd":
            # torch rejects nesterov without momentum. Without momentum, the update is plain SGD in any case.
            nesterov = recipe.nesterov and recipe.momentum > 0
            return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=nesterov, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=rate, alpha=0.99, eps=recipe.epsilon, foreach=True)
        case "adam":
            return torch.optim.Adam(groups, lr=rate, betas=betas, eps=recipe.epsilon, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=recipe.epsilon, fused=True)


def implementation(recipe: Recipe) -> str:
    """Return the name of the optimizer's implementation, for the record."""
    return "foreach" if recipe.optimizer == "rmsprop" else "fused"
