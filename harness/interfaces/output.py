"""What turns predictions into numbers, and tables into text: `Metric` and `Reporter`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.records import Objective


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number computed from predictions.

    `function` is ``"module:callable"`` with the signature ``f(targets, outputs, info) -> float | None``: targets
    int64 ``[N]`` and outputs logits float32 ``[N, C]``; both float64 ``[N, T]`` in the target's own unit; or of token
    classification targets int64 ``[N, L]``, `harness.IGNORED` where none is asked for, and logits ``[N, L, C]``.
    """

    name: str
    objective: Objective
    function: str
    higher_is_better: bool
    summary: str
    unit: str = ""
    """Empty for a share between 0 and 1; ``target`` for the target's own unit."""
    bounds: tuple[float | None, float | None] = (None, None)
    """The least and the greatest value that it can have; None where there is no such value."""


@dataclass(frozen=True, kw_only=True)
class Reporter:
    """A format of ``harness report``."""

    name: str
    render: str
    """``"module:callable"``: ``f(table) -> str``, where `takes` and `output` say no other."""
    summary: str
    takes: Literal["table", "report"] = "table"
    """What it is called with: a `harness.Table`, or a `harness.Report`, which has the runs as well."""
    output: Literal["text", "directory"] = "text"
    """``directory``: it yields the files of a directory, as pairs of a relative path with ``/`` and bytes."""
