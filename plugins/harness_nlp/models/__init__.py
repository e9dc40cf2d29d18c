"""Declarations of text models: sizes, canonical parameters and cost. The networks are implemented in the backend
packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import PluginError

if TYPE_CHECKING:
    from harness import DataInfo


def data_vocab_size(info: DataInfo) -> int:
    """Return the number of token ids in the prepared data. Raises `harness.PluginError` if the number is missing."""
    size = info.details.get("vocab_size")
    if not isinstance(size, int):
        raise PluginError("token data must specify the number of token ids in DataInfo.details['vocab_size']")
    return size


def sequence_length(info: DataInfo) -> int:
    """Return the padded length in tokens. Raises `harness.PluginError` unless ``input_ids`` has the shape [L]."""
    spec = info.inputs.get("input_ids")
    if spec is None or len(spec.shape) != 1:
        raise PluginError("token data must have an input 'input_ids' with the shape [tokens]")
    return spec.shape[0]
