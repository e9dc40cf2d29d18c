"""`Preprocessing`, the fitted preprocessing of a run, which is stored next to its weights."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from harness.records.spec import DataInfo

PREPROCESSING_VERSION = 1


class Preprocessing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Contents of ``preprocessing.json``, which are used to prepare new data for the trained weights.

    ``docs/reference/preprocessing.md`` describes the file.
    """

    version: int = PREPROCESSING_VERSION
    """Version of the format."""
    task: str
    """Name of the task whose method `transform` prepares new data."""
    input_kind: str
    """Kind of raw input: ``text``, ``table``, ``image``, ``audio``, or a kind defined by a plugin."""
    task_options: dict[str, Any]
    """Options of the task."""
    dataset_options: dict[str, Any]
    """Options of the user's training data, such as the column names. The options are empty for a dataset that a plugin
    provides."""
    info: DataInfo
    """Description of the prepared data, including the label names and the scale of the targets."""
    fitted: dict[str, Any]
    """Values that the task fitted on the training split, such as a tokenizer or means and scales."""
    reading: dict[str, Any]
    """Description of how the columns or images in the user's training data were read."""
