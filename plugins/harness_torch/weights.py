"""Conversion between canonical weights and the parameters of a PyTorch module."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import harness
from harness import Binding, Network, Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(frozen=True)
class BoundWeights:
    """The canonical parameters, bound to their tensors on the device."""

    pairs: Sequence[tuple[Parameter, Binding]]

    @property
    def trainable(self) -> list[torch.nn.Parameter]:
        return [binding.variable for parameter, binding in self.pairs if parameter.trainable]

    @property
    def decayed(self) -> list[torch.nn.Parameter]:
        return [binding.variable for parameter, binding in self.pairs if parameter.trainable and parameter.decay]

    @property
    def not_decayed(self) -> list[torch.nn.Parameter]:
        return [binding.variable for parameter, binding in self.pairs if parameter.trainable and not parameter.decay]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Tensors of all canonical arrays, including running statistics."""
        return [binding.variable.detach() for _, binding in self.pairs]

    def write(self, weights: Mapping[str, Array]) -> None:
        """Copy arrays into the tensors, converting them to the tensors' dtype.

        Raises `harness.PluginError` if a name or shape does not match the model.
        """
        shapes = {parameter.name: parameter.shape for parameter, _ in self.pairs}
        problems = [f"missing {name}" for name in shapes if name not in weights]
        problems += [f"unexpected {name}" for name in weights if name not in shapes]
        problems += [
            f"{name} has shape {tuple(array.shape)}, not {shapes[name]}"
            for name, array in weights.items()
            if name in shapes and tuple(array.shape) != shapes[name]
        ]
        _refuse("weights do not match the model", problems)
        with torch.no_grad():
            for parameter, binding in self.pairs:
                own = np.ascontiguousarray(binding.to_own(weights[parameter.name]))
                binding.variable.copy_(torch.from_numpy(own))

    def read(self) -> dict[str, Array]:
        """Return C-contiguous copies of the tensors, with canonical shapes and the same dtype."""
        return {
            parameter.name: _canonical(binding.variable.detach(), parameter, binding)
            for parameter, binding in self.pairs
        }

    def gradients(self, scale: float) -> dict[str, Array]:
        """Return the gradients of the last backward pass, divided by `scale`.

        The gradient of a parameter is zero if the loss does not depend on it.
        """
        gradients = {}
        for parameter, binding in self.pairs:
            if parameter.trainable:
                gradient = binding.variable.grad
                dense = torch.zeros_like(binding.variable) if gradient is None else gradient / scale
                gradients[parameter.name] = _canonical(dense, parameter, binding)
        return gradients


def _canonical(own: torch.Tensor, parameter: Parameter, binding: Binding) -> Array:
    return np.array(binding.to_canonical(own.cpu().numpy(), parameter.shape), order="C")


def place(
    network: Network, parameters: Sequence[Parameter], device: torch.device, dtype: torch.dtype = torch.float32
) -> BoundWeights:
    """Move the network's module to `device` and `dtype`, and bind the canonical parameters to its tensors.

    Raises `harness.PluginError` if a canonical parameter is not bound to a module parameter or buffer of the right
    shape, if a binding refers to an unknown parameter, or if a tensor that changes during training is not bound.
    """
    names = {id(tensor): name for name, tensor in _tensors(network.module)}
    _refuse("the torch network does not implement the model", _problems(network, parameters, names))
    # Moving a module to a device keeps its parameter objects, but creates new buffers.
    tensors = dict(_tensors(network.module.to(device, dtype)))
    return BoundWeights(
        [
            (parameter, dataclasses.replace(binding, variable=tensors[names[id(binding.variable)]]))
            for parameter in parameters
            for binding in (network.bindings[parameter.name],)
        ]
    )


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _problems(network: Network, parameters: Sequence[Parameter], names: Mapping[int, str]) -> list[str]:
    canonical = {parameter.name for parameter in parameters}
    problems = [f"{name} is bound but is not a parameter of the model" for name in network.bindings.keys() - canonical]
    bound = {id(binding.variable) for binding in network.bindings.values()}
    problems += [
        f"the module's {name} is trainable but has no binding"
        for name, tensor in network.module.named_parameters()
        if tensor.requires_grad and id(tensor) not in bound
    ]
    for parameter in parameters:
        binding = network.bindings.get(parameter.name)
        if binding is None:
            problems.append(f"{parameter.name} has no binding")
        elif id(binding.variable) not in names:
            problems.append(f"{parameter.name} is not bound to a parameter or buffer of the module")
        elif misfit := _misfit(parameter, binding):
            problems.append(f"{parameter.name} {misfit}")
    return sorted(problems)


def _misfit(parameter: Parameter, binding: Binding) -> str | None:
    own = tuple(binding.variable.shape)
    try:
        wanted = binding.to_own(np.empty(parameter.shape, np.float32)).shape
    except ValueError as error:
        return f"with shape {parameter.shape} cannot be converted by its binding: {error}"
    if wanted != own:
        return f"is converted to shape {wanted}, but its tensor has shape {own}"
    if parameter.trainable and not binding.variable.requires_grad:
        return "is trainable, but its tensor does not require a gradient"
    if binding.variable.requires_grad and not parameter.trainable:
        return "is not trainable, but its tensor requires a gradient"
    return None


def _refuse(what: str, problems: Sequence[str]) -> None:
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise harness.PluginError(f"{what}: {'; '.join(problems[:8])}{more}")
