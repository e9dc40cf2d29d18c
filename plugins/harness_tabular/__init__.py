"""Classification of table rows: the ``tabular`` task and its default dataset."""

from __future__ import annotations

from collections.abc import Iterable

from harness import Dataset, Task, hookimpl

HARNESS_API_VERSION = "1.0"


@hookimpl
def harness_tasks() -> Iterable[Task]:
    from harness_tabular.task import TabularTask

    yield TabularTask()


@hookimpl
def harness_datasets() -> Iterable[Dataset]:
    from harness_tabular.breast_cancer import BreastCancer

    yield BreastCancer()
