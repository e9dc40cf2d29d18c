"""Calls to report formats, with error messages that name the format and the faulty line."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.errors import HarnessError, PluginError
from harness.interfaces import Reporter
from harness.plugins import resolve
from harness.plugins.failures import described_with_place
from harness.report.report import Report


def render_text(reporter: Reporter, report: Report, options: Mapping[str, str]) -> str:
    """Return the text that a format with ``output="text"`` renders.

    Raises `harness.PluginError` if the format's function fails or does not return a str. A `harness.HarnessError`
    raised by the function is propagated.
    """
    with _failures_named(reporter):
        text = _call(reporter, report, options)
    if not isinstance(text, str):
        raise PluginError(
            f"the report format {reporter.name!r} is faulty: {reporter.render} returned {type(text).__name__}, but it "
            'must return a str, or the files of a directory if the Reporter sets output="directory"'
        )
    return text


def render_files(reporter: Reporter, report: Report, options: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield the files that a format with ``output="directory"`` renders, as pairs of a relative path and the content.

    Raises `harness.PluginError` if the format's function fails or yields anything else. A `harness.HarnessError` raised
    by the function is propagated.
    """
    with _failures_named(reporter):
        files = _call(reporter, report, options)
    if isinstance(files, str | bytes) or not isinstance(files, Iterable):
        raise _not_files(reporter, f"returned {type(files).__name__}")
    rest = iter(files)
    while True:
        with _failures_named(reporter):
            file = next(rest, None)
        if file is None:
            return
        match file:
            case (str() as path, bytes() as content):
                yield path, content
            case _:
                raise _not_files(reporter, f"yielded {_types(file)}")


def unaccepted_options(reporter: Reporter) -> list[str]:
    """Return the names in `Reporter.options` that the format's function does not accept as keyword arguments."""
    try:
        parameters = inspect.signature(resolve(reporter.render)).parameters.values()
    except (TypeError, ValueError):  # Functions that are written in C may have no signature.
        return []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return []
    by_keyword = [parameter.name for parameter in parameters if parameter.kind in _BY_KEYWORD]
    positional = next((parameter.name for parameter in parameters if parameter.kind in _BY_POSITION), None)
    return [name for name in reporter.options if name not in by_keyword or name == positional]


_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _call(reporter: Reporter, report: Report, options: Mapping[str, str]) -> Any:
    return resolve(reporter.render)(report if reporter.takes == "report" else report.table, **options)


def _types(file: Any) -> str:
    if not isinstance(file, tuple):
        return type(file).__name__
    return f"a tuple of {', '.join(type(part).__name__ for part in file) or 'nothing'}"


def _not_files(reporter: Reporter, problem: str) -> PluginError:
    return PluginError(
        f"the report format {reporter.name!r} is faulty: {reporter.render} {problem}, but it must yield tuples of a "
        "path (str) and the content (bytes), or return a str if the Reporter does not set output"
    )


@contextmanager
def _failures_named(reporter: Reporter) -> Iterator[None]:
    try:
        yield
    except (HarnessError, MemoryError):
        raise
    except Exception as error:
        raise PluginError(f"the report format {reporter.name!r} failed: {described_with_place(error)}") from error
