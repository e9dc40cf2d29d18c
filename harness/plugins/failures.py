"""One-line descriptions of the exceptions that a plugin's code raised."""

from __future__ import annotations

import re
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.records import PluginRef

_ABSTRACT = re.compile(r"Can't instantiate abstract class (?P<name>\w+) .*abstract (?P<methods>methods? .+)")


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that is not loaded, and the reason."""

    ref: PluginRef
    message: str


def describe(error: BaseException) -> str:
    """Return the type and message of an exception in one line, or the message alone for a `HarnessError`."""
    if isinstance(error, HarnessError):
        return str(error)
    if missing_methods := unwritten(error):
        return f"an abstract method is not implemented; write {missing_methods}"
    return f"{type(error).__name__}: {error}"


def unwritten(error: BaseException) -> str:
    """Return the abstract methods that a class does not implement, such as ``the method load of Sine``.

    They are read from the exception that Python raises when the class is instantiated; any other exception gives "".
    """
    match = _ABSTRACT.match(str(error)) if isinstance(error, TypeError) else None
    return f"the {match['methods']} of {match['name']}".replace("'", "") if match else ""


def place(error: BaseException) -> str:
    """Return the place in a plugin's code where an error arose, such as ``my_plugin.py, line 4, in load``, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name}" if own else ""


def described_with_place(error: BaseException) -> str:
    """Return `describe(error)`, followed by `place(error)` unless the error is a `HarnessError`."""
    where = "" if isinstance(error, HarnessError) else place(error)
    return f"{describe(error)} ({where})" if where else describe(error)


def _is_library(file: str) -> bool:
    """Return whether a file belongs to harness, an installed package or Python."""
    path = Path(file)
    inside = Path(__file__).parents[1] in path.parents or "site-packages" in path.parts
    return inside or file.startswith((sysconfig.get_path("stdlib"), "<"))
