"""The leanest data for a ``torch.utils.data.DataLoader``: whole batches are sliced, not gathered example by example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


class Batches(Dataset[Any]):
    """Tensors by name; ``__getitems__`` gives a batch as it is."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def __len__(self) -> int:
        return len(next(iter(self._tensors.values())))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: tensor[index] for name, tensor in self._tensors.items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        first, last = indices[0], indices[-1] + 1  # the order is that of the arrays
        return {name: tensor[first:last] for name, tensor in self._tensors.items()}


def as_it_is(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return batch


def loader(arrays: Mapping[str, Any], size: int) -> DataLoader[Any]:
    return DataLoader(Batches(arrays), batch_size=size, shuffle=False, drop_last=True, collate_fn=as_it_is)
