"""How speed is measured: `Protocol`, and the three that go by a name."""

from __future__ import annotations

import math
from typing import NamedTuple

from msgspec import Struct


class Protocol(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every number of a measurement; see ``docs/measuring.md``."""

    name: str = "standard"
    """The named protocol that the numbers were taken from; single ones may have been changed."""
    window_s: float = 0.25
    """Target length of a timed window; the device is synchronised at its edges only. Of inference, at most a quarter of
    `budget_s`."""
    steady_windows: int = 10
    """Windows of steady state that a throughput needs at least."""
    steady_s: float = 2.5
    """Seconds of steady state that a throughput needs at least."""
    interval: float = 0.02
    """Sampling goes on until half of the 95% interval of the median is at most this share of the median ..."""
    budget_s: float = 5.0
    """... or until so much time has passed, in training beyond the recipe's own steps, and in inference."""
    latency_batches: int = 662
    """Batches timed one by one for latency (662 is what a p99 needs), unless the budget ends first."""
    latency_budget_s: float = 4.0
    target: float | None = None
    """Score on the validation split whose first reaching is timed; None: the dataset's own, where it has one."""

    def __post_init__(self) -> None:
        lengths = (self.window_s, self.steady_s, self.budget_s, self.latency_budget_s)
        if not all(0 < seconds < math.inf for seconds in lengths):
            raise ValueError("window_s, steady_s, budget_s and latency_budget_s must be positive and finite")
        if self.steady_windows < 1 or self.latency_batches < 1:
            raise ValueError("steady_windows and latency_batches must be at least 1")
        if not 0 < self.interval <= 1:
            raise ValueError(f"interval must be a share, above 0 and at most 1, got {self.interval}")
        if self.target is not None and not math.isfinite(self.target):
            raise ValueError("target must be finite")


class NamedProtocol(NamedTuple):
    protocol: Protocol
    seeds: tuple[int, ...]
    """Taken unless seeds are asked for."""
    repeats: int
    """How often every run is done, in turns, unless that is asked for."""
    summary: str


PROTOCOLS = {
    "quick": NamedProtocol(
        Protocol(
            name="quick",
            window_s=0.1,
            steady_windows=5,
            steady_s=0.5,
            interval=0.05,
            budget_s=1.0,
            latency_batches=64,
            latency_budget_s=1.0,
        ),
        (0,),
        1,
        "a first look",
    ),
    "standard": NamedProtocol(Protocol(), (0,), 1, "to work with"),
    "publish": NamedProtocol(
        Protocol(
            name="publish",
            window_s=0.5,
            steady_windows=10,
            steady_s=10.0,
            interval=0.01,
            budget_s=60.0,
            latency_budget_s=30.0,
        ),
        (0, 1, 2),
        5,
        "what others will rely on",
    ),
}
