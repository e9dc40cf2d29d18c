"""Regression on tables: the ``regression`` task, its datasets, and linear models and multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Iterable

from harness import Dataset, Model, Task, hookimpl

HARNESS_API_VERSION = "1.0"


@hookimpl
def harness_tasks() -> Iterable[Task]:
    from harness_regression.task import RegressionTask

    yield RegressionTask()


@hookimpl
def harness_datasets() -> Iterable[Dataset]:
    from harness_regression.datasets.california_housing import CaliforniaHousing
    from harness_regression.datasets.uci import UCI
    from harness_regression.datasets.wine_quality import WineQuality
    from harness_regression.diabetes import Diabetes

    yield Diabetes()
    yield from (table() for table in UCI)
    yield CaliforniaHousing()
    yield WineQuality()


@hookimpl
def harness_models() -> Iterable[Model]:
    from harness_regression.models.linear import Linear
    from harness_regression.models.mlp import Mlp

    yield Linear()
    yield Mlp()
