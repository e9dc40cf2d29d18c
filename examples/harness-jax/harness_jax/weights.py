"""Conversion between canonical weights and the arrays of a JAX network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import harness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Weights:
    """The canonical parameters of a model, bound to the arrays of its network.

    Raises `harness.PluginError` if the bindings do not match the parameters of the model, or if two bindings share an
    array.
    """

    def __init__(
        self, network: harness.Network, parameters: Sequence[harness.Parameter], frozen: Collection[str] = ()
    ) -> None:
        bindings = network.bindings
        names = {parameter.name for parameter in parameters}
        keys = [binding.variable for binding in bindings.values()]
        problems = [f"no binding for {name}" for name in sorted(names - bindings.keys())]
        problems += [f"{name} is bound but is not a parameter of the model" for name in sorted(bindings.keys() - names)]
        problems += [f"two bindings share the array {key!r}" for key in sorted({k for k in keys if keys.count(k) > 1})]
        _refuse("the jax network does not implement the model", problems)
        self._pairs = [(parameter, bindings[parameter.name]) for parameter in parameters]
        self._frozen = frozenset(frozen)

    @property
    def decays(self) -> dict[str, bool]:
        """Mapping from the key of each trainable array to a bool value. The value is True if weight decay applies to
        the array."""
        return {binding.variable: parameter.decay for parameter, binding in self._pairs if parameter.trainable}

    def factors(self, by_name: Mapping[str, float]) -> dict[str, float]:
        """Return the learning rate factor of each trainable array, by key."""
        return {
            binding.variable: by_name.get(parameter.name, 1.0)
            for parameter, binding in self._pairs
            if parameter.trainable
        }

    def place(
        self, weights: Mapping[str, Array], device: Any, dtype: Any
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array], dict[str, jax.Array]]:
        """Copy canonical arrays to `device`, and return dicts of the trainable parameters, the running statistics and
        the frozen parameters.

        Raises `harness.PluginError` if a name or shape does not match the model.
        """
        shapes = {parameter.name: parameter.shape for parameter, _ in self._pairs}
        problems = [f"missing {name}" for name in shapes if name not in weights]
        problems += [f"unexpected {name}" for name in weights if name not in shapes]
        problems += [
            f"{name} has shape {tuple(array.shape)}, not {shapes[name]}"
            for name, array in weights.items()
            if name in shapes and tuple(array.shape) != shapes[name]
        ]
        _refuse("weights do not match the model", problems)
        placed: tuple[dict[str, jax.Array], dict[str, jax.Array], dict[str, jax.Array]] = {}, {}, {}
        for parameter, binding in self._pairs:
            own = np.asarray(binding.to_own(weights[parameter.name]), dtype)
            # Copy, because a training step would overwrite the caller's memory.
            array = jax.device_put(own, device, may_alias=False)
            place = 0 if parameter.trainable else 2 if parameter.name in self._frozen else 1
            placed[place][binding.variable] = array
        return placed

    def canonical(self, arrays: Mapping[str, Any]) -> dict[str, Array]:
        """Return copies of the given network arrays, with canonical names and shapes."""
        return {
            parameter.name: np.array(
                binding.to_canonical(np.asarray(arrays[binding.variable]), parameter.shape), order="C"
            )
            for parameter, binding in self._pairs
            if binding.variable in arrays
        }


def _refuse(what: str, problems: Sequence[str]) -> None:
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise harness.PluginError(f"{what}: {'; '.join(problems[:8])}{more}")
