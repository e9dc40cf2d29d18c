"""The optimizers of `harness.Recipe`. Optimizers from `torch.optim` are used if they match these definitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from harness import Recipe

_FUSED = ("sgd", "adam", "adamw")


def build_optimizer(
    recipe: Recipe,
    decayed: Iterable[torch.nn.Parameter],
    others: Iterable[torch.nn.Parameter],
    *,
    scaled: bool = False,
    factors: Mapping[int, float] | None = None,
) -> torch.optim.Optimizer:
    """Build the optimizer for `recipe`, applying weight decay and the L1 penalty only to `decayed`.

    Fused implementations compute the same update in a single pass. `scaled` is True if the optimizer is used with a
    `torch.amp.GradScaler`. With a GradScaler, the optimizer does not wait for the GPU to determine whether a gradient
    overflowed.

    `factors` maps parameter ids to learning-rate factors. The session multiplies the learning rate of each group by the
    group's ``factor`` entry.
    """
    decoupled = recipe.weight_decay if recipe.decoupled_decay else 0.0
    regularization = {"weight_decay": recipe.weight_decay - decoupled, "pull": (recipe.l1, decoupled)}
    none = {"weight_decay": 0.0, "pull": (0.0, 0.0)}
    groups: list[dict[str, Any]] = []
    for parameters, settings in ((decayed, regularization), (others, none)):
        by_factor: dict[float, list[torch.nn.Parameter]] = {}
        for parameter in parameters:
            by_factor.setdefault((factors or {}).get(id(parameter), 1.0), []).append(parameter)
        groups += [{"params": each, "factor": factor, **settings} for factor, each in by_factor.items()]
    kind, options = _kind(recipe)
    if recipe.l1 or decoupled:
        kind = type(f"Regularized{kind.__name__}", (Regularized, kind), {})
    if scaled and (recipe.optimizer not in _FUSED or recipe.l1 or decoupled):
        kind = type(f"Scaled{kind.__name__}", (Scaled, kind), {})
    optimizer: torch.optim.Optimizer = kind(groups, lr=recipe.learning_rate, **options)
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * group["factor"]
    if scaled and recipe.optimizer == "sgd" and recipe.momentum:
        # torch leaves the momentum uninitialized if the gradients of the first step overflow.
        for parameter in (each for group in groups for each in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _kind(recipe: Recipe) -> tuple[type[Any], dict[str, Any]]:
    """Return the optimizer's class and its arguments, except the parameter groups and the learning rate."""
    betas, epsilon = (recipe.beta1, recipe.beta2), recipe.epsilon
    match recipe.optimizer:
        case "sgd":
            # torch rejects nesterov without momentum. Without momentum, the update is plain SGD in any case.
            nesterov = recipe.nesterov and recipe.momentum > 0
            return torch.optim.SGD, {"momentum": recipe.momentum, "nesterov": nesterov, "fused": True}
        case "rmsprop":
            return torch.optim.RMSprop, {"alpha": 0.99, "eps": epsilon, "foreach": True}
        case "adam":
            return torch.optim.Adam, {"betas": betas, "eps": epsilon, "fused": True}
        case "adamw":
            return torch.optim.AdamW, {"betas": betas, "eps": epsilon, "fused": True}
        case "adagrad":
            return Adagrad, {"epsilon": epsilon}
        case "lion":
            return Lion, {"betas": betas}
        case "lamb":
            return Lamb, {"betas": betas, "epsilon": epsilon}


class _Foreach(torch.optim.Optimizer):
    """Base class of optimizers that update all parameters of a group with a few operations on lists of tensors."""

    names: tuple[str, ...]
    """Names of the moments, which are initialized to zero."""

    def __init__(self, groups: Any, *, lr: float, **defaults: Any) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, **defaults})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the parameters. `closure` is not supported."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for p in parameters:
                if not self.state[p]:
                    self.state[p] = {name: torch.zeros_like(p) for name in self.names}
                    # In float32, rounding errors of 1 - beta2 ** t would be larger than those of the step.
                    self.state[p]["step"] = torch.zeros((), dtype=torch.float64, device=p.device)
            if parameters:
                moments = [[self.state[p][name] for p in parameters] for name in self.names]
                steps = [self.state[p]["step"] for p in parameters]
                torch._foreach_add_(steps, 1)
                self._update(group, parameters, [p.grad for p in parameters], moments, steps)

    def _update(self, group: Any, parameters: Any, gradients: Any, moments: Any, steps: Any) -> None:
        raise NotImplementedError


class Adagrad(_Foreach):
    """Adagrad (Duchi et al. 2011), which does not read the step count on the host, unlike ``torch.optim.Adagrad``."""

    names = ("square",)

    def _update(self, group: Any, parameters: Any, gradients: Any, moments: Any, steps: Any) -> None:
        (square,) = moments
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        torch._foreach_addcmul_(square, gradients, gradients, value=1.0)
        sizes = torch._foreach_sqrt(square)
        torch._foreach_add_(sizes, group["epsilon"])
        torch._foreach_addcdiv_(parameters, gradients, sizes, value=-group["lr"])


class Lion(_Foreach):
    """Lion (Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2)."""

    names = ("momentum",)

    def _update(self, group: Any, parameters: Any, gradients: Any, moments: Any, steps: Any) -> None:
        (momentum,), (beta1, beta2), rate = moments, group["betas"], group["lr"]
        signs = torch._foreach_mul(momentum, beta1)
        torch._foreach_add_(signs, gradients, alpha=1 - beta1)
        torch._foreach_sign_(signs)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        torch._foreach_add_(parameters, signs, alpha=-rate)
        torch._foreach_mul_(momentum, beta2)
        torch._foreach_add_(momentum, gradients, alpha=1 - beta2)


class Lamb(_Foreach):
    """LAMB (You et al. 2020, "Large batch optimization for deep learning", algorithm 2) with the identity function as
    phi."""

    names = ("mean", "square")

    def _update(self, group: Any, parameters: Any, gradients: Any, moments: Any, steps: Any) -> None:
        (mean, square), (beta1, beta2) = moments, group["betas"]
        torch._foreach_mul_(mean, beta1)
        torch._foreach_add_(mean, gradients, alpha=1 - beta1)
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, gradients, gradients, value=1 - beta2)
        for p, m, s, step in zip(parameters, mean, square, steps, strict=True):
            size = (s / (1 - beta2**step)).sqrt_().add_(group["epsilon"])
            direction = (m / (1 - beta1**step)).div_(size)
            if group["weight_decay"]:
                direction.add_(p, alpha=group["weight_decay"])
            weight_norm, norm = torch.linalg.vector_norm(p), torch.linalg.vector_norm(direction)
            known = (weight_norm > 0) & (norm > 0)
            ratio = torch.where(known, weight_norm / torch.where(known, norm, 1.0), 1.0)
            p.sub_(direction.mul_(ratio), alpha=group["lr"])


class Regularized(torch.optim.Optimizer):
    """Mixin that adds the L1 penalty to the gradients and applies decoupled weight decay before each step."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the parameters. `closure` is not supported."""
        for group in self.param_groups:
            (l1, decay), parameters = group["pull"], [p for p in group["params"] if p.grad is not None]
            if l1 and parameters:
                torch._foreach_add_([p.grad for p in parameters], torch._foreach_sign(parameters), alpha=l1)
            if decay and parameters:
                torch._foreach_mul_(parameters, 1 - group["lr"] * decay)
        super().step()


class Scaled(torch.optim.Optimizer):
    """Mixin for `torch.amp.GradScaler` that skips a step without waiting for the GPU, like the fused optimizers.

    Without this mixin, GradScaler copies the overflow flag to the host. With this mixin, every step is performed, and
    the previous values are restored on the device if a gradient overflowed.
    """

    _step_supports_amp_scaling = True
    # GradScaler.step sets these attributes before each step and deletes them afterwards.
    grad_scale: torch.Tensor | None
    """Loss scale, or None if the gradients have already been divided by it."""
    found_inf: torch.Tensor | None
    """Flag that is zero if all gradients are finite."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the parameters if all gradients are finite. `closure` is not supported."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if self.grad_scale is not None:
            inverse = self.grad_scale.double().reciprocal().float()
            torch._foreach_mul_([p.grad for p in parameters], inverse)
        before = [p.clone() for p in parameters]
        states = [{name: value.clone() for name, value in self._on_device(p).items()} for p in parameters]
        assert self.found_inf is not None
        overflowed = self.found_inf.bool()
        # Optimizers in torch would divide the gradients again, or reject these two attributes.
        self.grad_scale = self.found_inf = None
        super().step()
        for parameter, value, state in zip(parameters, before, states, strict=True):
            torch.where(overflowed, value, parameter, out=parameter)
            for name, current in self._on_device(parameter).items():
                torch.where(overflowed, state.get(name, torch.zeros_like(current)), current, out=current)

    def _on_device(self, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
        """Return a parameter's state, excluding counters on the host, which do not affect any step."""
        return {
            name: value
            for name, value in self.state[parameter].items()
            if isinstance(value, torch.Tensor) and value.device == parameter.device
        }


def implementation(recipe: Recipe) -> str:
    """Return the name of the optimizer's implementation, which is stored in the record."""
    return "fused" if recipe.optimizer in _FUSED else "foreach"
