"""Tests that all ways to write a selection are equivalent."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import recipes, selections
from toy_plugin import FAULTS_REF, TOY_REF, install_toy

import harness
from harness.cli import options
from harness.data.checkpoint import locate
from harness.errors import CombinationError, UnknownNameError, UsageError
from harness.plan import rerun, suite
from harness.plan.expand import expand
from harness.plan.overrides import as_overrides, parse_overrides
from harness.plan.selection import OPTIONS, Option, Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import PROTOCOLS, Recipe


def parsed(words: list[str]) -> Selection:
    """Return the selection that a command with `options.selection` receives for these arguments."""
    received: list[Selection] = []

    @click.command
    @options.plugins
    @options.selection()
    def command(selection: Selection) -> None:
        received.append(selection)

    command.main(words, standalone_mode=False)
    return received[0]


def passed_to_run(**values: Any) -> Selection:
    """Return the selection that `harness.run` plans for these arguments."""

    class Planned(Exception):  # noqa: N818 - stops the function; it is not an error
        pass

    def plan_runs(chosen: suite.Suite, *arguments: Any, **settings: Any) -> None:
        raise Planned(*chosen.selections)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.plugins.discover", lambda *arguments: Catalog())
        patch.setattr(Catalog, "executor", lambda *arguments: None)
        patch.setattr("harness.api.planning.plan_runs", plan_runs)
        with pytest.raises(Planned) as planned:
            harness.run(**values)
    (selection,) = planned.value.args
    assert isinstance(selection, Selection)
    return selection


@given(selections)
def test_selection_as_command_line_round_trips(selection: Selection) -> None:
    assert parsed(rerun.arguments(selection)) == selection


@given(st.lists(selections, min_size=1, max_size=3))
def test_selections_as_suite_round_trip(tmp_path_factory: pytest.TempPathFactory, chosen: list[Selection]) -> None:
    path = tmp_path_factory.getbasetemp() / "suite.toml"
    path.write_text(suite.dump(chosen), encoding="utf-8")
    assert suite.load(path).selections == chosen


@given(selections)
def test_selection_as_arguments_of_run_round_trips(selection: Selection) -> None:
    values = {option.argument or option.name: getattr(selection, field) for field, option in OPTIONS.items()}
    assert passed_to_run(**values) == selection


@pytest.fixture(scope="module")
def toys() -> Catalog:
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        return load([TOY_REF, FAULTS_REF])


@given(
    recipe=recipes.map(lambda recipe: {name: getattr(recipe, name) for name in Recipe.__struct_fields__}),
    choices=st.fixed_dictionaries(
        {
            "task": st.sampled_from(["toy-regress", "toy-classify"]),
            "model": st.sampled_from(["toy", "toy-linear", "toy-through-origin"]),
            "device": st.sampled_from(["auto", "cpu", "cuda:1"]),
            "precision": st.sampled_from(["fp32", "bf16"]),
            "protocol": st.sampled_from(list(PROTOCOLS)),
            "seed": st.integers(0, 2**32 - 1),
            "threads": st.integers(1, 64),
            "compile": st.booleans(),
            "deterministic": st.booleans(),
            "metric": st.none() | st.sampled_from(["mae", "f1_macro"]),
        }
    ),
    others=st.fixed_dictionaries(
        {},
        optional={
            "model.bias": st.booleans(),
            "task.features": st.integers(1, 4),
            "dataset.noise": st.floats(0, 1e9),
            "protocol.window_s": st.floats(1e-9, 1e9),
            "protocol.target": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        },
    ),
    changed=st.sets(st.sampled_from([each for each in Recipe.__struct_fields__ if each not in Recipe.SESSION_OPTIONS])),
)
def test_command_that_reproduces_a_run_is_planned_as_the_same_run(
    toys: Catalog, recipe: dict[str, Any], choices: dict[str, Any], others: dict[str, Any], changed: set[str]
) -> None:
    overrides = others | {f"recipe.{name}": recipe[name] for name in changed - {"dropout"}}
    values = {"backend": "toy-numpy", "set": as_overrides(overrides)} | choices
    try:
        (spec,) = expand(Selection.from_values(values), toys)
    except CombinationError:  # an option has no effect with the others
        assume(False)
    words = shlex.split(rerun.command(spec, toys.refs_for(spec), toys))
    assert words[:3] == ["harness", "run", "--rerun"]
    (again,) = expand(parsed(words[3:]), toys)
    assert again.key == spec.key


def test_options_declare_the_defaults_and_arguments_of_run() -> None:
    """Tests of the command line compare the other arguments, which describe the user's data or the execution."""
    parameters = inspect.signature(harness.run).parameters
    given = {
        option.name: parameter.default
        for option in OPTIONS.values()
        if (parameter := parameters[option.argument or option.name]).default is not parameter.empty
    }
    assert Selection.from_values(given) == Selection()


def test_options_declare_every_protocol() -> None:
    assert OPTIONS["protocol"].choices == tuple(PROTOCOLS)


def test_every_field_of_a_selection_is_an_option() -> None:
    assert all(isinstance(option, Option) and option.help for option in OPTIONS.values())
    assert [*OPTIONS, "exclude", "name", "located"] == list(Selection.__dataclass_fields__)


def test_from_values_with_one_value_or_none_gives_tuples_and_defaults(tmp_path: Path) -> None:
    class Folder(os.PathLike[str]):
        def __fspath__(self) -> str:
            return "folder"

    values = {"task": "a", "dataset": tmp_path, "model": [], "device": (), "seed": 0, "pretrained": Folder()}
    assert Selection.from_values(values) == Selection(
        tasks=("a",), datasets=(str(tmp_path),), seeds=(0,), pretrained="folder"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": "0"}, "seed must be an integer, got '0'"),
        ({"seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"seed": [0, True]}, "seed must be an integer, got True"),
        ({"split": ["all"]}, "split must be an integer, got 'all'"),
        ({"threads": 2.0}, "threads must be an integer, got 2.0"),
        ({"repeat": "2"}, "repeat must be an integer, got '2'"),
        ({"compile": "no"}, "compile must be True or False, got 'no'"),
        ({"deterministic": 1}, "deterministic must be True or False, got 1"),
        ({"model": 5}, "model must be a string, got 5"),
        ({"dataset": b"x"}, "a dataset must be a name, .* got bytes"),
        ({"pretrained": 5}, "pretrained must be a string, got 5"),
        ({"overrides": [5]}, "overrides must be a string, got 5"),
        ({"overrides": {"protocol.target": float("nan")}}, "protocol.target: nan; pass a finite number"),
        ({"overrides": {"protocol.target": [float("inf")]}}, r"protocol.target: \[inf\]; pass a finite number"),
        ({"overrides": {"model.x": {1, 2}}}, r"model.x: \{1, 2\} cannot be written as JSON"),
    ],
)
def test_run_value_of_a_wrong_type_raises(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        passed_to_run(**{"task": "a", **values})


def test_run_accepts_numbers_of_numpy() -> None:
    values = {"seed": np.arange(2), "threads": np.int64(2), "repeat": np.int8(3)}
    overrides = {"recipe.epochs": np.int64(3), "recipe.learning_rate": np.float64(0.1), "model.x": [np.float32(0.5)]}
    chosen = passed_to_run(task="a", overrides=overrides, **values)
    assert chosen == Selection(
        tasks=("a",),
        seeds=(0, 1),
        threads=2,
        repeat=3,
        overrides=("recipe.epochs=3", "recipe.learning_rate=0.1", "model.x=[0.5]"),
    )
    assert {type(seed) for seed in chosen.seeds} == {int}


@pytest.mark.parametrize(
    "several", [list, tuple, iter, np.array, pd.Index, pd.Series, lambda names: np.array(names, object)]
)
def test_run_accepts_column_names_in_every_form(several: Callable[[list[str]], Any]) -> None:
    chosen = passed_to_run(
        task="a",
        target_column=several(["x"]),
        feature_columns=several(["y", "z"]),
        slice_columns=several([]),
        text_column=np.str_("t"),
    )
    assert sorted(chosen.overrides) == [
        'dataset.feature_columns=["y","z"]',
        'dataset.target_column="x"',
        'dataset.text_column="t"',
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_columns": pd.Index([0, 1])}, "feature_columns contains 0, which is not a string"),
        ({"target_column": np.array([["a"]])}, "target_column contains array.*, which is not a string"),
        ({"slice_columns": 3}, "slice_columns contains 3, which is not a string"),
        ({"feature_columns": np.array("a")}, "feature_columns contains array"),
        ({"group_column": pd.Index(["a", "b"])}, "dataset.group_column.*cannot be written as JSON"),
    ],
)
def test_run_wrong_column_names_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        passed_to_run(task="a", **options)


@pytest.mark.parametrize("overrides", ["recipe.epochs=3", ["recipe.epochs=3"], {"recipe.epochs": 3}])
def test_run_accepts_overrides_in_every_form(overrides: Any) -> None:
    assert passed_to_run(task="a", overrides=overrides).overrides == ("recipe.epochs=3",)
    assert passed_to_run(task="a", overrides=None).overrides == ()


TEXTS = ["a'b", 'a"b', "a\nb", "a\\b", "ü", "\u2028", "\x7f", "\x00", " a ", "", "-x", "--task", "a,b", "$(id)", "🙂"]
TEXTS += ["\r\n", "#", "[1]", "null", "1", "x" * 100_000]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:12])
def test_text_as_value_round_trips(text: str, tmp_path: Path) -> None:
    selection = Selection(tasks=("t",), pretrained=text, overrides=as_overrides({"model.x": text, "task.x": [[text]]}))
    assert parsed(shlex.split(shlex.join(rerun.arguments(selection)))) == selection
    path = tmp_path / "suite.toml"
    path.write_text(suite.dump([selection]), encoding="utf-8")
    assert suite.load(path).selections == [selection]
    values = parse_overrides(selection.overrides)
    assert (values["model"], values["task"]) == ({"x": text}, {"x": [[text]]})


def test_dataset_name_that_is_too_long_for_a_path_is_parsed() -> None:
    selection = Selection(tasks=("t",), datasets=("x" * 100_000,))
    assert parsed(rerun.arguments(selection)) == selection


@pytest.mark.parametrize("name", ["", " ", "\x00", "\ud800", "../x", "x" * 5000], ids=lambda name: ascii(name)[:12])
def test_locate_name_that_cannot_be_a_checkpoint_raises(name: str) -> None:
    with pytest.raises(UsageError, match="is neither a folder nor a hub id"):
        locate(name)


@pytest.mark.parametrize("device", ["cuda:007", "cuda:", "cuda:-1", "cuda:\u0663", "cpu:0", "", "cuda:0 "])
def test_expand_device_in_another_spelling_raises(toys: Catalog, device: str) -> None:
    """Two spellings of one device would give two keys for one run."""
    with pytest.raises(UnknownNameError, match="unknown device"):
        expand(Selection(tasks=("toy-regress",), devices=(device,)), toys)


def test_expand_name_of_the_protocol_as_override_raises(toys: Catalog) -> None:
    """The command that reproduces a run selects the protocol by its name."""
    with pytest.raises(UsageError, match="select the protocol with --protocol"):
        expand(Selection(tasks=("toy-regress",), overrides=("protocol.name=mine",)), toys)


def test_path_with_commas_is_one_dataset(tmp_path: Path) -> None:
    path = tmp_path / "a,b.csv"
    path.write_text("")
    selection = Selection(tasks=("t",), datasets=("c", str(path)))
    assert parsed(rerun.arguments(selection)) == selection


def test_expand_checkpoint_that_is_not_located_raises(toys: Catalog) -> None:
    selection = Selection(tasks=("toy-regress",), backends=("toy-numpy",), pretrained="owner/name")
    with pytest.raises(ValueError, match=r"call Selection\.resolved first"):
        expand(selection, toys)
