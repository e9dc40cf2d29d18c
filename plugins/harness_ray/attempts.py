"""Attempts as the supervisor keeps them, and the messages about them that it sends to a command."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness import PlannedRun


@dataclass
class Running:
    """An attempt that is not lost and whose result was not collected."""

    run: PlannedRun
    node: str
    """Id of the node."""
    events: list[bytes] = field(default_factory=list)
    heard_at: float | None = None
    """Time of the last report, by the monotonic clock, or None before the first report."""
    files: dict[str, int] | None = None
    """Sizes of the files by name if the attempt is finished, otherwise None. They include `harness_ray.node.RESULT`."""


@dataclass(frozen=True)
class Update:
    """News about an attempt."""

    attempt: str
    index: int
    """Index of the run."""
    events: list[bytes]
    """New events, as JSON."""
    files: dict[str, int] | None
    """Sizes of the files by name if the attempt is finished, otherwise None."""


@dataclass(frozen=True)
class News:
    """Answer to a command that follows the runs."""

    updates: list[Update]
    messages: list[str]
    """New messages that do not belong to a run."""
    running: list[int]
    waiting: list[int]
    """Indices of the runs that are being executed, and of those that have not been started."""
