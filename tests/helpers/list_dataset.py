"""A dataset with the interface of Hugging Face Datasets."""

from __future__ import annotations

from typing import Any


class ListDataset:
    """A dataset with the interface of ``datasets.Dataset``, stored as lists."""

    def __init__(self, columns: dict[str, list[Any]], **features: Any) -> None:
        self._columns, self.features, self.column_names = columns, features, list(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, rows: slice) -> dict[str, list[Any]]:
        return {name: cells[rows] for name, cells in self._columns.items()}

    def with_format(self, kind: None) -> ListDataset:
        return self
