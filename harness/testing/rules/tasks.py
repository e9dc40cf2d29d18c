"""Rules for tasks. Tasks are checked with their default dataset and default options."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

from harness.errors import HarnessError
from harness.interfaces import PreparedData, RawData, Split, Task
from harness.plan.expand import suits
from harness.plugins.catalog import Catalog
from harness.plugins.failures import described_with_place
from harness.testing.leaks import assert_nothing_leaks, same
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.rules.datasets import LoadedDataset


class PreparedTask:
    """A task, the raw data of its default dataset, and the prepared data (cached)."""

    def __init__(self, task: Task, catalog: Catalog) -> None:
        self.task, self.catalog = task, catalog

    @cached_property
    def raw(self) -> RawData:
        if self.task.default_dataset not in self.catalog.datasets:
            raise NotChecked(f"the dataset {self.task.default_dataset!r} is not installed")
        data = LoadedDataset(self.catalog.dataset(self.task.default_dataset)).data
        if not isinstance(data, RawData):
            raise NotChecked(f"the dataset {self.task.default_dataset!r} does not return RawData")
        return data

    @property
    def options(self) -> Any:
        import msgspec

        dataset = self.catalog.dataset(self.task.default_dataset)
        return msgspec.convert(dict(dataset.task_options.get(self.task.name, {})), self.task.Options)

    @cached_property
    def data(self) -> PreparedData:
        return self.task.prepare(self.raw, self.options)


def _defaults_exist(case: PreparedTask) -> None:
    task, catalog = case.task, case.catalog
    if task.metric not in task.metrics:
        raise Broken(f"the primary metric {task.metric!r} is not one of the task's metrics: {', '.join(task.metrics)}")
    try:
        dataset = catalog.dataset(task.default_dataset)
        models = {name: catalog.model(name)[0] for name in (task.default_model, *task.models_by_size.values())}
        for name in task.metrics:
            metric = catalog.metric(name)
            if metric.objective != task.objective:
                raise Broken(f"the metric {name!r} is for {metric.objective}, but the task is for {task.objective}")
    except HarnessError as error:
        raise Broken(str(error)) from None
    if (dataset.kind, dataset.objective) != (task.kind, task.objective):
        raise Broken(
            f"the default dataset {dataset.name!r} has kind {dataset.kind} and objective {dataset.objective}; "
            f"the task has kind {task.kind} and objective {task.objective}"
        )
    for name, model in models.items():
        if not suits(task, model):
            raise Broken(
                f"the default model {name!r} accepts {', '.join(model.accepts)} for {', '.join(model.objectives)}; "
                f"the task produces {task.produces} for {task.objective}"
            )


def _prepares_what_it_declares(case: PreparedTask) -> None:
    from harness.data.prepared import check

    check(case.data, case.task.name)
    info, task = case.data.info, case.task
    if (info.kind, info.objective) != (task.produces, task.objective):
        raise Broken(
            f"info declares kind {info.kind} and objective {info.objective}, "
            f"but the task declares {task.produces} and {task.objective}"
        )
    for name in ("train", "validation", "test"):
        raw, prepared = len(getattr(case.raw, name)), len(getattr(case.data, name))
        if raw != prepared:
            raise Broken(f"the {name} split has {raw} raw examples, but {prepared} prepared examples")


def _is_deterministic(case: PreparedTask) -> None:
    from harness.data.prepared import dataset_digest

    again = case.task.prepare(case.raw, case.options)
    if dataset_digest(again) != dataset_digest(case.data) or again.info != case.data.info:
        raise Broken("preparing the same data twice returns different arrays or a different DataInfo")


def _leaks_nothing(case: PreparedTask) -> None:
    try:
        assert_nothing_leaks(case.task, case.raw, case.options)
    except AssertionError as error:
        raise Broken(str(error)) from None


def _prepares_examples_independently(case: PreparedTask) -> None:
    import numpy as np

    try:
        _is_deterministic(case)
    except Broken as reason:
        raise NotChecked(str(reason)) from None
    for name in ("validation", "test"):
        raw: Split = getattr(case.raw, name)
        half = max(1, len(raw) // 2)
        some = raw.take(np.arange(half))
        shortened = (
            dataclasses.replace(case.raw, test=some)
            if name == "test"
            else dataclasses.replace(case.raw, validation=some)
        )
        fewer = case.task.prepare(shortened, case.options)
        for column, array in getattr(case.data, name).inputs.items():
            if not same(np.asarray(array[:half]), np.asarray(getattr(fewer, name).inputs[column])):
                raise Broken(
                    f"the input {column!r} of an example in the {name} split changes if other examples are removed"
                )


def _transforms_as_it_prepares(case: PreparedTask) -> None:
    import msgspec
    import numpy as np

    from harness.data.protect import read_only_raw

    if type(case.task).transform is Task.transform:
        raise NotChecked("the task does not implement transform(), so `harness predict` cannot prepare new data")
    try:
        fitted = msgspec.json.decode(msgspec.json.encode(dict(case.data.fitted)))
    except TypeError as error:
        raise Broken(f"PreparedData.fitted cannot be written to a JSON file: {error}") from None
    raw, info = read_only_raw(case.raw), case.data.info
    for name in ("validation", "test"):
        split: Split = getattr(raw, name)
        found = case.task.transform(split.inputs, raw.details, fitted, info, case.options)
        for column, array in getattr(case.data, name).inputs.items():
            if column not in found or not same(np.asarray(array), np.asarray(found[column])):
                raise Broken(f"transform() and prepare() return different inputs {column!r} for the {name} split")


def _augments_reproducibly(case: PreparedTask) -> None:
    import numpy as np

    def augmented(seed: int) -> dict[str, Any]:
        some = {name: np.array(array[:8]) for name, array in case.data.train.inputs.items()}
        return case.task.augment(some, case.data.info, case.options, np.random.default_rng(seed))

    one, again = augmented(1), augmented(1)
    for name, array in case.data.train.inputs.items():
        before, after = array[:8], one.get(name)
        if after is None or (after.shape, after.dtype) != (before.shape, before.dtype):
            raise Broken(f"augment() removes the input {name!r} or changes its shape or dtype")
        if not same(after, again[name]):
            raise Broken(f"augment() changes {name!r} differently when called again with an rng in the same state")


def _modifies_nothing(case: PreparedTask) -> None:
    from harness.data.protect import read_only_raw

    try:
        case.task.prepare(read_only_raw(case.raw), case.options)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise Broken(f"prepare() changes the arrays of the dataset: {described_with_place(error)}") from None


TASK_RULES: tuple[Rule[PreparedTask], ...] = (
    Rule(
        "task-defaults-exist",
        "default_dataset, default_model, models_by_size and metrics exist and are compatible with the task.",
        "use names from your plugin or its dependencies; kind, produces and objective must match",
        _defaults_exist,
    ),
    Rule(
        "task-prepares-what-it-declares",
        "prepare() returns finite arrays with the shapes and dtypes in info, and keeps the number and order of "
        "examples.",
        "return inputs that match DataInfo.inputs, and targets as int64 [N] or [N, L], or float32 [N, outputs]",
        _prepares_what_it_declares,
    ),
    Rule(
        "task-is-deterministic",
        "Preparing the same data twice returns the same arrays.",
        "use np.random.default_rng with a fixed seed, and do not depend on the order of a set",
        _is_deterministic,
    ),
    Rule(
        "task-leaks-nothing",
        "Preprocessing is fitted on the training split only.",
        "fit vocabularies, means and scales on data.train, and list details of other splits in Task.reported",
        _leaks_nothing,
    ),
    Rule(
        "task-prepares-examples-independently",
        "A validation or test example is prepared independently of the other examples in its split.",
        "scale, pad and truncate with values fitted on data.train, not on the split itself",
        _prepares_examples_independently,
    ),
    Rule(
        "task-transforms-as-it-prepares",
        "transform() returns the prepared inputs of the validation and test splits, using only PreparedData.fitted.",
        "use the same function in prepare() and transform(), and put everything that it needs into PreparedData.fitted",
        _transforms_as_it_prepares,
    ),
    Rule(
        "task-augments-reproducibly",
        "augment() keeps shapes and dtypes, and its only source of randomness is rng.",
        "draw from the rng argument, and return every input with its shape and dtype",
        _augments_reproducibly,
    ),
    Rule(
        "task-modifies-nothing",
        "prepare() does not change the arrays of the dataset, which are read-only.",
        "copy the arrays before changing them in place",
        _modifies_nothing,
    ),
)
