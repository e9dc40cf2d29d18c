"""Tests of the line numbers of keys in TOML files."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.plan.toml_lines import Place, lines_of

TEXT = '''# a comment with key = 1 and [table]
title = "a # no comment"  # a comment
long = """
not = "a key"
[not.a.table]
ends with a quote: """"
literal = \'\'\'
no = 1
\'\'\'
a.b . "c.d" = 1
list = [
  1, # one
  "]", { x = [2,
    3] },
]
inline = { y = { z = 1 }, "recipe.epochs" = 2 }

[[run]]
task = 'nlp'
[run.set]
"recipe.batch_size" = [16, 32]
[[run]]
  task = ["a",
          "b"]  # trailing
'''


def test_lines_of_each_kind_of_key() -> None:
    lines = lines_of(TEXT)
    assert lines == {
        ("title",): 2,
        ("long",): 3,
        ("literal",): 7,
        ("a",): 10,
        ("a", "b"): 10,
        ("a", "b", "c.d"): 10,
        ("list",): 11,
        ("list", 0): 12,
        ("list", 1): 13,
        ("list", 2): 13,
        ("list", 2, "x"): 13,
        ("list", 2, "x", 0): 13,
        ("list", 2, "x", 1): 14,
        ("inline",): 16,
        ("inline", "y"): 16,
        ("inline", "y", "z"): 16,
        ("inline", "recipe.epochs"): 16,
        ("run",): 18,
        ("run", 0): 18,
        ("run", 0, "task"): 19,
        ("run", 0, "set"): 20,
        ("run", 0, "set", "recipe.batch_size"): 21,
        ("run", 0, "set", "recipe.batch_size", 0): 21,
        ("run", 0, "set", "recipe.batch_size", 1): 21,
        ("run", 1): 22,
        ("run", 1, "task"): 23,
        ("run", 1, "task", 0): 23,
        ("run", 1, "task", 1): 24,
    }
    assert set(lines) == set(places(tomllib.loads(TEXT)))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_lines_of_windows_line_ends(newline: str) -> None:
    assert lines_of(newline.join(["", "a = 1", "b = '''x", "y'''", "c = 2"])) == {("a",): 2, ("b",): 3, ("c",): 5}


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the places of all tables, keys and elements in a parsed document."""
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*place, key))


words = st.text(st.sampled_from("ab#[]{}=,.\"'\\\n é"), max_size=6)
scalars = st.one_of(
    words.map(json.dumps),
    words.map(lambda text: '"""' + text.replace("\\", "\\\\").replace('"', '\\"') + '"""'),
    words.map(lambda text: "'''" + text.replace("'", "") + "'''"),
    st.sampled_from(["1", "-1.5e3", "true", "1979-05-27 07:32:00", "inf", "0x1F"]),
)
gaps = st.sampled_from(["", " ", "\n", " # ] } , = ' \" comment\n"])
keys = st.one_of(st.sampled_from(["a", "b-1", "_"]), words.map(json.dumps))


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    parts = st.lists(st.tuples(gaps, values, gaps), max_size=3)
    return parts.map(lambda found: "[" + ",".join(map("".join, found)) + "]")


def tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    parts = st.dictionaries(keys, values, max_size=3)
    return parts.map(lambda found: "{" + ", ".join(f"{key} = {value}" for key, value in found.items()) + "}")


values = st.recursive(scalars, lambda inner: arrays(inner) | tables(inner), max_leaves=6)
statements = st.one_of(
    st.tuples(st.lists(keys, min_size=1, max_size=2), values).map(lambda it: f"{' . '.join(it[0])} = {it[1]}"),
    st.sampled_from(["[t]", "[t.u]", "[[run]]", "[run.set]", "[[run.more]]", "# comment = 1", ""]),
)


@given(st.lists(statements, max_size=8).map("\n".join))
def test_lines_of_has_the_places_that_tomllib_finds(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # for example a key that is defined twice
        return
    lines = lines_of(text)
    assert set(lines) == set(places(document))
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
