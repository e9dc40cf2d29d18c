"""PyTorch networks, one file per model family, each with ``build(config, info, dropout) -> harness.Network``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import Binding

if TYPE_CHECKING:
    from torch import nn


def bindings(module: nn.Module) -> dict[str, Binding]:
    """Return bindings for the floating-point arrays in the ``state_dict`` of `module`, under the same names."""
    state = module.state_dict(keep_vars=True)
    return {name: Binding(tensor) for name, tensor in state.items() if tensor.is_floating_point()}
