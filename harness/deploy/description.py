"""Description of an exported model."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Format = Literal["onnx", "torch-export", "savedmodel", "safetensors"]


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of ``export.json``, which describes the exported files."""

    version: int = 1
    run: str
    """Id of the run that trained the model."""
    format: Format
    files: list[str]
    """Exported files, relative to the folder."""
    inputs: dict[str, Any]
    """Shape of one example and dtype of each input. The batch axis comes first and can have any size."""
    outputs: str
    """Meaning of the outputs."""
    examples: int
    """Number of test examples whose outputs were compared with the run's."""
    same_labels: int | None
    """Number of these examples for which the predicted label is the same as in the run, or None for regression."""
    error: float
    """Normwise relative difference between the outputs and the run's."""
