"""Tests of suites."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_plugin import FAST

from harness.analysis.compare.match import find
from harness.errors import UnknownNameError, UsageError
from harness.execute.runner import run_all
from harness.plan import suite
from harness.plan.expand import expand, expand_all
from harness.plan.overrides import as_overrides, combinations, parse_overrides
from harness.plan.selection import Selection
from harness.plan.suite import as_dimensions
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records.store import Store

ROOT = Path(__file__).parents[2]
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
    selections = suite.load(write(tmp_path, SUITE)).selections
    common: dict[str, Any] = {"backends": ("toy-numpy",), "threads": 1}
    first = Selection(tasks=("toy-regress", "toy-classify"), seeds=(3, 4), **common)
    overrides = ("recipe.epochs=2", "dataset.examples=30")
    second = Selection(tasks=("toy-regress",), seeds=(5,), protocol="quick", overrides=overrides, repeat=2, **common)
    assert selections == [first, second]
    specs, (other,) = expand(first, catalog), expand(second, catalog)
    assert expand_all(selections, catalog) == (
        *specs[:2],
        other,
        *specs[2:],
        other,
    )  # the runs of a task follow each other


def test_protocol_publish_runs_three_seeds_and_five_repeats(tmp_path: Path, catalog: Catalog) -> None:
    text = 'protocol = "publish"\n[[run]]\ntask = "toy-regress"\nbackend = "toy-numpy"\n'
    specs = expand_all(suite.load(write(tmp_path, text)).selections, catalog)
    assert [spec.seed for spec in specs] == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1, 2]
    assert {spec.protocol.name for spec in specs} == {"publish"}


ENTRY = '# a comment\n[[run]]\ntask = "a"\n'
"""Start of a suite. The next line is line 4."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[run]", r"not a valid TOML file: .*line 1"),
        ("", r"contains no runs; add a table \[\[run\]\]"),
        ('run = "x"', "contains no runs"),
        ("seed = 1\n[[run]]\n", r"toml:2: this entry selects no runs; set task or weights"),
        ('[[run]]\ntask = "a"\nseed = "b"', r"toml:3: seed: Expected `int | array"),
        ('seed = "b"\n[[run]]\ntask = "a"\n', r"toml:1: seed: Expected `int | array"),
        (ENTRY + "seed = []", r"toml:4: seed: Expected `array` of length >= 1"),
        ("budget_hours = inf\n[[run]]\ntask = 'a'", r"toml:1: budget_hours must be finite"),
        ("budget_hours = 0\n[[run]]\ntask = 'a'", r"toml:1: budget_hours: Expected `float` > 0"),
        ('protocol = "fast"\n[[run]]\ntask = "a"', r"toml:1: unknown protocol 'fast'; known: publish, quick, standard"),
        (ENTRY + "protocol = 1", r"toml:4: protocol: Expected `str`"),
        (ENTRY + "repeat = 0", r"toml:4: repeat: Expected `int` >= 1"),
        (ENTRY + 'matrix = "x"', r"toml:4: matrix: Expected `object"),
        (ENTRY + "[run.matrix]\n'recipe.epochs' = []", r"toml:5: 'recipe.epochs' in matrix requires a list of values"),
        (
            ENTRY + "matrix = { recipe.epochs = 16 }",
            r"toml:4: 'recipe.epochs' in matrix requires a list of values; write",
        ),
        (
            ENTRY + "[run.matrix]\nrecipe.epochs = [1]\n[run.set]\n'recipe.epochs' = 2",
            r"toml:5: 'recipe.epochs' is in both set and matrix",
        ),
        (
            ENTRY + "seed = [1, 2]\nexclude = [\n  { seed = 1 },\n  { seed = 3 },\n]",
            r"toml:7: seed = 3 matches no run; .* 1, 2",
        ),
        (ENTRY + "exclude = [{ 'recipe.epochs' = 1 }]", r"toml:4: 'recipe.epochs' is not in matrix"),
        (ENTRY + "exclude = [{ threads = 1 }]", r"toml:4: 'threads' has the same value in all runs"),
        (ENTRY + "set = { 'recipe.epochs' = 1, recipe.epochs = 2 }", r"toml:4: 'recipe.epochs' is set twice"),
        (ENTRY + "exclude = [{}]", r"toml:4: this combination has no keys"),
        (ENTRY + "include = [{ seed = 'x' }]", r"toml:4: seed: Expected `int"),
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
            r"toml:1: unknown key 'backends'; did you mean 'backend'\?$",
        ),
        ('task = "a"\n[[run]]\nseed = 1', r"toml:1: unknown key 'task'; .* \(set it in each \[\[run\]\]\)$"),
        (ENTRY + 'modle = "b"', r"toml:4: unknown key 'modle'; did you mean 'model'\?$"),
        (ENTRY + "include = [{ sed = 1 }]", r"toml:4: unknown key 'sed'; did you mean 'seed'\?$"),
    ],
)
def test_load_unknown_key_suggests_a_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        suite.load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[run]]\ntask = [\n "toy-regress",\n "toy-regres",\n]', r"toml:4: unknown task 'toy-regres'; did you mean"),
        ('backend = "toy-nump"\n[[run]]\ntask = "toy-regress"', r"toml:1: unknown backend 'toy-nump'"),
        ('[[run]]\ntask = "toy-regress"\n[run.set]\n"recipe.epoch" = 1', r"toml:4: unknown option 'recipe.epoch'"),
        ('[[run]]\ntask = "toy-regress"\nmatrix."recipe.epochs" = [1,\n 0]', r"toml:[34]: .*epochs"),
        (
            '[[run]]\ntask = "toy-regress"\nbackend = ["toy-numpy"]\nexclude = [{ backend = "toy-numpy" }]',
            r"toml:4: exclude matches all runs of this entry",
        ),
        ('[[run]]\ntask = "toy-regress"\nset = ["recipe=1"]\n', r"toml:3: invalid override 'recipe=1'"),
        ('[[run]]\ntask = "toy-regress"\n\nsplit = [1]\n', r"toml:4: dataset 'toy-numbers' has no numbered splits"),
        ('[[run]]\ntask = "toy-regress"\nthreads = 5000', r"toml:3: threads must be between"),
        ('[[run]]\ntask = "toy-regress"\nmodel = "resnt"\ninclude = [{ model = "nett" }]', r"toml:3: unknown model"),
    ],
)
def test_expand_all_names_the_line_of_an_invalid_value(tmp_path: Path, catalog: Catalog, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        expand_all(suite.load(write(tmp_path, text)).selections, catalog)


MATRIX = """
backend = ["toy-numpy", "toy-killed"]
seed = [0, 1]
budget_hours = 1.5

[[run]]
task = "toy-regress"
matrix = { "recipe.batch_size" = [8, 16], "recipe.optimizer" = ["sgd", "adam"] }
exclude = [
  { backend = "toy-killed", "recipe.batch_size" = 16 },
  { "recipe.optimizer" = "adam", seed = 1 },
]
include = [{ backend = "toy-numpy", seed = 7, "recipe.batch_size" = 32, "recipe.learning_rate" = 0.5 }]
set = { "recipe.epochs" = 2 }
"""


def test_matrix_exclude_and_include_select_combinations(tmp_path: Path, catalog: Catalog) -> None:
    content = suite.load(write(tmp_path, MATRIX))
    assert content.budget_s == 5400
    planned = {
        (spec.backend, spec.seed, spec.recipe.batch_size, spec.recipe.optimizer)
        for spec in expand_all(content.selections, catalog)
    }
    expected = {
        (backend, seed, size, optimizer)
        for backend in ("toy-numpy", "toy-killed")
        for seed in (0, 1)
        for size in (8, 16)
        for optimizer in ("sgd", "adam")
        if not (backend == "toy-killed" and size == 16) and not (optimizer == "adam" and seed == 1)
    }
    assert planned == expected | {("toy-numpy", 7, 32, "sgd"), ("toy-numpy", 7, 32, "adam")}
    assert {spec.recipe.epochs for spec in expand_all(content.selections, catalog)} == {2}
    rates = {spec.seed: spec.recipe.learning_rate for spec in expand_all(content.selections, catalog)}
    assert rates[7] == 0.5
    assert rates[0] != 0.5


json_values = st.recursive(
    st.one_of(st.integers(-(2**53), 2**53), st.booleans(), st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.lists(json_values, min_size=1, max_size=4, unique_by=lambda value: as_overrides({"": value})))
def test_matrix_has_one_combination_for_each_value(values: list[Any]) -> None:
    """The values include lists, and texts with commas, quotes and brackets."""
    variants = combinations(as_dimensions({"dataset.x": values}))
    assert [as_overrides(parse_overrides(each)["dataset"]) for each in variants] == [
        as_overrides({"x": value}) for value in values
    ]


def test_settings_without_quotes_are_read_as_quoted_ones(tmp_path: Path) -> None:
    lines = [
        "[[run]]",
        'task = "toy-regress"',
        "set = { recipe.epochs = 2 }",
        "matrix = { recipe.batch_size = [8, 16] }",
        "exclude = [{ recipe.batch_size = 16, seed = 1 }]",
        "include = [{ recipe.batch_size = 32, model.bias = false }]",
        "seed = [0, 1]",
    ]
    plain = suite.load(write(tmp_path, "\n".join(lines))).selections
    quoted = re.sub(r"(recipe\.\w+|model\.bias)", r'"\1"', "\n".join(lines))
    assert quoted.count('"recipe.') == 4
    assert suite.load(write(tmp_path, quoted)).selections == plain


def test_entries_with_the_same_task_are_interleaved(tmp_path: Path, catalog: Catalog) -> None:
    entry = '[[run]]\ntask = "{}"\nbackend = "{}"\nseed = [0, 1, 2]\n'
    pairs = [("toy-regress", "toy-numpy"), ("toy-classify", "toy-numpy"), ("toy-regress", "toy-killed")]
    text = "\n".join(entry.format(*pair) for pair in pairs)
    order = [
        (spec.task, spec.seed, spec.backend)
        for spec in expand_all(suite.load(write(tmp_path, text)).selections, catalog)
    ]
    assert order == [
        ("toy-regress", 0, "toy-numpy"),
        ("toy-regress", 0, "toy-killed"),
        ("toy-regress", 1, "toy-killed"),
        ("toy-regress", 1, "toy-numpy"),
        ("toy-regress", 2, "toy-numpy"),
        ("toy-regress", 2, "toy-killed"),
        *(("toy-classify", seed, "toy-numpy") for seed in range(3)),
    ]


def test_specs_in_several_entries_are_planned_once(tmp_path: Path, catalog: Catalog) -> None:
    entry = '[[run]]\ntask = "toy-regress"\nbackend = "toy-numpy"\nseed = {}\nrepeat = {}\n'
    selections = suite.load(write(tmp_path, entry.format([0, 1], 1) + entry.format([1, 2], 2))).selections
    assert [spec.seed for spec in expand_all(selections, catalog)] == [0, 1, 2, 2, 1]


def test_schema_is_current_and_accepts_what_load_accepts(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    published = (ROOT / "docs/reference/suite.schema.json").read_text()
    assert published.strip() == suite.schema().strip(), "run: make schema"
    checker = jsonschema.Draft202012Validator(json.loads(published))
    files = [
        SUITE,
        MATRIX,
        '[[run]]\nweights = "nlp-bert-tiny-torch-s0"\n',
        *(path.read_text() for path in (ROOT / "suites").glob("*.toml")),
    ]
    for text in files:
        suite.load(write(tmp_path, text))
        checker.validate(tomllib.loads(text))
    for wrong in (
        {},
        {"run": []},
        {"run": [{"seed": 1}]},
        {"run": [{"task": "a", "modle": "b"}]},
        {"run": [{"task": "a"}], "budget_hours": 0},
    ):
        assert not checker.is_valid(wrong), wrong


def test_load_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read: No such file"):
        suite.load(tmp_path / "none.toml")


def test_find_returns_the_runs_of_a_suite(tmp_path: Path, catalog: Catalog, toy: Path) -> None:
    settings = "".join(f'"{setting.partition("=")[0]}" = {setting.partition("=")[2]}, ' for setting in FAST)
    text = f'[[run]]\ntask = "toy-regress"\nbackend = "toy-numpy"\nthreads = 1\nset = {{ {settings.rstrip(", ")} }}\n'
    path, results = write(tmp_path, text), tmp_path / "results"
    with pytest.raises(UsageError, match="harness run --suite"):
        find(str(path), results, discover)
    specs = expand_all(suite.load(path).selections, catalog)
    other = expand(Selection(tasks=("toy-classify",), backends=("toy-numpy",), threads=1, overrides=FAST), catalog)
    run_all([*specs, *other], catalog, Store(results))
    assert [run.record.spec.task for run in find(str(path), results, discover)] == ["toy-regress"]
