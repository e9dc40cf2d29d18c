"""The optimizers of `harness.Recipe`, implemented by `torch.optim`, which uses the same definitions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from harness import Recipe


def build_optimizer(
    recipe: Recipe,
    decayed: Iterable[torch.nn.Parameter],
    others: Iterable[torch.nn.Parameter],
    *,
    scaled: bool = False,
) -> torch.optim.Optimizer:
    """Build the optimizer for `recipe`, with weight decay for `decayed` only.

    Fused implementations compute the same update in a single pass. `scaled` is True if the optimizer is used with a
    `torch.amp.GradScaler`. With a GradScaler, the optimizer does not wait for the GPU to determine whether a gradient
    overflowed.
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
            sgd = torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=nesterov, fused=True)
            if scaled and recipe.momentum:
                # torch leaves the momentum uninitialized if the gradients of the first step overflow.
                for parameter in (each for group in groups for each in group["params"]):
                    sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return sgd
        case "rmsprop":
            kind = ScaledRMSprop if scaled else torch.optim.RMSprop
            return kind(groups, lr=rate, alpha=0.99, eps=recipe.epsilon, foreach=True)
        case "adam":
            return torch.optim.Adam(groups, lr=rate, betas=betas, eps=recipe.epsilon, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=recipe.epsilon, fused=True)


class ScaledRMSprop(torch.optim.RMSprop):
    """RMSprop for `torch.amp.GradScaler` that skips a step without waiting for the GPU, like the fused optimizers.

    With `torch.optim.RMSprop`, GradScaler copies to the host a flag that indicates whether a gradient overflowed. This
    class performs every step, and restores the previous values on the device if a gradient overflowed.
    """

    _step_supports_amp_scaling = True
    # GradScaler.step sets these attributes before each step and deletes them afterwards.
    grad_scale: torch.Tensor | None
    """Loss scale, or None if the gradients have already been divided by it."""
    found_inf: torch.Tensor
    """Flag that is zero if all gradients are finite."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the parameters if all gradients are finite. `closure` is not supported."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if self.grad_scale is not None:
            inverse = self.grad_scale.double().reciprocal().float()
            torch._foreach_mul_([p.grad for p in parameters], inverse)
        before = [p.clone() for p in parameters]
        squares = [self.state[p]["square_avg"].clone() if self.state[p] else torch.zeros_like(p) for p in parameters]
        super().step()
        overflowed = self.found_inf.bool()
        for parameter, value, square in zip(parameters, before, squares, strict=True):
            torch.where(overflowed, value, parameter, out=parameter)
            current = self.state[parameter]["square_avg"]
            torch.where(overflowed, square, current, out=current)


def implementation(recipe: Recipe) -> str:
    """Return the name of the optimizer's implementation, which is stored in the record."""
    return "foreach" if recipe.optimizer == "rmsprop" else "fused"
