"""How speed is measured: `Protocol`, and the three that go by a name."""

from __future__ import annotations

import math
from typing import NamedTuple

from msgspec import Struct, field


class Protocol(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every number of a measurement; see ``docs/explanation/measurement.md``.

    Where a field has another name in files, records and the keys of runs keep that one.
    """

    name: str = "standard"
    """The named protocol that the numbers were taken from; single ones may have been changed."""
    window_s: float = 0.25
    """Target length of a timed window; the device is synchronized at its edges only. For inference, at most a quarter
    of `throughput_budget_s`."""
    min_steady_windows: int = field(default=10, name="steady_windows")
    """Least number of windows of steady state that a throughput is the median of."""
    min_steady_s: float = field(default=2.5, name="steady_s")
    """Least length of the steady state."""
    max_relative_half_width: float = field(default=0.02, name="interval")
    """Sampling goes on until half of the 95% interval of the median is at most this fraction of the median ..."""
    throughput_budget_s: float = field(default=5.0, name="budget_s")
    """... or until this time has passed: in training after the recipe's own steps, and in inference."""
    latency_batches: int = 662
    """Batches timed one by one for latency (662 is what a p99 needs), unless the budget ends first."""
    latency_budget_s: float = 4.0
    target: float | None = None
    """Score on the validation split whose first reaching is timed; None: the dataset's own, where it has one."""

    def __post_init__(self) -> None:
        lengths = (self.window_s, self.min_steady_s, self.throughput_budget_s, self.latency_budget_s)
        if not all(0 < seconds < math.inf for seconds in lengths):
            names = "window_s, min_steady_s, throughput_budget_s and latency_budget_s"
            raise ValueError(f"{names} must be positive and finite")
        if self.min_steady_windows < 1 or self.latency_batches < 1:
            raise ValueError("min_steady_windows and latency_batches must be at least 1")
        if not 0 < self.max_relative_half_width <= 1:
            raise ValueError(
                f"max_relative_half_width must be above 0 and at most 1, got {self.max_relative_half_width}"
            )
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
            min_steady_windows=5,
            min_steady_s=0.5,
            max_relative_half_width=0.05,
            throughput_budget_s=1.0,
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
            min_steady_windows=10,
            min_steady_s=10.0,
            max_relative_half_width=0.01,
            throughput_budget_s=60.0,
            latency_budget_s=30.0,
        ),
        (0, 1, 2),
        5,
        "what others will rely on",
    ),
}
