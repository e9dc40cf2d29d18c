"""The interfaces for metrics, report formats and experiment trackers: `Metric`, `Reporter` and `Tracker`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.records import Objective


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number computed from targets and predictions.

    Notes
    -----
    A metric's function is called as ``f(targets, outputs, info)``, where `info` is a `harness.DataInfo`. The function
    returns a float within `bounds`, or None if the metric is undefined. A run fails if the function returns any other
    value. A task's primary metric must be defined for the test split. The arrays are read-only. The shapes and dtypes
    of the arrays depend on the objective:

    - ``classification``: int64 class indices ``[N]`` and float32 logits ``[N, C]``.
    - ``regression``: float64 targets and predictions, both ``[N, T]``, in the target's unit.
    - ``token_classification``: int64 class indices ``[N, L]``, with `harness.IGNORED` at positions without a target,
      and float32 logits ``[N, L, C]``.

    If `streaming` is true, the function is called as ``f(info)`` instead, and returns an object with two methods.
    ``update(targets, outputs)`` is called for each batch of consecutive examples, with arrays as described above.
    ``compute()`` is called once, after the last batch, and returns the value. A new object is created for each split
    and slice. A run whose metrics are all streaming neither keeps the outputs of a whole split in memory nor stores
    them.
    """

    name: str
    """Name of the metric, as listed in `Task.metrics`."""
    objective: Objective
    """Objective to which the metric applies."""
    function: str
    """Location of the function, in the form ``"module:callable"``."""
    higher_is_better: bool
    """True if higher values are better, False for errors and losses."""
    summary: str
    """One-line description."""
    unit: str = ""
    """Unit of the metric's values. An empty string denotes a fraction between 0 and 1, and ``target`` the unit of the
    target. Other values are names of units."""
    bounds: tuple[float | None, float | None] = (None, None)
    """Minimum and maximum of the metric's values. None indicates that there is no bound."""
    title: str = ""
    """Title of the metric's column in tables, without the unit. The default is `name` with underscores replaced by
    spaces."""
    in_tables: bool = False
    """True to include a column for the metric in the comparison table even if the metric is not the task's primary
    metric."""
    per_example: str = ""
    """Location of a function that returns the value of each example, in the form ``"module:callable"``. The string is
    empty if the metric is not a mean over examples. The function is called with the same arguments as `function` and
    returns a float array ``[N]`` of finite numbers. The mean of the numbers must be the value of the metric. If the
    function is specified, confidence intervals are available for the metric, and two runs can be compared example by
    example. For a streaming metric, the function is called for each batch."""
    streaming: bool = False
    """True if `function` returns an object that computes the metric batch by batch; see Notes."""

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", readable(self.name))


def readable(name: str) -> str:
    """Return the name of a metric with underscores replaced by spaces."""
    return name.replace("_", " ") if isinstance(name, str) else ""


@dataclass(frozen=True, kw_only=True)
class Reporter:
    """An output format for ``harness report``."""

    name: str
    """Name of the format, as passed to ``--format``."""
    render: str
    """Location of the rendering function, in the form ``"module:callable"``. By default, the function is called as
    ``f(table)`` and returns a str. `takes` and `output` select a different argument and a different return value."""
    summary: str
    """One-line description."""
    takes: Literal["table", "report"] = "table"
    """Argument that the function takes: ``table`` for a `harness.Table`, ``report`` for a `harness.Report`, which also
    contains the runs."""
    output: Literal["text", "directory"] = "text"
    """Return value of the function: ``text`` for a str, or ``directory`` for an iterable of files. Each file is a tuple
    of a relative path, with ``/`` as the separator, and the content as bytes."""
    options: Mapping[str, str] = field(default_factory=dict)
    """One-line descriptions of the format's options, keyed by option name. Users set these options with
    ``--format-option OPTION=VALUE``. The values that were set are passed to the function as keyword arguments of type
    str."""


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """An experiment tracker, to which ``harness run --tracker`` and ``harness track`` log runs.

    Notes
    -----
    The function `listener` is called before the first run as ``f(results, options)``. `results` is the path of the
    results directory. `options` is a dict with the values (str) of the options that the user set. The function returns
    an object whose methods implement event hooks. The methods of this object are decorated with `harness.hookimpl`. The
    function raises `harness.UsageError` if a value is not valid. The function should not connect to a server. An error
    in this function prevents the runs from starting, but an error in a hook does not.

    For a stored run, ``harness track`` calls the same hooks in the same order and with the same arguments. Only the
    times (``time_s``) are estimated.
    """

    name: str
    """Name of the tracker, as passed to ``--tracker``."""
    listener: str
    """Location of the function that creates the event listener, in the form ``"module:callable"``."""
    summary: str
    """One-line description."""
    requires: Mapping[str, str] = field(default_factory=dict)
    """Modules that must be importable, with the requirement that installs each of them; see `Backend.requires`."""
    options: Mapping[str, str] = field(default_factory=dict)
    """One-line descriptions of the tracker's options, keyed by option name. Users set these options with ``--tracker
    NAME:OPTION=VALUE``."""
    check: str = ""
    """Location of a function that checks the options, in the form ``"module:callable"``, or an empty string.

    The function is called as ``f(results, options)`` before `listener`, with the same arguments. ``harness run
    --dry-run`` also calls the function. The function raises `harness.UsageError` if a value is not valid. The function
    must not write files or connect to a server. Part of plugin API 1.2.
    """
