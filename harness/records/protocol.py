"""`Protocol`, the measurement settings, and the named protocols quick, standard and publish."""

from __future__ import annotations

import math
from typing import NamedTuple

from msgspec import Struct, field


class Protocol(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Measurement settings; see ``docs/explanation/measurement.md``.

    Some fields are stored under different names to keep run keys stable. The constructor raises `ValueError` if a value
    is out of range.
    """

    name: str = "standard"
    """Name of the protocol that provides the default values. Individual values may be overridden."""
    window_s: float = 0.25
    """Target duration of a timed window, in seconds. The device is synchronized only at window boundaries. Inference
    windows last at most a quarter of `throughput_budget_s`."""
    min_steady_windows: int = field(default=10, name="steady_windows")
    """Minimum number of windows in the steady state."""
    min_steady_s: float = field(default=2.5, name="steady_s")
    """Minimum duration of the steady state, in seconds."""
    max_relative_half_width: float = field(default=0.02, name="interval")
    """Maximum half-width of the median's within-run range, as a fraction of the median. Sampling ends when the range is
    narrower than this limit or the time limit is reached. The within-run range measures the variation between
    windows."""
    throughput_budget_s: float = field(default=5.0, name="budget_s")
    """Time limit for sampling, in seconds. For inference, the limit applies to all windows. For training, the limit
    applies only to the windows measured after all steps of the recipe."""
    latency_batches: int = 662
    """Number of batches timed individually to measure latency. The 99th percentile requires 662 batches. Fewer batches
    are timed if `latency_budget_s` is exceeded."""
    latency_budget_s: float = 4.0
    """Time limit for the latency measurement, in seconds."""
    target: float | None = None
    """Target for the validation score, used to measure time to target.

    If None, the target of the dataset is used. If the dataset has no target, time to target is not measured.
    """
    save_outputs: bool = False
    """True to store the outputs of the validation and test splits even if all metrics are computed batch by batch
    (`harness.Metric.streaming`). If any metric is not computed batch by batch, the outputs are always stored."""

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
    """A protocol with its default seeds and number of repeats."""

    protocol: Protocol
    """Measurement settings."""
    seeds: tuple[int, ...]
    """Default seeds."""
    repeats: int
    """Default number of times to execute each run. Repeats are interleaved."""
    summary: str
    """One-line description of the protocol's purpose."""


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
        "a quick estimate",
    ),
    "standard": NamedProtocol(Protocol(), (0,), 1, "everyday use"),
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
        "results to publish",
    ),
}
