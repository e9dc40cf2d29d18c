"""Stored explanations of the predictions of a trained model."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.errors import RecordError
from harness.records.arrays import read_arrays, write_arrays
from harness.records.files import make_directory
from harness.records.reading import MAX_JSON_BYTES, decode, is_stored, read_stored
from harness.records.store import StoredRun, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = "explanations"
"""Folder in a run's directory that contains the explanations."""
PERMUTATION = f"{FOLDER}/permutation.json"
GRADIENTS = f"{FOLDER}/integrated-gradients.json"
GRADIENT_ARRAYS = f"{FOLDER}/integrated-gradients.npz"

Interval = tuple[float, float]


class ColumnImportance(Struct, frozen=True, kw_only=True):
    """Importance of a column, or of several columns that are permuted together."""

    columns: tuple[str, ...]
    """Names of the columns in the original table."""
    importance: float
    """Mean of `values`."""
    std: float
    """Standard deviation of `values`, with the number of repeats as the divisor."""
    interval: Interval | None
    """95% interval of the mean over all permutations (Student's t), or None if there is only one repeat. The interval
    does not include the variation between test sets or between training runs."""
    values: list[float]
    """Decrease in the score (or increase, for error metrics) in each repeat."""


class PermutationImportance(Struct, frozen=True, kw_only=True):
    """Permutation importance of the columns of a table (Breiman 2001), as stored in `PERMUTATION`."""

    run: str
    split: str
    """``test`` or ``validation``."""
    examples: int
    """Number of examples in the split."""
    metric: str
    higher_is_better: bool
    score: float
    """Score of the split without permutation."""
    repeats: int
    seed: int
    backend: str
    device: str
    columns: list[ColumnImportance]
    """Columns, in the same order as in the table."""


def save_importance(run: StoredRun, found: PermutationImportance) -> Path:
    """Store a permutation importance with its run, and return the path of the file.

    Raises `OSError` or `harness.RecordError` if the file cannot be written.
    """
    make_directory(run.path / FOLDER)
    path = run.path / PERMUTATION
    write_json(path, found)
    return path


def stored_importance(run: StoredRun) -> PermutationImportance | None:
    """Return the permutation importance that is stored with a run, or None if there is none.

    Raises `harness.RecordError` if the file is damaged.
    """
    path = run.path / PERMUTATION
    if not is_stored(path):
        return None
    found = decode(read_stored(path, MAX_JSON_BYTES), PermutationImportance, path)
    if not all(each.columns for each in found.columns):
        raise RecordError(f"{path}: not valid: an importance has no column names")
    return found


class Attribution(Struct, frozen=True, kw_only=True):
    """Attribution of one output of a model to the inputs of one example.

    The arrays are stored in `GRADIENT_ARRAYS` as ``<number>/values/<input>`` (attributions) and
    ``<number>/inputs/<input>`` (prepared inputs). They are float32 arrays with the shape of one example's input. The
    placeholder ``<number>`` is the position of the attribution in `Attributions.found`, counted from 0.
    """

    example: str
    """Row number or path of the example, as in the first column of ``harness predictions``."""
    position: int | None
    """Position in the example for token classification, counted from 0. None for other objectives."""
    label: str
    """True class of the example or position or, for regression, the name of the target."""
    predicted: str
    """Predicted class or, for regression, the name of the target."""
    target: str
    """Class or regression target whose output is attributed."""
    output: float
    """Output for the example: the logit of the class, or the standardized regression target."""
    baseline_output: float
    """Output for the baseline."""
    delta: float
    """Convergence delta: sum of the attributions minus the difference between the outputs for the example and for the
    baseline. It is the error of the numerical integration."""
    inputs: list[str]
    """Names of the attributed inputs."""
    tokens: list[str]
    """Tokens of the example, or an empty list if the input is not a sequence of tokens."""
    scores: list[float]
    """Attribution of each token in `tokens`."""


class Attributions(Struct, frozen=True, kw_only=True):
    """Attributions of examples of the test split, as stored in `GRADIENTS`."""

    run: str
    method: str
    steps: int
    """Number of steps of the numerical integration."""
    backend: str
    device: str
    found: list[Attribution]


Arrays = dict[str, "NDArray[Any]"]


@contextmanager
def _locked(folder: Path, operation: int) -> Iterator[None]:
    """Hold a flock(2) lock on a folder, to prevent simultaneous explanations from mixing their files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems do not support locks
            fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def save_attributions(run: StoredRun, found: Attributions, arrays: Arrays) -> Path:
    """Store attributions and their arrays with a run, and return the path of the file.

    Raises `OSError` or `harness.RecordError` if a file cannot be written.
    """
    make_directory(run.path / FOLDER)
    path = run.path / GRADIENTS
    with _locked(path.parent, fcntl.LOCK_EX):
        path.unlink(missing_ok=True)  # Earlier attributions must never be combined with the new arrays.
        write_arrays(run.path / GRADIENT_ARRAYS, arrays)
        write_json(path, found)
    return path


def stored_attributions(run: StoredRun) -> tuple[Attributions, Arrays] | None:
    """Return the attributions that are stored with a run, and their arrays, or None if there are none.

    Raises `harness.RecordError` if a file is damaged.
    """
    path = run.path / GRADIENTS
    if not is_stored(path):
        return None
    with _locked(path.parent, fcntl.LOCK_SH):
        found = decode(read_stored(path, MAX_JSON_BYTES), Attributions, path)
        arrays = read_arrays(run.path / GRADIENT_ARRAYS)
    for number, each in enumerate(found.found):
        if len(each.tokens) != len(each.scores):
            raise RecordError(f"{path}: not valid: attribution {number} has scores without tokens")
        for name in each.inputs:
            values, given = (arrays.get(f"{number}/{kind}/{name}") for kind in ("values", "inputs"))
            if values is None or given is None or values.shape != given.shape or not _is_finite(values, given):
                raise RecordError(f"{run.path / GRADIENT_ARRAYS}: the arrays of attribution {number} are not valid")
    return found, arrays


def _is_finite(*arrays: NDArray[Any]) -> bool:
    import numpy as np

    return all(array.dtype.kind == "f" and bool(np.isfinite(array).all()) for array in arrays)
