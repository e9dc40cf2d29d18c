"""The exceptions that harness raises on purpose.

::

    HarnessError                  everything below; its text is meant for the user
    |-- UsageError                the request is wrong (exit status 2)
    |   |-- UnknownNameError      no such task, dataset, model, backend, metric, option, run ...
    |   `-- CombinationError      known names that do not go together
    |-- PluginError               a plugin could not be loaded, or broke its contract
    |-- RecordError               a record on disk cannot be read or written
    |-- DataError                 a dataset is missing, damaged or not what it claims to be
    |-- UnsupportedError          this machine, device or backend cannot do what was asked
    `-- BadResultError            a run computed something unusable (a non-finite loss)

`UnsupportedError` and `BadResultError` raised inside a worker become a `Failure` of that kind.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Base of every error that harness raises on purpose."""

    exit_status = 1


class UsageError(HarnessError):
    """The request is wrong: nothing was run."""

    exit_status = 2


class UnknownNameError(UsageError):
    """A name that nothing answers to; the message offers the nearest one that exists."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        near = difflib.get_close_matches(name, self.known, n=1, cutoff=0.5)
        if near:
            advice = f"did you mean {near[0]!r}?"
        elif self.known:
            advice = f"known: {', '.join(self.known[:30])}{' ...' if len(self.known) > 30 else ''}"
        else:
            advice = "none is known"
        super().__init__(f"unknown {kind} {name!r}; {advice}{' ' + hint if hint else ''}")


class CombinationError(UsageError):
    """Known names that do not go together, such as an image model for a text task."""


class PluginError(HarnessError):
    """A plugin could not be loaded or broke its contract."""

    exit_status = 2


class RecordError(HarnessError):
    """A record on disk cannot be read or written; the message names the file."""


class DataError(HarnessError):
    """A dataset is missing, damaged or not what it claims to be."""


class UnsupportedError(HarnessError):
    """This machine, device or backend cannot do what was asked."""


class BadResultError(HarnessError):
    """A run computed something unusable, such as a loss that is not finite."""
