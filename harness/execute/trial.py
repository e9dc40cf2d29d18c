"""Load plugins in a child process before loading them in the parent, because a plugin that crashes in the parent would
terminate the command without an error message."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct

from harness.data.cache import cache_dir
from harness.errors import HarnessError, RecordError
from harness.plugins.code import digest
from harness.plugins.failures import PluginFailure
from harness.plugins.find import core
from harness.plugins.load import load
from harness.plugins.threads import limit_s, limit_text
from harness.records import Failure, PluginRef
from harness.records.files import write_whole
from harness.records.reading import load_named

# `harness.execute.child` is imported when a trial is needed, which is rare.
KNOWN = "plugins-tried.json"
"""Name of the cache file that contains the digests of code that has been loaded without crashing."""
MAX_KNOWN = 500
"""Maximum number of digests in the cache file."""


class TrialJob(Struct, frozen=True, kw_only=True):
    """Job for a child process that loads plugins."""

    plugins: tuple[PluginRef, ...]
    path: tuple[str, ...]
    """Value of `sys.path`."""
    arguments: tuple[str, ...]
    """Value of `sys.argv`, which a plugin may read."""


class Trying(Struct, frozen=True):
    """Event sent before a plugin is loaded, and sent again if loading the plugin exceeds the time limit."""

    index: int
    problem: str = ""


def crashing(refs: Sequence[PluginRef]) -> list[PluginFailure]:
    """Return the plugins that terminate the process or exceed the time limit when they are loaded, with the reason for
    each plugin.

    Code that has already been loaded successfully, as identified by its digest, is not loaded again. Plugins that raise
    exceptions are not included, because the parent can handle these exceptions.
    """
    known = _known()
    keys = {ref: _key(ref) for ref in refs if ref not in core()}
    untried = [ref for ref, key in keys.items() if key not in known]
    failures: list[PluginFailure] = []
    survived: list[str] = []
    while untried:
        done, message = _try(untried)
        survived += [keys[ref] for ref in untried[:done] if keys[ref]]
        if message:
            failures.append(PluginFailure(untried[done], message))
            done += 1
        untried = untried[done:]
    if survived:
        _keep([*known, *survived][-MAX_KNOWN:])
    return failures


def _try(refs: Sequence[PluginRef]) -> tuple[int, str]:
    """Load plugins in a child.

    Return the number of plugins that were loaded and a description of the problem with the next plugin. The description
    is "" if all plugins were loaded.
    """
    from harness.execute.child import call_in_child

    last = Trying(0)

    def on_event(event: Trying) -> None:
        nonlocal last
        last = event

    job = TrialJob(plugins=tuple(refs), path=tuple(sys.path), arguments=tuple(sys.argv))
    answer = call_in_child(
        load_each,
        job,
        timeout_s=limit_s() * (len(refs) + 1) + 60,
        environment={},
        event_type=Trying,
        on_event=on_event,
    )
    if not isinstance(answer, Failure):
        return len(refs), ""
    return last.index, last.problem or f"it terminated the process that loaded it: {answer.message}"


def load_each(job: TrialJob, context: object) -> None:
    """Load the plugins one after another."""
    from harness.execute.child import ChildContext

    assert isinstance(context, ChildContext)
    sys.path[:], sys.argv[:] = job.path, job.arguments
    for index, ref in enumerate(job.plugins):
        context.send(Trying(index))
        problems = [failure.message for failure in load([ref]).failures if failure.ref == ref]
        if problems == [limit_text("load", limit_s())]:
            context.send(Trying(index, problems[0]))
            # Terminate the process without cleanup, because the thread that is still loading the plugin may hold a
            # lock.
            os._exit(1)


def _key(ref: PluginRef) -> str:
    """Return a string that identifies a plugin's code and the Python interpreter.

    Return "" if the code cannot be read.
    """
    code = digest(ref.value)
    return (
        hashlib.sha256("\0".join((ref.value, code, sys.version, sys.executable)).encode()).hexdigest() if code else ""
    )


def _known() -> list[str]:
    with suppress(
        RecordError, RuntimeError
    ):  # raised if the file is missing or damaged, or if there is no home directory
        return load_named(cache_dir() / KNOWN, list[str])
    return []


def _keep(keys: Sequence[str]) -> None:
    """Write the known digests to the cache file. Errors are ignored, because the file is only a cache."""
    with suppress(OSError, RuntimeError, HarnessError):
        cache_dir().mkdir(parents=True, exist_ok=True)
        write_whole(cache_dir() / KNOWN, msgspec.json.encode(keys))
