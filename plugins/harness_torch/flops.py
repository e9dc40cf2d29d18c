"""Bounds on the number of floating-point operations of a network, counted by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import harness

OPERATIONS_PER_VALUE = 5
"""Upper bound on the number of operations per value read or written, for operators other than matrix products and
convolutions. Layer normalization and softmax need about four."""
_COMBINES = {torch.ops.aten.cat, torch.ops.aten.stack}
"""Operators that read several matrices, but do not multiply them."""


def bounds(forward: Callable[..., Any], inputs: Mapping[str, torch.Tensor]) -> tuple[float, float]:
    """Return bounds on the number of operations of a forward pass; see `harness.Session.flops_bounds`.

    `torch.utils.flop_counter.FlopCounterMode` counts matrix products and convolutions, which is the lower bound. The
    upper bound adds `OPERATIONS_PER_VALUE` operations for each value that other operators read or write. The counter
    does not support fused attention and recurrent layers, which are therefore replaced by equivalent products. Raises
    `harness.UnsupportedError` if the network uses another operator that may contain products.
    """
    products = FlopCounterMode(display=False)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.mkldnn.flags(enabled=False, allow_tf32=None),
        _OtherOperators(products.flop_registry) as others,
        products,
    ):
        forward(**inputs)
    if others.unknown:
        raise harness.UnsupportedError(
            f"PyTorch does not count the operations of {', '.join(sorted(others.unknown))}, which the network uses"
        )
    low = float(products.get_total_flops())
    return low, low + OPERATIONS_PER_VALUE * others.values


class _OtherOperators(TorchDispatchMode):
    """Count of the floating-point values that operators outside of `registry` read and write."""

    def __init__(self, registry: Mapping[Any, Any]) -> None:
        super().__init__()
        self._registry = registry
        self.values = 0
        self.unknown = set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        operator = func._overloadpacket
        if operator not in self._registry and not func.is_view:
            read, written = _floating(args, kwargs), _floating(result)
            self.values += sum(tensor.numel() for tensor in [*read, *written])
            matrices = [tensor for tensor in read if sum(size > 1 for size in tensor.shape) > 1]
            pointwise = torch.Tag.pointwise in func.tags or operator in _COMBINES
            if len(matrices) > 1 and not pointwise:
                self.unknown.add(str(operator))
        return result


def _floating(*values: Any) -> list[torch.Tensor]:
    leaves = tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
