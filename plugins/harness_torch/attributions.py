"""Attributions of a network's output to its inputs, computed by Captum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

import harness

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 64
"""Maximum number of examples per batch when computing the integral."""


def integrated_gradients(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    baselines: Mapping[str, torch.Tensor],
    outputs: torch.Tensor,
    steps: int,
) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Return the integrated gradients (Sundararajan, Taly and Yan 2017, arXiv:1703.01365); see
    `harness.Session.attributions`.

    The gradients are integrated along the straight line from the baseline to the input. For token ids, the line is in
    the embedding space, and the attributions are summed over the dimensions of each embedding. The integral is computed
    by Gauss-Legendre quadrature.
    """
    from captum.attr import IntegratedGradients, LayerIntegratedGradients

    changed = [name for name in inputs if not torch.equal(inputs[name], baselines[name])]
    if not changed:
        return {}, torch.zeros(len(outputs)).numpy()
    names = [*changed, *(name for name in inputs if name not in changed)]

    def forward(*values: torch.Tensor) -> torch.Tensor:
        return module(**dict(zip(names, values, strict=True)))

    target = [tuple(pair) for pair in outputs.tolist()] if outputs.ndim == 2 else outputs
    shared = {
        "additional_forward_args": tuple(inputs[name] for name in names[len(changed) :]),
        "target": target,
        "n_steps": steps,
        "internal_batch_size": max(BATCH, len(outputs)),
        "return_convergence_delta": True,
    }
    # cuDNN does not compute the gradients of recurrent layers in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        if all(inputs[name].is_floating_point() for name in changed):
            given = tuple(inputs[name] for name in changed)
            reference = tuple(baselines[name] for name in changed)
            found, deltas = IntegratedGradients(forward).attribute(given, baselines=reference, **shared)
        elif len(changed) == 1:
            (name,) = changed
            layer = _embedding(module, inputs, name)
            explainer = LayerIntegratedGradients(forward, layer)
            by_unit, deltas = explainer.attribute((inputs[name],), baselines=(baselines[name],), **shared)
            by_unit = by_unit[0] if isinstance(by_unit, tuple) else by_unit
            found = (by_unit.sum(dim=-1),)
        else:
            raise harness.UnsupportedError(
                f"integrated gradients are not supported for models with several integer inputs: {', '.join(changed)}"
            )
    values = {name: each.detach().float().cpu().numpy() for name, each in zip(changed, found, strict=True)}
    return values, deltas.detach().float().cpu().numpy()


def _embedding(module: torch.nn.Module, inputs: Mapping[str, torch.Tensor], name: str) -> torch.nn.Module:
    """Return the embedding layer that is applied to an input. Raises `harness.UnsupportedError` unless there is exactly
    one such layer.
    """
    found: list[torch.nn.Module] = []

    def note(layer: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if arguments and arguments[0].shape == inputs[name].shape and torch.equal(arguments[0], inputs[name]):
            found.append(layer)

    handles = [
        layer.register_forward_pre_hook(note) for layer in module.modules() if isinstance(layer, torch.nn.Embedding)
    ]
    try:
        with torch.no_grad():
            module(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    if len(found) != 1:
        raise harness.UnsupportedError(
            f"integrated gradients require exactly one torch.nn.Embedding that is applied to {name!r}, but the network "
            f"has {len(found)}"
        )
    return found[0]
