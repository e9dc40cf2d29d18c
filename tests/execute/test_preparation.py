"""Tests of the preparation of data by faulty datasets and tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from toy_plugin import TOY_REF, install_toy

from harness.errors import DataError, HarnessError, PluginError
from harness.execute.preparation import prepare_data
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load


def nothing(data: Any) -> Any:
    return None


def write(data: Any) -> Any:
    data.train.inputs["points"][:] = 0


def leave(data: Any) -> Any:
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (nothing, "returned NoneType instead of PreparedData"),
        (write, "assignment destination is read-only .*; copy the arrays before changing them"),
        (leave, "failed to prepare the data: SystemExit"),
    ],
)
def test_prepare_data_with_a_mistake_in_the_task_names_the_task(
    mistake: Callable[[Any], Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_toy(monkeypatch)
    catalog = load([TOY_REF])
    (spec,) = expand(Selection(tasks=("toy-classify",), backends=("toy-numpy",)), catalog)
    task = catalog.task("toy-classify")
    monkeypatch.setattr(type(task), "prepare", lambda self, data, options: mistake(data))
    with pytest.raises(PluginError, match=f"the task 'toy-classify' {said}|the task 'toy-classify' failed.*{said}"):
        prepare_data(catalog, spec)


def returned(change: Callable[[Any], Any]) -> Callable[[Any, Any, Any], Any]:
    return lambda load, self, options: change(load(self, options))


def raising(error: BaseException) -> Callable[[Any, Any, Any], Any]:
    def load(load: Any, self: Any, options: Any) -> Any:
        raise error

    return load


def with_train(data: Any, **changes: Any) -> Any:
    return dataclasses.replace(data, train=dataclasses.replace(data.train, **changes))


@pytest.mark.parametrize(
    ("load_with", "kind", "said"),
    [
        (raising(KeyError("x")), PluginError, "failed to load: KeyError: 'x' .test_preparation.py, line .*, in load."),
        (raising(FileNotFoundError("gone.csv")), PluginError, "failed to load: FileNotFoundError: gone.csv"),
        (raising(SystemExit(3)), PluginError, "failed to load: SystemExit: 3"),
        (raising(DataError("row 3 is empty")), DataError, ": row 3 is empty"),
        (returned(lambda data: None), PluginError, "returned NoneType instead of RawData"),
        (returned(lambda data: with_train(data, targets=data.train.targets[:0])), DataError, ": the training split is"),
        (returned(lambda data: with_train(data, targets=data.train.targets + 9)), DataError, ": training targets con"),
        (returned(lambda data: with_train(data, targets=None)), PluginError, "returned data that cannot be checked: "),
    ],
)
def test_prepare_data_with_a_mistake_in_the_dataset_names_the_dataset(
    load_with: Callable[[Any, Any, Any], Any], kind: type[HarnessError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_toy(monkeypatch)
    catalog = load([TOY_REF])
    (spec,) = expand(Selection(tasks=("toy-classify",), backends=("toy-numpy",)), catalog)
    dataset = type(catalog.dataset(spec.dataset))
    original = dataset.load
    monkeypatch.setattr(dataset, "load", lambda self, options: load_with(original, self, options))
    with pytest.raises(kind, match=f"dataset '{spec.dataset}' ?{said}"):
        prepare_data(catalog, spec)


def test_prepare_data_without_memory_in_the_dataset_stays_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    install_toy(monkeypatch)
    catalog = load([TOY_REF])
    (spec,) = expand(Selection(tasks=("toy-classify",), backends=("toy-numpy",)), catalog)
    monkeypatch.setattr(type(catalog.dataset(spec.dataset)), "load", lambda self, options: bytearray(1 << 60))
    with pytest.raises(MemoryError):
        prepare_data(catalog, spec)
