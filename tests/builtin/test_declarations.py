"""Tests that the recipes and options declared by the built-in datasets are valid."""

from __future__ import annotations

import msgspec
import pytest

from harness.plan.overrides import merge
from harness.plan.settings import recipe_for
from harness.plugins import discover

CATALOG = discover()


@pytest.mark.parametrize("name", sorted(CATALOG.datasets))
def test_recipes_and_options_of_a_dataset_are_valid(name: str) -> None:
    dataset = CATALOG.dataset(name)
    suited = [
        task
        for task in map(CATALOG.task, CATALOG.tasks)
        if (task.kind, task.objective) == (dataset.kind, dataset.objective)
    ]
    assert suited
    for task in suited:
        for wanted in dataset.recipes:
            model, variant = CATALOG.model(wanted)
            recipe = msgspec.to_builtins(recipe_for(task, dataset, model, variant, {}))
            assert {key: recipe[key] for key in dataset.recipes[wanted]} == dataset.recipes[wanted]
        for family in dataset.fine_tuning:
            model, variant = CATALOG.model(family)
            assert model.name == family
            recipe = msgspec.to_builtins(recipe_for(task, dataset, model, variant, {}, fine_tuning=True))
            assert {key: recipe[key] for key in dataset.fine_tuning[family]} == dataset.fine_tuning[family]
    assert set(dataset.task_options) <= set(CATALOG.tasks)
    for task_name, options in dataset.task_options.items():
        merge(CATALOG.task(task_name).Options, "task", options)
