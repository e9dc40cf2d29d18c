"""A dataset for ``torch.utils.data.DataLoader`` with low overhead, which slices whole batches from memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


class Batches(Dataset[Any]):
    """Dataset of named tensors whose ``__getitems__`` returns a whole batch."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def __len__(self) -> int:
        return len(next(iter(self._tensors.values())))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: tensor[index] for name, tensor in self._tensors.items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        first, last = indices[0], indices[-1] + 1  # a slice is sufficient, because the loader does not shuffle
        return {name: tensor[first:last] for name, tensor in self._tensors.items()}


def unchanged(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the batch unchanged, for use as ``collate_fn``."""
    return batch


def loader(arrays: Mapping[str, Any], size: int) -> DataLoader[Any]:
    """Return a loader that yields the full batches of `size` examples in order."""
    return DataLoader(Batches(arrays), batch_size=size, shuffle=False, drop_last=True, collate_fn=unchanged)
