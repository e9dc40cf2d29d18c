"""Options for checkpoints during training, and checkpoint information that is stored in the record of a run."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from harness.errors import UsageError

Unit = Literal["epochs", "steps", "seconds"]
_TEXT = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([a-z]*)")
_UNITS: dict[str, tuple[float, Unit]] = {
    **dict.fromkeys(("", "epoch", "epochs"), (1.0, "epochs")),
    **dict.fromkeys(("step", "steps"), (1.0, "steps")),
    **dict.fromkeys(("s", "second", "seconds"), (1.0, "seconds")),
    **dict.fromkeys(("min", "minute", "minutes"), (60.0, "seconds")),
    **dict.fromkeys(("h", "hour", "hours"), (3600.0, "seconds")),
}
_MAX_COUNT = 1e9


class Interval(Struct, frozen=True, kw_only=True):
    """Interval between two checkpoints."""

    count: float
    """Length of the interval. The length is positive, and is an integer unless `unit` is ``seconds``."""
    unit: Unit
    """Unit of `count`. An interval in seconds refers to elapsed time, including validation."""

    @property
    def text(self) -> str:
        """The interval as text, such as ``2 epochs``."""
        return f"{self.count:.10g} {self.unit.removesuffix('s') if self.count == 1 else self.unit}"


def interval(text: str) -> Interval:
    """Return the interval described by a text such as ``1`` (epochs), ``500steps`` or ``10min``.

    Raises `harness.UsageError` if the text is not an interval.
    """
    found = _TEXT.fullmatch(text.strip().lower())
    if found and found[2] in _UNITS:
        factor, unit = _UNITS[found[2]]
        count = factor * float(found[1])
        if 0 < count <= _MAX_COUNT and (unit == "seconds" or count.is_integer()):
            return Interval(count=count, unit=unit)
    raise UsageError(
        f"{text!r} is not an interval between checkpoints; pass a number of epochs such as 1, a number of steps such "
        "as 500steps, or a time such as 10min"
    )


class CheckpointPlan(Struct, frozen=True, kw_only=True):
    """Directory and interval of the checkpoints of a planned run."""

    directory: str
    """Absolute path of the directory for the checkpoints of this run. The directory need not exist."""
    every: Interval
    """Interval between checkpoints."""
    resume: bool = False
    """True to continue from the checkpoint in `directory`."""
    machine_cores: int | None = None
    """Number of cores available on the machine. With ``--jobs``, each run uses only some of these cores."""


class CheckpointUse(Struct, frozen=True, kw_only=True):
    """Checkpoints that a run wrote, and interruptions of the run.

    Checkpoints and interruptions affect neither the trained weights nor the scores.
    """

    every: Interval
    """Interval between checkpoints. A checkpoint is also written at the end of training."""
    written: int
    """Number of checkpoints that were written."""
    write_s: float
    """Time spent on writing checkpoints, in seconds. This time is not part of the training time."""
    resumed_at: list[int] = []
    """Number of completed training steps at each resumption of training. Steps after the last checkpoint before an
    interruption were executed again. Only the second execution of these steps is recorded. Peak memory and the
    durations of phases are measured only in the last process."""
    earlier_s: dict[str, float] = {}
    """Total duration, in seconds, of the phases ``train`` and ``validate`` in the interrupted processes, up to the
    checkpoints from which training was resumed. ``arrays.npz`` also contains the timed windows of the interrupted
    processes."""
    problems: list[str] = []
    """Reasons why checkpoints could not be written. Each reason is listed once."""
