"""PyTorch networks, one file a model family, each with ``build(config, info, dropout) -> harness.Network``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import Binding

if TYPE_CHECKING:
    from torch import nn


def bindings(module: nn.Module) -> dict[str, Binding]:
    """Every parameter and floating-point buffer of `module` that a checkpoint stores, under the module's own name."""
    state = module.state_dict(keep_vars=True)
    return {name: Binding(tensor) for name, tensor in state.items() if tensor.is_floating_point()}
