"""What is compared: `prepare(request, weights)` of each module that `CONTENDERS` names makes one."""

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
"""By framework; the first is what the others are compared with, besides the harness."""
NEEDS = {"transformers.Trainer": ("transformers", "accelerate"), "Lightning": ("lightning",), "Keras fit": ("keras",)}


@dataclass(frozen=True)
class Contender:
    """One way to train and to predict, of a model that starts from given weights, over whole batches."""

    train: Callable[[Split, Any], float | None]
    """`train(split, order)`: one pass over the examples in that order. Returns the seconds of the loop where the call
    does more than that, such as building a trainer; None where the call is the loop."""
    infer: Callable[[Split], Any]
    """Predictions of all whole batches, ``[N, outputs]``."""
    weights: Callable[[], dict[str, Any]]
    """Canonical arrays."""


def weights_of(network: Network, request: SessionRequest, read: Callable[[Any], Any]) -> dict[str, Any]:
    shapes = {parameter.name: parameter.shape for parameter in request.parameters}
    return {
        name: binding.to_canonical(read(binding.variable), shapes[name]) for name, binding in network.bindings.items()
    }


def permuted(split: Split, order: Any, size: int) -> tuple[Mapping[str, Any], Any]:
    """Inputs and targets of the whole batches, in that order: peers get them beforehand."""
    order = order[: len(order) // size * size]
    return {name: array[order] for name, array in split.inputs.items()}, split.targets[order]
