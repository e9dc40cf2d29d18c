"""Tests of the list of settings."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from own_files import reviews, write_csv

from harness.errors import UnknownNameError
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plan.setting_list import field_docstrings, settings_of
from harness.plugins import discover
from harness.records import Recipe


@pytest.mark.plugins("nlp", "vision", "speech", "regression", "torch", "tensorflow", "baselines")
def test_every_setting_of_the_built_in_plugins_has_a_description() -> None:
    sections = settings_of(discover())
    assert {"recipe", "protocol", "task nlp", "model lstm", "dataset from table files"} <= sections.keys()
    found = [(each.name, heading) for heading, settings in sections.items() for each in settings if not each.meaning]
    assert [each for each in found if "toy" not in each[1]] == []


@pytest.mark.plugins("nlp", "vision", "speech", "regression")
def test_every_option_of_every_dataset_and_task_is_listed() -> None:
    catalog = discover()
    sections = settings_of(catalog)
    listed = {heading: {each.name for each in settings} for heading, settings in sections.items()}
    for name, provided in catalog.datasets.items():
        options = {f"dataset.{field}" for field in provided.value.Options.__struct_fields__}
        found = [names for heading, names in listed.items() if name in heading.removeprefix("dataset ").split(", ")]
        assert found == ([options] if options else []), name
    for name, provided_task in catalog.tasks.items():
        assert listed[f"task {name}"] == {f"task.{field}" for field in provided_task.value.Options.__struct_fields__}


@pytest.mark.plugins("nlp")
def test_settings_of_a_task_have_the_defaults_of_its_runs() -> None:
    catalog = discover()
    task = catalog.task("nlp")
    sections = settings_of(catalog, "nlp", model="lstm")
    recipe = {each.name: each.default for each in sections[f"recipe of lstm on {task.default_dataset}"]}
    assert recipe.keys() == {f"recipe.{name}" for name in Recipe.__struct_fields__}
    own = catalog.dataset(task.default_dataset).recipes["lstm"]
    assert {name: recipe[f"recipe.{name}"] for name in own} == own  # takes precedence over the recipe of the model


@pytest.mark.plugins("nlp", "torch")
@pytest.mark.parametrize("count", [200, 4000])
def test_settings_of_the_users_own_data_are_those_of_its_runs(tmp_path: Path, count: int) -> None:
    catalog = discover()
    path = write_csv(tmp_path / "reviews.csv", reviews(count))
    (spec,) = expand(Selection(tasks=("nlp",), datasets=(str(path),), backends=("torch",)), catalog)
    sections = settings_of(catalog, "nlp", str(path))
    recipe = {each.name: each.default for each in sections[f"recipe of {spec.model} on {spec.dataset}"]}
    assert recipe == {f"recipe.{name}": value for name, value in msgspec.to_builtins(spec.recipe).items()}
    assert recipe["recipe.epochs"] > catalog.task("nlp").recipe.epochs


@pytest.mark.plugins("nlp")
def test_settings_of_data_that_cannot_be_read_name_the_reason(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {"a": ["x", "y"] * 20, "b": ["u", "v"] * 20, "c": ["k", "l"] * 20})
    catalog = discover()
    first, *_ = settings_of(catalog, "nlp", str(path))
    assert "the default model and number of epochs depend on the data, which cannot be read: " in first
    assert "--text-column" in first


@pytest.mark.plugins("nlp")
def test_settings_of_a_model_are_listed_alone() -> None:
    assert list(settings_of(discover(), model="bert-tiny")) == ["recipe", "protocol", "model bert"]
    with pytest.raises(UnknownNameError, match="did you mean 'bert-tiny'"):
        settings_of(discover(), model="bert-tyni")


def test_field_docstrings_include_inherited_fields() -> None:
    class Base(msgspec.Struct):
        a: int = 0
        """First
        line."""
        b: int = 0

    class Derived(Base):
        b: int = 1
        """Second."""
        c: int = 2

    assert field_docstrings(Derived) == {"a": "First line.", "b": "Second."}
