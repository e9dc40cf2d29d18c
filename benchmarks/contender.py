"""The contenders in the comparison. Each module in `CONTENDERS` has a function `prepare(request, weights)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness import Network, SessionRequest, Split

CONTENDERS = {
    "torch": {
        "bare": "benchmarks.bare_torch",
        "transformers.Trainer": "benchmarks.peer_trainer",
        "Lightning": "benchmarks.peer_lightning",
    },
    "tensorflow": {"bare": "benchmarks.bare_tensorflow", "Keras fit": "benchmarks.peer_keras"},
}
"""Modules by framework and name. harness and the other contenders are compared with the first module."""
NEEDS = {"transformers.Trainer": ("transformers", "accelerate"), "Lightning": ("lightning",), "Keras fit": ("keras",)}
"""Packages that a contender requires."""


@dataclass(frozen=True)
class Contender:
    """Training and prediction loops over full batches."""

    train: Callable[[Split, Any], float | None]
    """Function `train(split, order)` that trains once on every example, in the given order. The function returns the
    duration of the training loop in seconds, or None if the whole call should be timed."""
    infer: Callable[[Split], Any]
    """Function that returns the predictions for all full batches, ``[N, outputs]``."""
    weights: Callable[[], dict[str, Any]]
    """Function that returns the current weights as canonical arrays."""


def weights_of(network: Network, request: SessionRequest, read: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the canonical weights of a network. `read` converts a variable to an array."""
    shapes = {parameter.name: parameter.shape for parameter in request.parameters}
    return {
        name: binding.to_canonical(read(binding.variable), shapes[name]) for name, binding in network.bindings.items()
    }


def permuted(split: Split, order: Any, size: int) -> tuple[Mapping[str, Any], Any]:
    """Return the inputs and targets of the full batches, in the given order."""
    order = order[: len(order) // size * size]
    return {name: array[order] for name, array in split.inputs.items()}, split.targets[order]
