"""Settings of a run, such as its data, recipe, protocol and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.divided_rows import DividedRows
from harness.errors import CombinationError, DataError, UsageError
from harness.interfaces import Backend, Dataset, Model, Task
from harness.plan.checkpoint import model_options
from harness.plan.overrides import declared_by, merge
from harness.plan.own_data import epochs_note, model_by_size, model_note, with_enough_steps
from harness.plan.recipe_checks import check_dropout, check_recipe
from harness.records import DataSource, Precision, Pretrained, Protocol, Recipe

WITH_TEACHER = {"distillation_alpha": 0.5, "distillation_temperature": 2.0}
"""Default values of recipe fields for runs with a teacher."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Data settings of a `RunSpec`."""

    dataset_options: dict[str, Any]
    source: DataSource | None = None
    rows: DividedRows | None = None
    """Rows of the user's own data, shared by all folds and random splits. The value is None for datasets from plugins.
    The value is also None for images and recordings, because their files are not read completely."""

    def check(self, task: Task, task_options: Struct) -> None:
        """Raise `harness.UsageError` if the task cannot prepare the user's own data with these options."""
        if self.rows is None:
            return
        try:
            task.check_data(self.rows.raw(), task_options)
        except DataError as error:  # Raise a usage error, because no run has started yet.
            raise UsageError(f"{Path(self.source.path).name if self.source else 'the data'}: {error}") from None


def recipe_for(
    task: Task, dataset: Dataset, model: Model, variant: str, changes: Mapping[str, Any], *, fine_tuning: bool = False
) -> Recipe:
    """Return the task's recipe after applying the changes declared by the model, the dataset and the user, in this
    order.

    For the user's own data, the epoch with the best validation score is evaluated by default (`Recipe.keep_best`).

    Models and datasets declare separate changes for fine-tuning, because their other changes are tuned for training
    from scratch.

    If the model has no dropout layers, the dropout in the task's recipe is ignored, because the recipe applies to all
    models. A dropout that is declared for this model or set by the user would be an error, which is raised as a
    `harness.UsageError`.
    """
    layers: list[tuple[Model | Dataset, Mapping[str, Any]]]
    if fine_tuning:
        layers = [(model, model.fine_tuning), (dataset, dataset.fine_tuning.get(model.name, {}))]
    else:
        layers = [
            (source, source.recipes.get(name, {})) for source in (model, dataset) for name in (model.name, variant)
        ]
    # The user's own data have no published recipe with a suitable number of epochs.
    own = {"keep_best": True} if isinstance(dataset, UserDataset) else {}
    declared = msgspec.to_builtins(task.recipe)
    try:
        recipe: Recipe = merge(Recipe, "recipe", declared, own, *(layer for _, layer in layers), changes)
    except UsageError:
        for source, layer in layers:
            with declared_by(f"{'model' if source is model else 'dataset'} {source.name!r}"):
                merge(Recipe, "recipe", declared, layer)
        raise
    if recipe.dropout and not model.has_dropout:
        if changes.get("dropout"):
            raise CombinationError(f"model {variant!r} has no dropout; remove recipe.dropout")
        for source, layer in layers:
            with declared_by(f"{'model' if source is model else 'dataset'} {source.name!r}"):
                check_dropout(model, layer)
        recipe = msgspec.structs.replace(recipe, dropout=0.0)
    return recipe


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Training settings of a `RunSpec` for one backend."""

    model: str
    """Name of the model variant."""
    pretrained: Pretrained | None
    recipe: Recipe
    protocol: Protocol
    model_options: dict[str, Any]
    task_options: dict[str, Any]
    defaults: tuple[str, ...] = ()
    """Sentences about the settings chosen based on the size of the user's own data."""


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """Settings that all backends in a comparison share."""

    task: Task
    dataset: Dataset
    protocol: Protocol
    overrides: Mapping[str, Mapping[str, Any]]
    checkpoint: Pretrained | None
    data: Sequence[DataSettings] = ()
    """Data settings, one entry per selected split or fold."""
    precisions: Sequence[Precision] = ("fp32",)
    """The selected precisions."""
    distilled: bool = False
    """True if the runs have a teacher."""

    default_model: str = ""
    """Name of the default model, or an empty string if the user selected the model."""

    @property
    def training_examples(self) -> int | None:
        """Number of training examples of the user's own data, or None if it is unknown or irrelevant."""
        return next((each.source.training_examples for each in self.data if each.source is not None), None)

    @property
    def label_names(self) -> Sequence[str]:
        """Names of the classes. The sequence is empty if the names are not known until the data are prepared."""
        rows = next((each.rows for each in self.data if each.rows is not None), None)
        return self.dataset.label_names if rows is None else rows.label_names

    def training(self, backend: Backend, model: Model, variant: str) -> TrainingSettings:
        """Return the settings that `backend` uses for training `model`.

        Raises `harness.UsageError` if a setting is invalid.
        """
        if self.checkpoint is None:
            sizes, preparation = model.variants[variant], {}
            with declared_by(f"model {variant!r}"):
                merge(model.Config, "model", sizes)
        else:
            sizes = model_options(self.checkpoint, model)
            preparation = self.checkpoint_options()
        suited = self.dataset.task_options.get(self.task.name, {})
        changes, fine_tuning = self.overrides["recipe"], self.checkpoint is not None
        set_by_default = WITH_TEACHER if self.distilled else {}
        recipe = recipe_for(
            self.task, self.dataset, model, variant, {**set_by_default, **changes}, fine_tuning=fine_tuning
        )
        task_options = merge(self.task.Options, "task", suited, preparation, self.overrides["task"])
        size, defaults = self.training_examples, []
        is_default = self.checkpoint is None and variant == self.default_model
        # If the runs of a selection have different sizes, the first size determines the default model of all of them.
        if size is not None and is_default and variant == model_by_size(self.task, size):
            defaults.append(model_note(self.task, size))
        if backend.trains_by_steps:
            if size is not None:
                declared, recipe = recipe, with_enough_steps(self.task, recipe, size, changes)
                defaults.append(epochs_note(self.task, variant, declared, recipe))
            check_recipe(
                recipe,
                changes,
                task=self.task,
                dataset=self.dataset,
                label_names=self.label_names,
                backend=backend,
                precisions=self.precisions,
                distilled=self.distilled,
                training_examples=size,
            )
        elif self.distilled:
            raise CombinationError(
                f"backend {backend.name!r} does not train in steps, so it cannot train with a teacher; remove "
                "--teacher, or select another backend"
            )
        for each in self.data:
            each.check(self.task, task_options)
            if each.dataset_options.get("weight_column") and not backend.example_weights:
                raise CombinationError(
                    f"backend {backend.name!r} does not support example weights; remove --weight-column, or use "
                    "another backend"
                )
        if self.checkpoint is not None:
            try:
                self.task.check_checkpoint(Path(self.checkpoint.path), task_options)
            except DataError as error:  # Raise a usage error, because no run has started yet.
                raise UsageError(str(error)) from None
        return TrainingSettings(
            model=variant,
            pretrained=self.checkpoint,
            recipe=recipe if backend.trains_by_steps else msgspec.structs.replace(recipe, epochs=1, keep_best=False),
            protocol=merge(Protocol, "protocol", msgspec.structs.asdict(self.protocol), self.overrides["protocol"]),
            model_options=plain(merge(model.Config, "model", sizes, self.overrides["model"])),
            task_options=plain(task_options),
            defaults=tuple(filter(None, defaults)),
        )

    def checkpoint_options(self) -> dict[str, Any]:
        """Return the task options that the checkpoint requires.

        If there is no checkpoint, return an empty dictionary.
        """
        return dict(self.task.checkpoint_options(Path(self.checkpoint.path))) if self.checkpoint else {}


def plain(options: Struct) -> dict[str, Any]:
    """Return the options converted to JSON types.

    A spec that is written to JSON and read back is then equal to the original.
    """
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(options))
    return values
