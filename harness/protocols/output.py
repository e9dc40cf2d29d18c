"""What turns predictions into numbers, and tables into text: `Metric` and `Reporter`."""

from __future__ import annotations

from dataclasses import dataclass

from harness.types import Objective


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number computed from predictions.

    `function` is ``"module:callable"`` with the signature ``f(targets, outputs, info) -> float | None``: targets
    int64 ``[N]`` and outputs logits float32 ``[N, C]``; or both float64 ``[N, T]`` in the target's own unit.
    """

    name: str
    objective: Objective
    function: str
    higher_is_better: bool
    summary: str
    unit: str = ""
    """Empty for a share between 0 and 1; ``target`` for the target's own unit."""


@dataclass(frozen=True, kw_only=True)
class Reporter:
    """A format of ``harness report``. `render` is ``"module:callable"``: ``f(table) -> str``."""

    name: str
    render: str
    summary: str
