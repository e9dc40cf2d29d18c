"""`harness.Recipe`'s optimizers in `torch.optim`, whose definitions are the recipe's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from harness import Recipe


def build_optimizer(
    recipe: Recipe, decayed: Iterable[torch.nn.Parameter], others: Iterable[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Weight decay goes to the first group of parameters only. Fused kernels compute the same update in one pass."""
    groups: list[dict[str, Any]] = [
        {"params": list(decayed), "weight_decay": recipe.weight_decay},
        {"params": list(others), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate, betas = recipe.learning_rate, (recipe.beta1, recipe.beta2)
    match recipe.optimizer:
        case "sgd":
            # torch refuses Nesterov's rule without momentum, where it is the plain one.
            nesterov = recipe.nesterov and recipe.momentum > 0
            return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=nesterov, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=rate, alpha=0.99, eps=recipe.epsilon, foreach=True)
        case "adam":
            return torch.optim.Adam(groups, lr=rate, betas=betas, eps=recipe.epsilon, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=recipe.epsilon, fused=True)


def implementation(recipe: Recipe) -> str:
    """How the optimizer's kernels are launched, for the record."""
    return "foreach" if recipe.optimizer == "rmsprop" else "fused"
