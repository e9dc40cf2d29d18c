"""Tests of the preparation of data by faulty tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from toy_plugin import TOY_REF, install_toy

from harness.errors import PluginError
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
