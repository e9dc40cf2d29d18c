"""Rules for tasks. They are looked at with the task's default dataset and the options' defaults."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, get_args

from harness.errors import HarnessError
from harness.interfaces import PreparedData, RawData, Split, Task
from harness.plugins.catalog import Catalog
from harness.records import Objective
from harness.testing.leaks import assert_nothing_leaks, same
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.rules.datasets import LoadedDataset


class PreparedTask:
    """A task, the raw data of its default dataset, and what it prepares of them, once."""

    def __init__(self, task: Task, catalog: Catalog) -> None:
        self.task, self.catalog = task, catalog

    @cached_property
    def raw(self) -> RawData:
        if self.task.default_dataset not in self.catalog.datasets:
            raise NotChecked(f"there is no dataset {self.task.default_dataset!r} here")
        return LoadedDataset(self.catalog.dataset(self.task.default_dataset)).data

    @property
    def options(self) -> Any:
        import msgspec

        dataset = self.catalog.dataset(self.task.default_dataset)
        return msgspec.convert(dict(dataset.task_options.get(self.task.name, {})), self.task.Options)

    @cached_property
    def data(self) -> PreparedData:
        return self.task.prepare(self.raw, self.options)


def _defaults_exist(it: PreparedTask) -> None:
    task, catalog = it.task, it.catalog
    if task.objective not in get_args(Objective):
        raise Broken(f"its objective is {task.objective!r}; known: {', '.join(get_args(Objective))}")
    if task.metric not in task.metrics:
        raise Broken(f"its primary metric {task.metric!r} is not among its metrics: {', '.join(task.metrics)}")
    try:
        dataset = catalog.dataset(task.default_dataset)
        model, _ = catalog.model(task.default_model)
        for name in task.metrics:
            metric = catalog.metric(name)
            if metric.objective != task.objective:
                raise Broken(f"the metric {name!r} is for {metric.objective}, the task for {task.objective}")
    except HarnessError as error:
        raise Broken(str(error)) from None
    if (dataset.kind, dataset.objective) != (task.kind, task.objective):
        raise Broken(f"its dataset {dataset.name!r} is {dataset.kind}, {dataset.objective}")
    if task.produces not in model.accepts or task.objective not in model.objectives:
        raise Broken(f"its model {task.default_model!r} takes {', '.join(model.accepts)}")


def _prepares_what_it_declares(it: PreparedTask) -> None:
    from harness.data.prepared import check

    check(it.data)
    info, task = it.data.info, it.task
    if (info.kind, info.objective) != (task.produces, task.objective):
        raise Broken(f"info tells {info.kind}, {info.objective}; the task says {task.produces}, {task.objective}")
    for name in ("train", "validation", "test"):
        raw, prepared = len(getattr(it.raw, name)), len(getattr(it.data, name))
        if raw != prepared:
            raise Broken(f"{raw} examples of {name} became {prepared}")


def _is_deterministic(it: PreparedTask) -> None:
    from harness.data.prepared import dataset_digest

    again = it.task.prepare(it.raw, it.options)
    if dataset_digest(again) != dataset_digest(it.data) or again.info != it.data.info:
        raise Broken("preparing the same data twice gives other arrays or another info")


def _leaks_nothing(it: PreparedTask) -> None:
    try:
        assert_nothing_leaks(it.task, it.raw, it.options)
    except AssertionError as error:
        raise Broken(str(error)) from None


def _prepares_each_by_itself(it: PreparedTask) -> None:
    import numpy as np

    try:
        _is_deterministic(it)
    except Broken as reason:
        raise NotChecked(str(reason)) from None
    for name in ("validation", "test"):
        raw: Split = getattr(it.raw, name)
        half = max(1, len(raw) // 2)
        some = raw.take(np.arange(half))
        shortened = (
            dataclasses.replace(it.raw, test=some) if name == "test" else dataclasses.replace(it.raw, validation=some)
        )
        fewer = it.task.prepare(shortened, it.options)
        for column, array in getattr(it.data, name).inputs.items():
            if not same(np.asarray(array[:half]), np.asarray(getattr(fewer, name).inputs[column])):
                raise Broken(f"without the other examples of {name}, its input {column!r} is prepared differently")


def _augments_as_told(it: PreparedTask) -> None:
    import numpy as np

    def augmented(seed: int) -> dict[str, Any]:
        some = {name: np.array(array[:8]) for name, array in it.data.train.inputs.items()}
        return it.task.augment(some, it.data.info, it.options, np.random.default_rng(seed))

    one, again = augmented(1), augmented(1)
    for name, array in it.data.train.inputs.items():
        wanted, found = array[:8], one.get(name)
        if found is None or (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise Broken(f"the input {name!r} has another shape or dtype afterwards, or is gone")
        if not np.array_equal(found, again[name]):
            raise Broken(f"the same rng changes {name!r} in two ways")


TASK_RULES: tuple[Rule[PreparedTask], ...] = (
    Rule(
        "task-defaults-exist",
        "default_dataset, default_model and metrics are there, and suit the task.",
        "name what your plugin, or one that it depends on, brings; kind, produces and objective must agree",
        _defaults_exist,
    ),
    Rule(
        "task-prepares-what-it-declares",
        "prepare gives plain arrays of the shapes and dtypes in info, finite, one for each raw example, in order.",
        "make the arrays what DataInfo.inputs and outputs say: targets int64 [N] or [N, L], or float32 [N, outputs]",
        _prepares_what_it_declares,
    ),
    Rule(
        "task-is-deterministic",
        "Preparing twice gives the same arrays.",
        "draw from np.random.default_rng(a fixed seed), and do not depend on the order of sets",
        _is_deterministic,
    ),
    Rule(
        "task-leaks-nothing",
        "What is fitted sees the training split only.",
        "fit vocabularies, means and scales on data.train; name details that only report others in Task.reported",
        _leaks_nothing,
    ),
    Rule(
        "task-prepares-each-by-itself",
        "An example of validation or test is prepared the same whatever else is in its split.",
        "scale, fill and cut by what was fitted on data.train, not by the split's own mean or longest example",
        _prepares_each_by_itself,
    ),
    Rule(
        "task-augments-as-told",
        "augment keeps shapes and dtypes, and follows from its rng alone.",
        "draw from the rng that is passed, and return every input as it was in shape and dtype",
        _augments_as_told,
    ),
)
