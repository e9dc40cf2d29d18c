"""Selection of experiment trackers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from plugin_sources import Install

from harness.errors import PluginError, UsageError
from harness.plugins import load, trackers
from harness.plugins.catalog import Catalog
from harness.plugins.trackers import parse, with_trackers

SOURCE = """
import harness

class Board:
    def __init__(self, results, options):
        {body}
        self.made = results, options
    {hook}

@harness.hookimpl
def harness_trackers():
    yield harness.Tracker(
        name="board", listener=__name__ + ":Board", summary="", requires={requires}, options={{"url": "an URL"}},
        check=__name__ + ":check",
    )

def check(results, options):
    {check}
"""
HOOK = "@harness.hookimpl\n    def harness_run_started(self, spec): pass"


def catalog_with(
    install: Install, body: str = "pass", hook: str = HOOK, requires: object = None, check: str = "pass"
) -> Catalog:
    catalog = load([install(SOURCE.format(body=body, hook=hook, requires=requires or {}, check=check))])
    assert catalog.failures == ()
    return catalog


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ([], {}),
        (["a", "b"], {"a": {}, "b": {}}),
        (["a:url=http://h:5000/?x=1", "b", "a:name=x"], {"a": {"url": "http://h:5000/?x=1", "name": "x"}, "b": {}}),
    ],
)
def test_parse_choices_returns_options_by_tracker(choices: list[str], expected: object) -> None:
    assert parse(choices) == expected


@pytest.mark.parametrize("choice", ["a:", "a:url", "a:url=", "a:=x"])
def test_parse_option_without_name_or_value_raises(choice: str) -> None:
    with pytest.raises(UsageError, match="NAME:OPTION=VALUE"):
        parse([choice])


def test_parse_option_set_twice_raises() -> None:
    with pytest.raises(UsageError, match="option 'url' of the tracker 'a' is set twice"):
        parse(["a:url=x", "a:url=y"])


def test_with_trackers_creates_listener_with_absolute_results_and_options(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    catalog = catalog_with(install)
    assert not catalog.handles("harness_run_started")
    chosen = with_trackers(catalog, ["board:url=x"], Path("results"))
    (listener,) = chosen.listeners
    assert listener.module.made == (tmp_path / "results", {"url": "x"})
    assert (listener.ref.name, listener.kind) == ("board", "tracker")
    assert chosen.handles("harness_run_started")
    assert not chosen.handles("harness_steps_ended")
    assert chosen.plugins == catalog.plugins


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("bord", "unknown tracker 'bord'; did you mean 'board'?"),
        ("board:ulr=x", "unknown board tracker option 'ulr'; did you mean 'url'?"),
    ],
)
def test_with_trackers_unknown_name_raises(install: Install, choice: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        with_trackers(catalog_with(install), [choice], Path("results"))
    assert message in str(raised.value)


def test_with_trackers_missing_package_names_the_command(install: Install) -> None:
    catalog = catalog_with(install, requires={"no_such_board": "boards[all]"})
    with pytest.raises(UsageError, match=r"'board' cannot be used: no_such_board is not installed; run: pip install"):
        with_trackers(catalog, ["board"], Path("results"))


@pytest.mark.parametrize(
    ("body", "hook", "message"),
    [
        ("raise ValueError('no disk')", HOOK, "the tracker 'board' cannot be used: ValueError: no disk"),
        ("pass", "", "implements no event hook"),
        ("pass", "@harness.hookimpl\n    def harness_tasks(self): pass", "harness_tasks, which is not an event hook"),
        ("pass", "@harness.hookimpl\n    def harness_run_startet(self): pass", "which is not an event hook"),
    ],
)
def test_with_trackers_broken_listener_raises(install: Install, body: str, hook: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        with_trackers(catalog_with(install, body, hook), ["board"], Path("results"))


def test_with_trackers_invalid_value_is_a_usage_error(install: Install) -> None:
    catalog = catalog_with(install, body="raise harness.UsageError('not an URL')")
    with pytest.raises(UsageError, match="not an URL"):
        with_trackers(catalog, ["board"], Path("results"))


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        ("raise harness.UsageError(f'{options} in {results.is_absolute()}')", UsageError, "{'url': 'x'} in True"),
        ("raise ValueError('no disk')", PluginError, "the tracker 'board' cannot be used: ValueError: no disk"),
    ],
)
def test_check_of_an_invalid_value_raises_before_the_listener_is_created(
    check: str, error: type[Exception], message: str, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = catalog_with(install, body="print('created')", check=f"print('checked'); {check}")
    for refuse in (trackers.check, with_trackers):
        with pytest.raises(error, match=message):
            refuse(catalog, ["board:url=x"], Path("results"))
    assert capsys.readouterr() == ("", "checked\n" * 2)


def test_listener_output_does_not_reach_stdout(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    with_trackers(catalog_with(install, body="print('connected')"), ["board"], Path("results"))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "connected\n")
    assert sys.stdout is not sys.stderr
