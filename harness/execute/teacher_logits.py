"""Cache of the teacher's logits for the training examples in knowledge distillation.

`harness.execute.teacher` computes the logits, without augmenting the examples.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import DataError, RecordError
from harness.interfaces import PreparedData
from harness.records import RunSpec, TrainedWeights
from harness.records.arrays import digest, read_arrays
from harness.records.locations import cache_dir

if TYPE_CHECKING:
    from numpy.typing import NDArray


def is_distilled(spec: RunSpec) -> bool:
    """Return True if a run trains a student with a teacher."""
    return spec.teacher is not None and spec.weights is None and spec.recipe.distillation_alpha > 0


def logits_path(teacher: TrainedWeights) -> Path:
    """Return the path of a teacher's logits in the cache.

    The file name is a digest of the run, its backend, its weights, the prepared data, and the preprocessing.
    """
    identity = [teacher.run, teacher.backend, teacher.digest, teacher.dataset_digest]
    return cache_dir() / "teachers" / f"{hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]}.npz"


def with_logits(data: PreparedData, spec: RunSpec) -> PreparedData:
    """Return the data with the teacher's logits for the training examples.

    If the run has no teacher, return the data unchanged.

    Raises `harness.DataError` if the logits are not in the cache, or if the teacher was trained on different examples
    or classes.
    """
    if not is_distilled(spec) or spec.teacher is None:
        return data
    name, arrays = spec.teacher.run, stored_logits(spec.teacher)
    if arrays is None:
        raise DataError(f"the logits of the teacher {name!r} are not in the cache: {logits_path(spec.teacher)}")
    _check_same(arrays, data, name)
    return dataclasses.replace(data, train=dataclasses.replace(data.train, teacher_logits=arrays["logits"]))


def notes(data: PreparedData) -> dict[str, str]:
    """Return notes for the record of a run with a teacher, or an empty dictionary."""
    logits = data.train.teacher_logits
    if logits is None:
        return {}
    return {"teacher_logits": f"SHA-256 {digest({'logits': logits})[:16]}, computed without augmentation"}


def _check_same(arrays: Mapping[str, NDArray[Any]], data: PreparedData, name: str) -> None:
    import numpy as np

    theirs, own = tuple(arrays["label_names"].tolist()), data.info.label_names
    if theirs != own:
        raise DataError(
            f"the classes of the teacher {name!r} are {', '.join(theirs[:8])}, but those of the student are "
            f"{', '.join(own[:8])}; train both on the same version of the data"
        )
    if not np.array_equal(arrays["targets"], data.train.targets):
        raise DataError(
            f"the training examples of the student ({len(data.train)}) and of the teacher {name!r} "
            f"({len(arrays['targets'])}) differ in number or in their targets; use the same version of the data and, "
            f"for token classification, the same task options"
        )


def stored_logits(teacher: TrainedWeights) -> dict[str, NDArray[Any]] | None:
    """Return the arrays in the cache. Return None if the arrays are missing or damaged.

    ``logits``, ``targets`` and ``label_names`` describe the training examples. ``code`` describes the code that
    computed the logits.
    """
    try:
        arrays = read_arrays(logits_path(teacher))
        expected = str(arrays.pop("digest"))
        return arrays if digest(arrays) == expected else None
    except (RecordError, KeyError):
        return None
