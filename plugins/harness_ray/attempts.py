"""Data classes for attempts, and for messages from the supervisor to a command."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness import PlannedRun


@dataclass
class Running:
    """An attempt that has not been lost and whose result has not been collected."""

    run: PlannedRun
    node: str
    """Id of the node."""
    events: list[bytes] = field(default_factory=list)
    started: bool = False
    """True after the first report. Before that, the task may be waiting for the resources of its node."""
    silent_s: float = 0.0
    """Time without a report, in seconds. Time during which the supervisor was suspended is not counted."""
    files: dict[str, int] | None = None
    """Size of each file, by file name. The value is None until the attempt has finished. The files include
    `harness_ray.node.RESULT`."""
    pruned: bool = False
    """True if the run is a trial that the command has pruned."""
    failure: bytes = b""
    """JSON content of the file `harness_ray.node.RESULT`, if the run failed and has no record."""


@dataclass(frozen=True)
class Update:
    """New information about an attempt."""

    attempt: str
    index: int
    """Index of the run."""
    events: list[bytes]
    """New events, as JSON."""
    files: dict[str, int] | None
    """Size of each file, by file name. The value is None until the attempt has finished."""


@dataclass(frozen=True)
class News:
    """Response to a command that monitors the runs."""

    updates: list[Update]
    messages: list[str]
    """New messages that are not related to a specific run."""
    running: list[int]
    waiting: list[int]
    """`running` contains the indices of the runs that are being executed. `waiting` contains the indices of the runs
    that have not started."""
