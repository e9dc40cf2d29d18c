"""The exceptions that harness raises.

::

    HarnessError                  base class; the message is written for the user
    |-- UsageError                the request is invalid (exit status 2)
    |   |-- UnknownNameError      unknown task, dataset, model, backend, metric, option, run ...
    |   `-- CombinationError      known names that cannot be combined
    |-- PluginError               a plugin failed to load or violates the plugin interface
    |-- RecordError               a record on disk cannot be read or written
    |-- DataError                 a dataset is missing, damaged or not as declared
    |-- BusyError                 another harness process is measuring on the device
    |-- UnsupportedError          this machine, device or backend cannot do what was requested
    `-- BadResultError            a run computed an unusable value (a non-finite loss)

If a run's process raises an `UnsupportedError` or a `BadResultError`, a `Failure` of the corresponding kind is
recorded.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SIMILAR = 0.7
"""Minimum similarity of a suggested name, as computed by `difflib.SequenceMatcher.ratio`."""
SHORTEST = 3
"""Longer names that start or end with an unknown name are suggested only if the unknown name has at least this
length."""


class HarnessError(Exception):
    """Base class of all exceptions defined by harness.

    The message states what is wrong and what to do. The command line prints the message without a traceback.

    Attributes
    ----------
    exit_status : int
        Exit status of a command that raises this error: 1, or 2 for invalid requests and broken plugins.
    """

    exit_status = 1


class UsageError(HarnessError):
    """Error raised if a request is invalid.

    Requests are checked before any run starts. Only a problem that depends on the prepared data may be found during a
    run: if a model with default options does not accept the data (`harness.Model.parameters`), the run fails with an
    error message.
    """

    exit_status = 2


class UnknownNameError(UsageError):
    """Error raised if a name is unknown. The message suggests the most similar known name or lists the known names.

    Parameters
    ----------
    kind : str
        Kind of name, such as ``"task"`` or ``"metric"``.
    name : str
        The unknown name.
    known : iterable of str
        All known names of this kind.
    hint : str, default=""
        Text appended to the message, such as the place where the name was found.

    Attributes
    ----------
    kind : str
        Kind of the name.
    name : str
        The unknown name.
    known : tuple of str
        The known names, sorted.
    near : str or None
        The suggested known name, or None if no known name is similar.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        self.near = _closest(name, self.known)
        if self.near is not None:
            advice = f"did you mean {self.near!r}?"
        elif self.known:
            advice = f"known: {', '.join(self.known[:30])}{' ...' if len(self.known) > 30 else ''}"
        else:
            advice = "none is known"
        super().__init__(f"unknown {kind} {name!r}; {advice}{' ' + hint if hint else ''}")


def _closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`, or None if no known name is similar.

    Letter case and the separators ``-``, ``_`` and space are ignored. A known name is considered similar if at least
    70% of its characters match. A known name is also considered similar if it is the only known name with the same
    letters, or the only known name that starts or ends with `name`. Settings such as ``recipe.epochs`` are compared
    only within their section, because a shared section name makes unrelated settings look similar.
    """

    def plain(text: str) -> str:
        return text.lower().replace("-", "_").replace(" ", "_")

    section, dot, key = plain(name).rpartition(".")
    names = {plain(each).removeprefix(section + dot): each for each in known if plain(each).startswith(section + dot)}
    similar = difflib.get_close_matches(key, names, n=1, cutoff=SIMILAR)
    swapped = [each for each in names if sorted(each) == sorted(key)]
    longer = [each for each in names if len(key) >= SHORTEST and (each.startswith(key) or each.endswith(key))]
    for candidates in (similar, swapped, longer):
        if len(candidates) == 1:
            return names[candidates[0]]
    return None


class CombinationError(UsageError):
    """Error raised if names are known but cannot be combined, such as an image model and a text task."""


class PluginError(HarnessError):
    """Error raised if a plugin cannot be loaded or violates the plugin interface."""

    exit_status = 2


class RecordError(HarnessError):
    """Error raised if a record on disk cannot be read or written. The message names the file."""


class DataError(HarnessError):
    """Error raised if a dataset is missing or damaged, or if it differs from its declaration."""


class BusyError(HarnessError):
    """Error raised if another harness process is measuring on the same device or executing the same runs."""


class UnsupportedError(HarnessError):
    """Error raised if this machine, device or backend does not support a request."""


class BadResultError(HarnessError):
    """Error raised if a run computes an unusable result, such as a non-finite loss."""
