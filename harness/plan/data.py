"""Plans that consist only of a dataset and its preparation, without a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.data.user_files.dataset import find_dataset
from harness.errors import UsageError
from harness.interfaces import Dataset, Task
from harness.plan.expand import check_dataset
from harness.plan.overrides import merge, parse_overrides
from harness.plan.settings import DataSettings, plain
from harness.plan.splits import data_settings
from harness.plugins.catalog import Catalog


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """A dataset, the task that prepares it, and the options of both."""

    task: Task
    dataset: Dataset
    settings: DataSettings
    """Settings of the selected split or, if none is selected, of the first fold or random split."""
    splits: Sequence[DataSettings]
    """Settings of all folds or random splits, or of the only split."""
    task_options: dict[str, Any]


def data_plan(task_name: str, dataset_name: str, overrides: Iterable[str], catalog: Catalog) -> DataPlan:
    """Return the plan for a dataset with overrides of the ``dataset`` and ``task`` sections.

    `dataset_name` may be a path. Raises `harness.UsageError` if a name is unknown, names cannot be combined, a value is
    invalid or the data cannot be used.
    """
    sections = parse_overrides(overrides)
    unused = [f"{section}.{key}" for section in ("recipe", "model", "protocol") for key in sections[section]]
    if unused:
        raise UsageError(f"{', '.join(unused)}: remove these settings; only dataset and task settings change the data")
    task = catalog.task(task_name)
    dataset = find_dataset(dataset_name, task, catalog)
    check_dataset(task, dataset)
    suited = dataset.task_options.get(task.name, {})
    settings = data_settings(dataset, sections["dataset"])
    task_options = merge(task.Options, "task", suited, sections["task"])
    for each in settings:
        each.check(task, task_options)
    return DataPlan(
        task=task,
        dataset=dataset,
        settings=settings[0],
        splits=settings,
        task_options=plain(task_options),
    )
