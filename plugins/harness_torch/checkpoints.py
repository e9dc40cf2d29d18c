"""Conversion between a session's state and the arrays of a checkpoint.

Names of the arrays:

- ``module.NAME``: parameters and buffers of the module, including those that are not trained.
- ``optimizer.INDEX.host.NAME`` and ``optimizer.INDEX.device.NAME``: optimizer state of a parameter, stored on the host
  or on the device. The settings of the optimizer are not stored, because they follow from the recipe.
- ``average.INDEX``: moving average of the weights.
- ``loss_scale`` and ``growth_steps``: dynamic loss scale, and the number of steps since it last changed.
- ``generator.cpu`` and ``generator.cuda``: states of the random number generators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import harness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

AVERAGE = "average."
_MODULE, _OPTIMIZER = "module.", "optimizer."
_CPU, _CUDA = "generator.cpu", "generator.cuda"
_SCALE, _GROWTH = "loss_scale", "growth_steps"


def state_of(
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    average: Sequence[torch.Tensor],
    device: torch.device,
) -> dict[str, Array]:
    """Return the arrays of a checkpoint."""
    state = {name: _array(tensor) for name, tensor in _lasting(module, average)}
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state[parameter].items():
            if value is not None:
                place = "host" if value.device.type == "cpu" else "device"
                state[f"{_OPTIMIZER}{index}.{place}.{name}"] = _array(value)
    if scaler is not None:
        scale = scaler.state_dict()
        state |= {_SCALE: np.array(scale["scale"]), _GROWTH: np.array(scale["_growth_tracker"])}
    state[_CPU] = _array(torch.get_rng_state())
    if device.type == "cuda":
        state[_CUDA] = _array(torch.cuda.get_rng_state(device))
    return state


def restore(
    state: Mapping[str, Array],
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    average: Sequence[torch.Tensor],
    device: torch.device,
) -> None:
    """Copy the arrays of a checkpoint into a session whose optimizer has no state yet.

    Raises `harness.PluginError` if the arrays do not match the session.
    """
    lasting = dict(_lasting(module, average))
    expected = set(lasting) | {_CPU} | ({_CUDA} if device.type == "cuda" else set())
    expected |= {_SCALE, _GROWTH} if scaler is not None else set()
    given = {name for name in state if not name.startswith(_OPTIMIZER)}
    problems = [f"missing {name}" for name in sorted(expected - given)]
    problems += [f"unexpected {name}" for name in sorted(given - expected)]
    problems += [
        f"{name} has shape {state[name].shape}, not {tuple(tensor.shape)}"
        for name, tensor in lasting.items()
        if name in state and state[name].shape != tuple(tensor.shape)
    ]
    parameters = _parameters(optimizer)
    entries = [(name, name.removeprefix(_OPTIMIZER).split(".", 2)) for name in state if name.startswith(_OPTIMIZER)]
    problems += [f"unexpected {name}" for name, (index, *_) in entries if int(index) >= len(parameters)]
    if problems:
        raise harness.PluginError(f"the state does not match the session: {'; '.join(problems[:8])}")
    with torch.no_grad():
        for name, tensor in lasting.items():
            tensor.copy_(_tensor(state[name]))
    for name, (index, place, own) in entries:
        parameter, value = parameters[int(index)], _tensor(state[name])
        if place == "device":
            value = value.to(device)
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        optimizer.state[parameter][own] = value
    if scaler is not None:
        scale = {"scale": float(state[_SCALE]), "_growth_tracker": int(state[_GROWTH])}
        scaler.load_state_dict(scaler.state_dict() | scale)
    torch.set_rng_state(_tensor(state[_CPU]))
    if device.type == "cuda":
        torch.cuda.set_rng_state(_tensor(state[_CUDA]), device)


def _lasting(module: torch.nn.Module, average: Sequence[torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors that exist at every step, by name."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        yield _MODULE + name, tensor.detach()
    for index, tensor in enumerate(average):
        yield f"{AVERAGE}{index}", tensor


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _array(tensor: torch.Tensor) -> Array:
    return np.array(tensor.detach().cpu().numpy(), order="C")


def _tensor(array: Array) -> torch.Tensor:
    """Return a copy of an array as a tensor on the host."""
    return torch.from_numpy(np.array(array, order="C"))
