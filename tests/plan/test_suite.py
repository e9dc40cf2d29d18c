"""Tests of suites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_plugin import FAST

from harness.analysis.compare.match import find
from harness.errors import UnknownNameError, UsageError
from harness.execute.runner import run_all
from harness.plan import suite
from harness.plan.expand import expand, expand_all
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records.store import Store

SUITE = """
backend = "toy-numpy"
threads = 1
seed = [3, 4]

[[run]]
task = ["toy-regress", "toy-classify"]

[[run]]
task = "toy-regress"
seed = 5
protocol = "quick"
repeat = 2
set = { "recipe.epochs" = 2, "dataset.examples" = 30 }
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(text)
    return path


def test_load_adds_shared_settings_to_each_run(tmp_path: Path, catalog: Catalog) -> None:
    selections = suite.load(write(tmp_path, SUITE))
    common: dict[str, Any] = {"backends": ("toy-numpy",), "threads": 1}
    first = Selection(tasks=("toy-regress", "toy-classify"), seeds=(3, 4), **common)
    overrides = ("recipe.epochs=2", "dataset.examples=30")
    second = Selection(tasks=("toy-regress",), seeds=(5,), protocol="quick", overrides=overrides, repeat=2, **common)
    assert selections == [first, second]
    assert expand_all(selections, catalog) == (*expand(first, catalog), *expand(second, catalog) * 2)


def test_protocol_publish_runs_three_seeds_and_five_repeats(tmp_path: Path, catalog: Catalog) -> None:
    text = 'protocol = "publish"\n[[run]]\ntask = "toy-regress"\nbackend = "toy-numpy"\n'
    specs = expand_all(suite.load(write(tmp_path, text)), catalog)
    assert [spec.seed for spec in specs] == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1, 2]
    assert {spec.protocol.name for spec in specs} == {"publish"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[run]", "not a valid TOML file"),
        ("", r"contains no runs; add a table \[\[run\]\]"),
        ('run = "x"', "contains no runs"),
        ("[[run]]\n", "run 1: Object missing required field `task`"),
        ('[[run]]\ntask = "a"\nseed = "b"', "run 1: Expected `int | array`"),
    ],
)
def test_load_invalid_file_raises(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        suite.load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'backends = "a"\n[[run]]\ntask = "a"',
            r"unknown key 'backends'; did you mean 'backend'\? \(in the file of .*toml",
        ),
        ('[[run]]\ntask = "a"\nmodle = "b"', r"unknown key 'modle'; did you mean 'model'\? \(in run 1 of"),
    ],
)
def test_load_unknown_key_suggests_a_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        suite.load(write(tmp_path, text))


def test_load_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read: No such file"):
        suite.load(tmp_path / "none.toml")


def test_find_returns_the_runs_of_a_suite(tmp_path: Path, catalog: Catalog, toy: Path) -> None:
    settings = "".join(f'"{setting.partition("=")[0]}" = {setting.partition("=")[2]}, ' for setting in FAST)
    text = f'[[run]]\ntask = "toy-regress"\nbackend = "toy-numpy"\nthreads = 1\nset = {{ {settings.rstrip(", ")} }}\n'
    path, results = write(tmp_path, text), tmp_path / "results"
    with pytest.raises(UsageError, match="harness run --suite"):
        find(str(path), results, discover)
    specs = expand_all(suite.load(path), catalog)
    other = expand(Selection(tasks=("toy-classify",), backends=("toy-numpy",), threads=1, overrides=FAST), catalog)
    run_all([*specs, *other], catalog, Store(results))
    assert [run.record.spec.task for run in find(str(path), results, discover)] == ["toy-regress"]
