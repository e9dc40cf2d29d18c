"""Float64 implementations of the optimizers of `harness.Recipe`, used by parity checks to predict training steps.

The formulas are given in the docstring of `harness.Recipe`. The sources of the formulas are as follows:

- Momentum and Nesterov momentum: Sutskever et al. 2013, "On the importance of initialization and momentum in deep
  learning". The velocity does not include the learning rate, which is applied afterwards.
- RMSProp: as in Hinton's lecture 6e (2012). The decay rate is 0.99, and epsilon is added outside the square root.
- Adam: Kingma and Ba 2015, algorithm 1.
- Decoupled weight decay: Loshchilov and Hutter 2019, algorithms 1 and 2. The learning rate includes the schedule
  multiplier.
- Adagrad: Duchi et al. 2011, figure 1, with an epsilon outside the square root.
- Lion: Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2.
- LAMB: You et al. 2020, "Large batch optimization for deep learning", algorithm 2, with the identity function as phi.
- Clipping by the global norm: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", with 1e-6
  added to the denominator, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.records import Recipe

Array = NDArray[Any]

_RMSPROP_DECAY = 0.99
_CLIP_EPSILON = 1e-6


class Change(NamedTuple):
    """The change in one parameter in one step."""

    value: Array
    """New value minus old value, in float64."""
    doubt: Array
    """Upper bound on the error in each element of `value` that is caused by rounding errors in the gradients."""


class ReferenceOptimizer:
    """An optimizer that predicts the change in the weights in each step.

    The optimizer stores the moments, but the caller provides the weights before each step. Therefore, only the errors
    in the moments accumulate from step to step.
    """

    def __init__(
        self, recipe: Recipe, decayed: Collection[str], factors: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Start with an empty state.

        `decayed` contains the names of the parameters to which weight decay applies. `factors` contains the learning
        rate factors that differ from 1.
        """
        self._recipe = recipe
        self._decayed = frozenset(decayed)
        self._factors = factors
        self._step = 0
        self._state: dict[str, dict[str, Array]] = {}

    def step(
        self,
        weights: Mapping[str, Array],
        gradients: Mapping[str, Array],
        noise: Mapping[str, Array],
        learning_rate: float,
        clipping: float = 1.0,
    ) -> dict[str, Change]:
        """Return the change of each parameter.

        Parameters
        ----------
        weights : mapping of str to ndarray
            Weights before the step, by name.
        gradients : mapping of str to ndarray
            Gradients of the loss at these weights, before clipping.
        noise : mapping of str to ndarray
            Rounding errors in the gradients.
        learning_rate : float
            Learning rate of this step.
        clipping : float, default=1.0
            Factor by which clipping scales the gradients.

        Returns
        -------
        dict of str to Change
            Changes, by name.
        """
        self._step += 1
        return {
            name: self._changed(
                name,
                np.asarray(weights[name], np.float64),
                clipping * np.asarray(gradient, np.float64),
                clipping * noise[name],
                learning_rate * self._factors.get(name, 1.0),
            )
            for name, gradient in gradients.items()
        }

    def _changed(self, name: str, p: Array, g: Array, noise: Array, a: float) -> Change:
        recipe, is_decayed = self._recipe, name in self._decayed
        change = self._step_of(name, p, regularized(recipe, g, p) if is_decayed else g, noise, a)
        if is_decayed and is_decoupled(recipe) and recipe.optimizer != "lamb":
            return Change(change.value - a * recipe.weight_decay * p, change.doubt)
        return change

    def _step_of(self, name: str, p: Array, g: Array, noise: Array, a: float) -> Change:
        """Return the change without decoupled weight decay. LAMB is an exception: its weight decay is part of the
        update direction and is therefore included."""
        recipe, t = self._recipe, self._step
        match recipe.optimizer:
            case "sgd":
                return self._sgd(name, g, noise, a)
            case "adagrad":
                state = self._state.setdefault(name, {"square": np.zeros_like(g)})
                state["square"] = state["square"] + g * g
                return _adaptive(g, np.sqrt(state["square"]) + recipe.epsilon, noise, a)
            case "lion":
                return self._lion(name, g, noise, a)
            case "rmsprop":
                square = self._average(name, "square", _RMSPROP_DECAY, g * g)
                size = np.sqrt(square) + recipe.epsilon
                return _adaptive(g, size, noise, a)
            case "adam" | "adamw" | "lamb":
                mean = self._average(name, "mean", recipe.beta1, g) / (1 - recipe.beta1**t)
                square = self._average(name, "square", recipe.beta2, g * g) / (1 - recipe.beta2**t)
                noise = self._average(name, "noise", recipe.beta1, noise) / (1 - recipe.beta1**t)
                change = _adaptive(mean, np.sqrt(square) + recipe.epsilon, noise, a)
                w = recipe.weight_decay if name in self._decayed else 0.0
                return change if recipe.optimizer != "lamb" else _with_trust_ratio(change, p, w, a)

    def _lion(self, name: str, g: Array, noise: Array, a: float) -> Change:
        beta1, beta2 = self._recipe.beta1, self._recipe.beta2
        state = self._state.setdefault(name, {"momentum": np.zeros_like(g), "noise": np.zeros_like(g)})
        mixed = beta1 * state["momentum"] + (1 - beta1) * g
        uncertain = np.abs(mixed) <= beta1 * state["noise"] + (1 - beta1) * noise
        state["momentum"] = beta2 * state["momentum"] + (1 - beta2) * g
        state["noise"] = beta2 * state["noise"] + (1 - beta2) * noise
        return Change(-a * np.sign(mixed), np.where(uncertain & (mixed != 0), 2 * a, 0.0))

    def _sgd(self, name: str, g: Array, noise: Array, a: float) -> Change:
        momentum = self._recipe.momentum
        state = self._state.setdefault(name, {"velocity": np.zeros_like(g), "noise": np.zeros_like(g)})
        state["velocity"] = momentum * state["velocity"] + g
        state["noise"] = momentum * state["noise"] + noise
        if self._recipe.nesterov:
            return Change(-a * (g + momentum * state["velocity"]), a * (noise + momentum * state["noise"]))
        return Change(-a * state["velocity"], a * state["noise"])

    def _average(self, name: str, kind: str, beta: float, value: Array) -> Array:
        state = self._state.setdefault(name, {})
        state[kind] = beta * state[kind] + (1 - beta) * value if kind in state else (1 - beta) * value
        return state[kind]


def is_decoupled(recipe: Recipe) -> bool:
    """Return True if weight decay is decoupled, that is, not added to the gradient."""
    return recipe.decoupled_decay or recipe.optimizer in ("adamw", "lion", "lamb")


def regularized(recipe: Recipe, gradient: Array, weights: Array) -> Array:
    """Return the clipped gradient of a parameter, plus the gradients of the penalties."""
    decay = 0.0 if is_decoupled(recipe) else recipe.weight_decay
    return gradient + decay * weights + recipe.l1 * np.sign(weights)


def _adaptive(mean: Array, size: Array, noise: Array, a: float) -> Change:
    """Return ``-a mean / size``, where `size` is the root mean square of the gradient plus epsilon.

    If the error of each gradient is at most `noise`, the errors of the mean and the root mean square are also at most
    `noise`. ``|u|``, where ``u = mean / size``, then changes by at most ``noise (1 + |u|) / size``.
    """
    u = np.divide(mean, size, out=np.zeros_like(mean), where=size > 0)
    doubt = np.divide(noise * (1 + np.abs(u)), size, out=np.zeros_like(mean), where=size > 0)
    return Change(-a * u, a * doubt)


def _with_trust_ratio(step: Change, p: Array, w: float, a: float) -> Change:
    """Return LAMB's step, which is computed from Adam's step.

    The errors of the elements of u are independent, so they change the norm of u by about the 2-norm of ``u noise``
    divided by ``|u|``.
    """
    if not a:
        return step
    u, doubt = step.value / -a + w * p, step.doubt / a
    size, weight = float(np.sqrt(np.sum(u * u))), float(np.sqrt(np.sum(p * p)))
    ratio = weight / size if size and weight else 1.0
    off = float(np.sqrt(np.sum((u * doubt) ** 2))) / size**2 if size and weight else 0.0
    return Change(-a * ratio * u, a * ratio * (doubt + off * np.abs(u)))


def clipping(gradients: Mapping[str, Array], limit: float | None) -> float:
    """Return the factor by which gradient clipping scales the gradients of all parameters."""
    return 1.0 if limit is None else min(1.0, limit / (global_norm(gradients) + _CLIP_EPSILON))


def global_norm(gradients: Mapping[str, Array]) -> float:
    """Return the global 2-norm of all gradients, in float64."""
    # Do not use BLAS, whose threads would compete with those of the backend.
    squares = (np.einsum("i,i->", array, array, dtype=np.float64) for array in map(np.ravel, gradients.values()))
    return float(np.sqrt(sum(map(float, squares))))
