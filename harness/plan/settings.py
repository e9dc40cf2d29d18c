"""What is trained, and how: recipe, protocol and options of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from harness.errors import CombinationError
from harness.interfaces import Backend, Dataset, Model, Task
from harness.plan import checkpoint as pretrained
from harness.plan.models import check_network, suits
from harness.plan.overrides import merge
from harness.plugins.catalog import Catalog
from harness.records import Pretrained, Protocol, Recipe


def plain(options: Struct) -> dict[str, Any]:
    """As JSON would give it back, so that a spec equals itself after a round trip through a file."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(options))
    return values


def recipe_for(
    task: Task, dataset: Dataset, model: Model, variant: str, changes: Mapping[str, Any], *, fine_tuning: bool = False
) -> Recipe:
    """The task's recipe as its model, then its dataset, then the user change it. Fine-tuning has recipes of its own,
    since the others are made for training from scratch."""
    if fine_tuning:
        layers = [model.fine_tuning, dataset.fine_tuning.get(model.name, {})]
    else:
        layers = [source.recipes.get(name, {}) for source in (model, dataset) for name in (model.name, variant)]
    recipe: Recipe = merge(Recipe, "recipe", msgspec.to_builtins(task.recipe), *layers, changes)
    if recipe.dropout and not model.has_dropout:
        if changes.get("dropout"):
            raise CombinationError(f"model {variant!r} has no dropout; leave recipe.dropout out")
        recipe = msgspec.structs.replace(recipe, dropout=0.0)
    return recipe


def settings_for(
    task: Task,
    dataset: Dataset,
    backend: Backend,
    model: Model,
    variant: str,
    protocol: Protocol,
    overrides: Mapping[str, Mapping[str, Any]],
    checkpoint: Pretrained | None,
) -> dict[str, Any]:
    """The parts of a `RunSpec` that options change: recipe, protocol, model and task options."""
    if checkpoint is None:
        sizes, preparation = model.variants[variant], {}
    else:
        sizes = pretrained.model_options(checkpoint, model)
        preparation = dict(task.checkpoint_options(Path(checkpoint.path)))
    changes = overrides["recipe"]
    suited = dataset.task_options.get(task.name, {})
    recipe = recipe_for(task, dataset, model, variant, changes, fine_tuning=checkpoint is not None)
    return {
        "recipe": recipe if backend.trains_by_steps else msgspec.structs.replace(recipe, epochs=1),
        "protocol": merge(Protocol, "protocol", msgspec.structs.asdict(protocol), overrides["protocol"]),
        "model_options": plain(merge(model.Config, "model", sizes, overrides["model"])),
        "task_options": plain(merge(task.Options, "task", suited, preparation, overrides["task"])),
    }


@dataclass(frozen=True)
class Asked:
    """What all backends of a comparison share."""

    task: Task
    dataset: Dataset
    protocol: Protocol
    overrides: Mapping[str, Mapping[str, Any]]
    checkpoint: Pretrained | None
    catalog: Catalog

    def contender(self, backend: str, model: Model, variant: str) -> dict[str, Any]:
        """The part of a `RunSpec` that says what a backend trains, and how. Raises `harness.CombinationError`."""
        check_network(self.catalog, model, backend)
        trainer = self.catalog.backend(backend)
        if not trainer.trains_by_steps:
            foreign = [f"recipe.{key}" for key in self.overrides["recipe"] if key != "batch_size"]
            if foreign:
                raise CombinationError(
                    f"backend {backend!r} fits its models at once: it has no {', '.join(foreign)}; leave it out"
                )
        settings = settings_for(
            self.task, self.dataset, trainer, model, variant, self.protocol, self.overrides, self.checkpoint
        )
        return {"model": variant, "pretrained": self.checkpoint, **settings}

    def stand_in(self, backend: str, model: Model, *, alone: bool) -> dict[str, Any]:
        """As `contender`, of the backend's own model where it has no network of `model`, the default.

        It sees the same prepared data. Unless it stands `alone`, what was said of the model, and of its training but
        for the batch size, is not meant for it.
        """
        for name in self.catalog.backend(backend).default_models:
            other, variant = self.catalog.model(name)
            if not suits(self.task, other):
                continue
            told = dict(self.overrides)
            if not alone:
                batch = {key: value for key, value in told["recipe"].items() if key == "batch_size"}
                told |= {"model": {}, "recipe": batch}
            task: dict[str, Any] = {}
            if self.checkpoint:
                task = dict(self.task.checkpoint_options(Path(self.checkpoint.path)))
            changes = {**told, "task": {**task, **told["task"]}}
            return dataclasses.replace(self, checkpoint=None, overrides=changes).contender(backend, other, variant)
        return self.contender(backend, model, "")  # raises
