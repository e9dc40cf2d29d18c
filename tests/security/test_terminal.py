"""Tests that names, summaries and logs cannot control the terminal, and that data for programs are unchanged."""

from __future__ import annotations

import ast
import csv
import io
import json
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from command_line import Invoke, store
from harmful_text import harmful
from hypothesis import given
from hypothesis import strategies as st
from sample_records import comparison, failure, record

from harness.analysis.table import Cell, Column, Row, Table
from harness.cli import output
from harness.cli.progress import Live
from harness.errors import HarnessError
from harness.records import Failure, PhaseStarted
from harness.records.printing import clean, escape_json
from harness.report.csv_json import csv_text

ROOT = Path(__file__).parents[2]
EVIL = "a\x1b[2J\x1b]0;owned\x07\b\b\r\x7f\x9b31m\u202egnp\u2066x\u200f\x00\x85z"


@given(st.text(st.characters() | st.sampled_from(EVIL)))
def test_clean_text_has_no_harmful_character_and_can_be_encoded(text: str) -> None:
    shown = clean(text)
    assert harmful(shown) == []
    assert shown.count("\n") == text.count("\n")
    shown.encode()
    assert clean(shown) == shown


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs")) | st.just("\n")))
def test_clean_text_is_unchanged_if_it_is_harmless(text: str) -> None:
    assert clean(text) == text


@given(st.recursive(st.text(st.characters(exclude_categories=["Cs"])), st.lists))
def test_escaped_json_has_the_same_value(value: object) -> None:
    text = escape_json(msgspec.json.encode(value).decode())
    assert harmful(text) == []
    assert json.loads(text) == value


def evil_results(path: Path) -> Path:
    """Return a results directory whose records contain harmful text in every string that is not part of a key."""
    made = []
    for one in comparison():
        spec = msgspec.structs.replace(one.spec, dataset=EVIL + one.spec.dataset)
        environment = msgspec.structs.replace(one.environment, cpu=EVIL, os=EVIL, kernel=EVIL)
        outcome = one.outcome
        if isinstance(outcome, Failure):
            outcome = msgspec.structs.replace(outcome, message=EVIL, log_tail=f"{EVIL}\n{EVIL}")
        made.append(msgspec.structs.replace(one, spec=spec, environment=environment, outcome=outcome))
    made.append(record(msgspec.structs.replace(failure(), message=EVIL, log_tail=f"{EVIL}\n{EVIL}"), seed=9))
    store(path, made)
    return path


COMMANDS = [
    ("report",),
    ("report", "--format", "markdown"),
    ("report", "--format", "latex"),
    ("report", "--task", EVIL),
    ("history", "--all"),
    ("history", "--all", "--format", "json"),
    ("show", "s9"),
    ("show", "s9", "--format", "json"),
    ("show", EVIL),
    ("--debug", "show", EVIL),
    ("compare", "torch", "tensorflow"),
    ("compare", EVIL, "b"),
    ("bundle", "--output", f"{EVIL}/x"),
    (EVIL,),
    (f"--{EVIL}",),
    ("show", f"--{EVIL}"),
    ("show", "--format", EVIL, "x"),
    ("data", "info", EVIL),
    ("list", EVIL),
    ("run", "--task", EVIL),
    ("run", "--suite", EVIL),
    ("plugin", "check", EVIL),
    ("reproduce", EVIL),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=range(len(COMMANDS)))
def test_command_prints_nothing_harmful(arguments: tuple[str, ...], invoke: Invoke, tmp_path: Path) -> None:
    evil_results(tmp_path / "results")
    result = invoke(*(word.replace("\0", "") for word in arguments))  # no argument of a process contains it
    assert harmful(result.output) == []
    assert "Traceback" not in result.output or "--debug" in arguments
    assert "This is a bug" not in result.output


def test_error_of_a_plugin_is_cleaned(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise HarnessError(EVIL)

    monkeypatch.setattr("harness.plugins.discover", fail)
    result = invoke("list")
    assert result.exit_code == 1
    assert harmful(result.output) == []


def test_live_display_shows_nothing_harmful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harmful text must be gone; escape sequences of the display are rich's own."""
    shown = output.console()
    shown.file = io.StringIO()
    monkeypatch.setattr(type(shown), "is_terminal", True)
    live = Live(shown)
    spec = msgspec.structs.replace(record().spec, model=EVIL)
    live.run_started(1, 1, spec)
    live.event(1, spec, PhaseStarted(phase=EVIL))
    live.run_finished(1, 1, msgspec.structs.replace(record(failure()), spec=spec))
    live.close()
    written = shown.file.getvalue()
    assert "gnp" in written
    for part in ("\x1b[2J\x1b]0", "\x07", "\x9b", "\u202e", "\u2066", "\b", "\x00", "\x85"):
        assert part not in written


def test_markup_of_rich_in_names_is_shown_literally() -> None:
    from rich.text import Text

    shown = output.console()
    shown.file = io.StringIO()
    shown.print(Text("[link=file:///etc/passwd]x[/link]"))
    assert "[link=file:///etc/passwd]x[/link]" in shown.file.getvalue()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, _Terminal])
def test_data_are_exact_in_a_pipe_and_clean_on_a_terminal(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stream()
    monkeypatch.setattr("sys.stdout", out)
    output.echo_data(EVIL, nl=False)
    assert (out.getvalue() == EVIL) == (stream is io.StringIO)
    assert bool(harmful(out.getvalue())) == (stream is io.StringIO)


def printed(tree: ast.AST) -> list[str]:
    """Return the calls that print without cleaning: print, click.echo, click.secho and rich's Console."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("print", "click.echo", "click.secho", "Console", "rich.print", "sys.stdout.write"):
                found.append(f"{name}, line {node.lineno}")
    return found


def test_only_the_printing_modules_print() -> None:
    allowed = {ROOT / "harness/cli/output.py", ROOT / "harness/records/printing.py"}
    for path in sorted((ROOT / "harness").rglob("*.py")):
        if path not in allowed:
            assert printed(ast.parse(path.read_text())) == [], path


# ---- CSV ------------------------------------------------------------------------------------------------------------


def table_of(cells: list[str]) -> Table:
    columns = (Column("name", "name", "", "text"), Column("other", "other", "", "text"))
    return Table(columns, tuple(Row({"name": Cell(cell, cell), "other": Cell("end", "end")}, ()) for cell in cells))


FORMULAS = [
    *("=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1", "\x00=1", "\u2028=1"),
    *(" \u200b\n=1", "\u200b=1", "\ufeff=1", "\uff1d1", "\uff20x"),
]
BREAKS = ["a\rb", "a\r\nb", "a\nb", 'a"b', "a,b", "a;b", "a\x85b", "a\u2028b", "'=1"]


@pytest.mark.parametrize(
    "cell", [*FORMULAS, "a\rb", "a\r\nb", "a\nb", 'a"b', "a,b", "a;b", "a\x85b", "a\u2028b", "'=1"]
)
def test_cell_is_one_field_of_one_row_for_every_reader(cell: str) -> None:
    text = csv_text(table_of(["before", cell, "after"]))
    for newline in ("", None):
        rows = list(csv.reader(io.StringIO(text, newline=newline)))
        assert [len(row) for row in rows] == [2] * 4
        assert [row[1] for row in rows[1:]] == ["end"] * 3
    for engine in ("c", "python"):
        frame = pd.read_csv(io.StringIO(text), engine=engine, dtype=str, keep_default_na=False)
        assert frame.shape == (3, 2)
        assert list(frame["other"]) == ["end"] * 3


@pytest.mark.parametrize("cell", FORMULAS)
def test_formula_is_guarded(cell: str) -> None:
    (_, (shown, _)) = csv.reader(io.StringIO(csv_text(table_of([cell])), newline=""))
    assert shown.startswith("'")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_any_cells_give_one_row_each(cells: list[str]) -> None:
    rows = list(csv.reader(io.StringIO(csv_text(table_of(cells)), newline="")))
    assert len(rows) == len(cells) + 1
    assert not any(row[0].lstrip().startswith(("=", "+", "-", "@")) for row in rows[1:])
