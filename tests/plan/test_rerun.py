"""Tests that the selection, command and suite that reproduce a run are planned as the same run."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
import pytest
from toy_plugin import FAST

from harness.plan import rerun as again
from harness.plan import suite
from harness.plan.expand import expand, expand_all
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import PluginRef, RunSpec


def planned(catalog: Catalog, *overrides: str, **changes: object) -> tuple[RunSpec, ...]:
    values = {"tasks": ("toy-classify",), "backends": ("toy-numpy",), "seeds": (3, 4), "threads": 1} | changes
    return expand(Selection(**values, overrides=overrides), catalog)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        FAST,
        ("recipe.weight_decay=-0.0",),
        ("recipe.epochs=2", "recipe.optimizer=adam", "recipe.clip_norm=0.5"),
        ("dataset.examples=30",),
    ],
)
def test_selection_is_planned_as_its_spec(catalog: Catalog, overrides: tuple[str, ...]) -> None:
    for spec in planned(catalog, *overrides):
        chosen = again.selection(spec, catalog)
        assert expand(chosen, catalog) == (spec,)
        assert len(chosen.overrides) == len(overrides)


def test_command_names_plugins_that_are_not_installed(catalog: Catalog) -> None:
    (spec, _) = planned(catalog)
    installed = PluginRef(name="shop", value="shop.plugin", distribution="shop", version="1.0")
    module = PluginRef(name="my.module", value="my.module", distribution="other", version="2.0")
    file = PluginRef(name="one", value="/with space/one.py", distribution="file", version="")
    words = shlex.split(again.command(spec, [installed, module, file], catalog))
    assert words[:7] == ["harness", "run", "--rerun", "--plugin", "my.module", "--plugin", "/with space/one.py"]
    assert words.count("--plugin") == 2


@pytest.mark.plugins("regression", "baselines")
def test_selection_of_a_backend_without_steps_has_no_epochs() -> None:
    catalog = discover()
    (spec,) = expand(Selection(tasks=("regression",), backends=("baseline",)), catalog)
    chosen = again.selection(spec, catalog)
    assert chosen.overrides == ()
    assert expand(chosen, catalog) == (spec,)


def test_command_has_all_settings(catalog: Catalog) -> None:
    (spec, _) = planned(catalog, "recipe.epochs=2", protocol="quick", deterministic=True)
    words = shlex.split(again.command(spec, catalog.refs_for(spec), catalog))
    assert words[:3] == ["harness", "run", "--rerun"]
    assert words[-3:] == ["--deterministic", "--set", "recipe.epochs=2"]
    for option, value in (("--seed", "3"), ("--protocol", "quick"), ("--model", spec.model), ("--threads", "1")):
        assert words[words.index(option) + 1] == value


def test_command_quotes_shell_characters(catalog: Catalog) -> None:
    spec = msgspec.structs.replace(planned(catalog)[0], dataset="a; rm -rf ~ $(id) `id` 'x'")
    assert "a; rm -rf ~ $(id) `id` 'x'" in shlex.split(again.command(spec, [], catalog))


def test_selection_without_plugins_has_all_overrides(catalog: Catalog) -> None:
    spec = planned(catalog, "recipe.epochs=2")[0]
    chosen = again.selection(spec, Catalog(plugins=(), failures=()))
    assert f"recipe.learning_rate={spec.recipe.learning_rate}" in chosen.overrides
    assert expand(chosen, catalog) == (spec,)


def test_suite_is_planned_as_its_specs(catalog: Catalog, tmp_path: Path) -> None:
    specs = [*planned(catalog, "recipe.epochs=2"), *planned(catalog), *planned(catalog, tasks=("toy-regress",))]
    path = tmp_path / "suite.toml"
    path.write_text(again.suite(specs, catalog))
    assert {spec.key for spec in expand_all(suite.load(path).selections, catalog)} == {spec.key for spec in specs}
    assert path.read_text().count("[[run]]") == 3
