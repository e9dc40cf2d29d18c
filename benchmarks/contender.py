"""The training and inference loops (*contenders*) that are compared. Each module in `CONTENDERS` defines a function
`prepare(request, weights)`."""

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
"""Modules, keyed by framework and name. The first module of each framework is the baseline."""
NEEDS = {"transformers.Trainer": ("transformers", "accelerate"), "Lightning": ("lightning",), "Keras fit": ("keras",)}
"""Packages that a contender requires."""


@dataclass(frozen=True)
class Contender:
    """Training and prediction loops over full batches."""

    train: Callable[[Split, Any], float | None]
    """Function `train(split, order)` that trains on every example once, in the given order. The function returns the
    duration of the training loop in seconds, or None if the whole call should be timed."""
    infer: Callable[[Split], Any]
    """Function that returns the predictions for all full batches, ``[N, outputs]``."""
    weights: Callable[[], dict[str, Any]]
    """Function that returns the current weights as canonical arrays."""


def weights_of(network: Network, request: SessionRequest, read: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the canonical weights of a network. The function `read` converts a variable to an array."""
    shapes = {parameter.name: parameter.shape for parameter in request.parameters}
    return {
        name: binding.to_canonical(read(binding.variable), shapes[name]) for name, binding in network.bindings.items()
    }


def permuted(split: Split, order: Any, size: int) -> tuple[Mapping[str, Any], Any]:
    """Return the inputs and targets in the given order, excluding the last batch if it is incomplete."""
    order = order[: len(order) // size * size]
    return {name: array[order] for name, array in split.inputs.items()}, split.targets[order]
