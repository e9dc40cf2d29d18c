"""Run settings that ``--set`` can change, with their defaults and descriptions."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.data.user_files.dataset import UserDataset, find_dataset
from harness.data.user_files.options import OPTIONS
from harness.errors import DataError, UsageError
from harness.interfaces import Dataset
from harness.plan.expand import check_model, check_suits
from harness.plan.own_data import model_by_size, with_enough_steps
from harness.plan.settings import plain, recipe_for
from harness.plan.splits import data_settings
from harness.records import Protocol, Recipe

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog


class Setting(Struct, frozen=True, kw_only=True):
    """One setting of a run."""

    name: str
    """Name of the setting in ``--set NAME=VALUE``, such as ``recipe.epochs``."""
    default: Any
    """Default value, converted to JSON types, or `msgspec.NODEFAULT` if the setting has no default."""
    meaning: str
    """Docstring of the field, or an empty string if the field has none."""


def settings_of(
    catalog: Catalog, task: str | None = None, dataset: str | None = None, model: str | None = None
) -> dict[str, list[Setting]]:
    """Return the settings, grouped by section.

    If `task` is given, return the defaults for runs of this task with `dataset` and `model`. By default, the task's
    default dataset and model are used. For the user's own data, the defaults depend on the number of training examples.
    If `task` is not given, return the sections of all tasks, models, datasets with options, and kinds of user files. If
    only `model` is given, omit the sections for tasks, datasets and other models. Datasets with the same options share
    a section.

    Raises `harness.UnknownNameError` if a name is unknown, and `harness.CombinationError` if the task cannot use the
    dataset or the model.
    """
    if task is not None:
        return _of_selection(catalog, task, dataset, model)
    models = (
        [catalog.model(model)[0]] if model is not None else [provided.value for provided in catalog.models.values()]
    )
    tasks = [] if model is not None else [provided.value for provided in catalog.tasks.values()]
    kinds = {} if model is not None else OPTIONS
    return {
        "recipe": _settings("recipe", Recipe),
        "protocol": _settings("protocol", Protocol),
        **{f"task {each.name}": _settings("task", each.Options) for each in tasks},
        **{f"dataset from {kind} files": _settings("dataset", options) for kind, options in kinds.items()},
        **({} if model is not None else _of_datasets(catalog)),
        **{f"model {each.name}": _settings("model", each.Config) for each in models},
    }


def _of_datasets(catalog: Catalog) -> dict[str, list[Setting]]:
    names: dict[type[Struct], list[str]] = {}
    for name, provided in sorted(catalog.datasets.items()):
        if provided.value.Options.__struct_fields__:
            names.setdefault(provided.value.Options, []).append(name)
    return {f"dataset {', '.join(alike)}": _settings("dataset", options) for options, alike in names.items()}


def _of_selection(catalog: Catalog, task: str, dataset: str | None, model: str | None) -> dict[str, list[Setting]]:
    chosen = catalog.task(task)
    data = find_dataset(dataset or chosen.default_dataset, chosen, catalog)
    check_suits(chosen, data)
    size, unknown = _training_examples(data)
    default_model = chosen.default_model if size is None else model_by_size(chosen, size)
    family, variant = catalog.model(model or default_model)
    check_model(chosen, family, variant)
    recipe = recipe_for(chosen, data, family, variant, {})
    if size is not None:
        recipe = with_enough_steps(chosen, recipe, size, {})
    suited = data.task_options.get(chosen.name, {})
    return {
        f"recipe of {variant} on {data.name}{unknown}": _settings("recipe", Recipe, msgspec.structs.asdict(recipe)),
        "protocol": _settings("protocol", Protocol),
        f"task {chosen.name}": _settings("task", chosen.Options, suited),
        f"dataset {data.name}": _settings("dataset", data.Options),
        f"model {variant}": _settings("model", family.Config, family.variants[variant]),
    }


def _training_examples(data: Dataset) -> tuple[int | None, str]:
    """Return the number of training examples of the user's own data, on which some defaults depend. For a dataset from
    a plugin, the number is None.

    If the user's data cannot be read with the default options, for example because the target column cannot be
    inferred, return None and a remark about the listed defaults.
    """
    if not isinstance(data, UserDataset):
        return None, ""
    try:
        source = data_settings(data, {}, ())[0].source
    except (UsageError, DataError) as error:
        return None, f" (the default model and number of epochs depend on the data, which cannot be read: {error})"
    return (source.training_examples if source else None), ""


def _settings(section: str, kind: type[Struct], values: Mapping[str, Any] | None = None) -> list[Setting]:
    meanings = field_docstrings(kind)
    return [
        Setting(
            name=f"{section}.{field.name}",
            default=_default(field, values or {}),
            meaning=meanings.get(field.name, ""),
        )
        for field in msgspec.structs.fields(kind)
    ]


def _default(field: msgspec.structs.FieldInfo, values: Mapping[str, Any]) -> Any:
    if field.name in values:
        value = values[field.name]
    elif field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    else:
        value = field.default
    return plain(value) if isinstance(value, Struct) else value


def field_docstrings(kind: type) -> dict[str, str]:
    """Return the docstring of each field of a class, including inherited fields.

    Each docstring is joined into one line.

    The docstrings are read from the source code, because Python does not keep the docstrings of fields at run time. If
    the source code is not available, no docstrings are returned.
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        (definition,) = tree.body
        if isinstance(definition, ast.ClassDef):
            found |= _field_docstrings(definition.body)
    return found


def _field_docstrings(body: list[ast.stmt]) -> Iterable[tuple[str, str]]:
    for statement, following in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            yield statement.target.id, " ".join(following.value.value.replace("``", "`").split())
