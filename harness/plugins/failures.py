"""One-line descriptions of exceptions raised by plugins."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.plugins.requirements import DISTRIBUTION, install_command
from harness.records import PluginRef

FORMER = "harness"
"""Former name of the distribution `DISTRIBUTION`, which is used in older records."""
_NAME = re.compile(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", re.ASCII)
"""Name of a distribution (PEP 508)."""
MAX_TEXT = 10_000
"""Maximum length of an exception's text in a message."""
_ABSTRACT = re.compile(r"Can't instantiate abstract class (?P<name>\w+) .*abstract (?P<methods>methods? .+)")


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that was not loaded, and the reason."""

    ref: PluginRef
    message: str
    solution: str = ""
    """Instructions for loading the plugin. The string is empty if the message already contains instructions, or if no
    instructions are known."""


def not_loaded(wanted: Iterable[PluginRef], loaded: Iterable[PluginRef], failures: Iterable[PluginFailure]) -> str:
    """Return instructions for loading the plugins in `wanted` that are missing or whose loaded version differs.

    Return "" if all of them are loaded.
    """
    here = {ref.name: ref for ref in loaded}
    failed = {failure.ref.name: failure for failure in failures}
    texts = []
    for ref in wanted:
        origin = _origin(ref)
        if ref.name not in here:
            failure = failed.get(ref.name)
            why, solution = (f" ({failure.message})", failure.solution) if failure else ("", "")
            texts.append(f"plugin {ref.name!r} ({origin}) is not loaded{why}; {solution or _how_to_load(ref)}")
        elif (here[ref.name].distribution, here[ref.name].version) != (ref.distribution, ref.version):
            texts.append(f"plugin {ref.name!r} is from {_origin(here[ref.name])}, but the run used {origin}")
    return "; ".join(texts)


def _origin(ref: PluginRef) -> str:
    unpackaged = ref.distribution in ("file", "module")
    return f"{ref.distribution} {ref.value if unpackaged else ref.version}".strip()


def _how_to_load(ref: PluginRef) -> str:
    if ref.distribution == "file":
        return f"pass --plugin {ref.value} or another path to the file, or list it in HARNESS_PLUGINS"
    if ref.distribution == "module":
        return f"pass --plugin {ref.value}, or list it in HARNESS_PLUGINS"
    if ref.distribution in (DISTRIBUTION, FORMER):
        return f"remove it from HARNESS_DISABLE_PLUGINS, or install it again: {install_command(DISTRIBUTION)}"
    if not _NAME.fullmatch(ref.distribution):  # Records may come from untrusted sources.
        return f"install the distribution that contains {ref.value!r}"
    named = f", and pass --plugin {ref.value}" if ref.name == ref.value else ""
    return f"run: {install_command(ref.distribution)}{named}"


def describe(error: BaseException) -> str:
    """Return the type and message of an exception on one line. For a `HarnessError`, return only the message."""
    if isinstance(error, HarnessError):
        return _shortened(str(error))
    if missing_methods := unwritten(error):
        return f"an abstract method is not implemented; implement {missing_methods}"
    try:
        text = str(error)
    except Exception:  # An exception of a plugin may have no text.
        text = "the exception has no message"
    return f"{type(error).__name__}: {_shortened(text)}"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ..."


def unwritten(error: BaseException) -> str:
    """Return the abstract methods that a class does not implement, such as ``the method load of Sine``.

    The names are parsed from the exception that Python raises when an abstract class is instantiated. For any other
    exception, return "".
    """
    match = _ABSTRACT.match(str(error)) if isinstance(error, TypeError) else None
    return f"the {match['methods']} of {match['name']}".replace("'", "") if match else ""


def place(error: BaseException) -> str:
    """Return the location of an error in a plugin's code, such as ``my_plugin.py, line 4, in load``.

    If the location is unknown, return "".
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name}" if own else ""


def described_with_place(error: BaseException) -> str:
    """Return `describe(error)`, followed by `place(error)` unless the error is a `HarnessError`."""
    where = "" if isinstance(error, HarnessError) else place(error)
    return f"{describe(error)} ({where})" if where else describe(error)


def _is_library(file: str) -> bool:
    """Return True if a file is part of harness, an installed package or the Python standard library."""
    path = Path(file)
    inside = Path(__file__).parents[1] in path.parents or "site-packages" in path.parts
    return inside or file.startswith((sysconfig.get_path("stdlib"), "<"))
