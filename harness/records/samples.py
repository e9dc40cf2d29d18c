"""Functions that read and validate the raw samples of a run and convert them to the form used by plots and comparisons.

Windows are converted to throughputs. Outputs are converted to predictions in the units of the targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import RecordError
from harness.records import IGNORED, RunRecord, Success
from harness.records.arrays import read_arrays
from harness.records.printing import note
from harness.records.reading import is_stored
from harness.records.store import ARRAYS, StoredRun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]
    Floats = NDArray[np.float64]


_KINDS = {
    "train_batch_size": ("iu", 0),
    "train_window_steps": ("iu", 1),
    "train_window_s": ("f", 1),
    "train_losses": ("f", 1),
    "sampling_window_steps": ("iu", 1),
    "sampling_window_s": ("f", 1),
    "inference_window_batches": ("iu", 1),
    "inference_window_s": ("f", 1),
    "latencies_s": ("f", 1),
}
"""Allowed dtype kinds (``numpy.dtype.kind``) and number of dimensions of each array, by name."""
_PAIRS = (
    ("train_window_steps", "train_window_s"),
    ("sampling_window_steps", "sampling_window_s"),
    ("inference_window_batches", "inference_window_s"),
    ("test_targets", "test_outputs"),
    ("validation_targets", "validation_outputs"),
)
"""Arrays that are saved together and have the same length."""


def stored(run: StoredRun) -> dict[str, NDArray[Any]]:
    """Return the raw samples of a run by name, or an empty dictionary if they were not saved.

    Raises a `harness.RecordError` that names the file if the raw samples cannot be read or do not match the record.
    """
    path = run.path / ARRAYS
    if not is_stored(path):
        return {}
    arrays = read_arrays(path)
    problem = _problem(run.record, arrays)
    if problem:
        raise RecordError(f"{path}: {problem}")
    return arrays


def not_stored(record: RunRecord) -> str:
    """Return a message for a run whose predictions were not stored."""
    if isinstance(record.outcome, Success) and record.outcome.scores.streamed:
        return (
            f"the predictions of run {record.run_id!r} were not stored, because its metrics were computed batch by "
            "batch; repeat the run with --set protocol.save_outputs=true"
        )
    return f"the predictions of run {record.run_id!r} were not saved; repeat the run"


def usable(run: StoredRun) -> dict[str, NDArray[Any]]:
    """Return the raw samples of a run by name, or an empty dictionary if they were not saved or cannot be used.

    If the raw samples cannot be used, a warning that names the file is printed to stderr, once per file.
    """
    try:
        return stored(run)
    except RecordError as error:
        _warn(str(error))
        return {}


@lru_cache(maxsize=4096)
def _warn(problem: str) -> None:
    """Print a warning. The function is cached, so that each warning is printed only once."""
    note(f"{problem}; the raw samples of this run are ignored")


def _problem(record: RunRecord, arrays: Arrays) -> str:
    """Return the reason why the arrays do not match the record, or an empty string if they match."""
    if not isinstance(record.outcome, Success):
        return ""
    for name, (kinds, dimensions) in _KINDS.items():
        if name in arrays and (arrays[name].dtype.kind not in kinds or arrays[name].ndim != dimensions):
            return f"{name} is {_shown(arrays[name])}"
    for one, other in _PAIRS:
        if (one in arrays) != (other in arrays):
            missing, present = sorted((one, other), key=lambda name: name in arrays)
            return f"the file contains {present}, but not {missing}"
        if one in arrays and arrays[one].shape[:1] != arrays[other].shape[:1]:
            return f"{one} is {_shown(arrays[one])}, but {other} is {_shown(arrays[other])}"
    rows = arrays.get("test_rows")
    if rows is not None and (rows.dtype.kind not in "iU" or rows.shape != arrays.get("test_outputs", rows).shape[:1]):
        return f"test_rows is {_shown(rows)}"
    if "inference_window_s" in arrays and record.outcome.latency.batch_size < 1:
        return f"the batch size in the record is {record.outcome.latency.batch_size}"
    if "train_batch_size" in arrays and arrays["train_batch_size"] < 1:
        return f"train_batch_size is {arrays['train_batch_size']}"
    for name in ("train_window_steps", "sampling_window_steps", "inference_window_batches"):
        if name in arrays and not (arrays[name] > 0).all():
            return f"{name} contains numbers that are not positive"
    for name in ("train_window_s", "sampling_window_s", "inference_window_s"):
        if name in arrays and not (arrays[name] > 0).all():
            return f"{name} contains durations that are not positive"
    return _prediction_problem(record, arrays)


def _prediction_problem(record: RunRecord, arrays: Arrays) -> str:
    info = record.provenance.data
    if info is None or "test_outputs" not in arrays:
        return ""
    targets, outputs = arrays["test_targets"], arrays["test_outputs"]
    last = (info.outputs,)
    expected = targets.shape if info.objective == "regression" else (*targets.shape, *last)
    dimensions = 3 if info.objective == "token_classification" else 2
    if outputs.dtype.kind != "f" or outputs.shape != expected or outputs.ndim != dimensions or expected[-1:] != last:
        return (
            f"test_outputs ({_shown(outputs)}) does not match test_targets ({_shown(targets)}) and the number of "
            f"outputs ({info.outputs})"
        )
    if info.objective == "regression":
        return "" if targets.dtype.kind == "f" else f"test_targets is {_shown(targets)}"
    if targets.dtype.kind not in "iu":
        return f"test_targets is {_shown(targets)}"
    labeled = targets[targets != IGNORED] if info.objective == "token_classification" else targets
    if labeled.size and not 0 <= labeled.min() <= labeled.max() < info.outputs:
        return f"test_targets has values from {labeled.min()} to {labeled.max()}, but there are {info.outputs} classes"
    return ""


def _shown(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


class Windows(NamedTuple):
    """Timed windows of one phase, in chronological order."""

    samples_per_s: Floats
    seconds: Floats
    steady_from: int
    """Index of the first window of the steady state."""


def train_windows(record: RunRecord, arrays: Arrays) -> Windows | None:
    """Return the training windows, excluding the first step of each process, or None if they were not stored."""
    import numpy as np

    outcome = _outcome(record)
    if "train_window_s" not in arrays or outcome.speed.train is None:
        return None
    steps, seconds = arrays["train_window_steps"], arrays["train_window_s"]
    kept = np.ones(len(steps), bool)
    kept[first_windows(record, arrays)] = False
    steps, seconds = steps[kept], seconds[kept]
    if "sampling_window_s" in arrays:  # missing in records with schema version 1
        steps = np.concatenate([steps, arrays["sampling_window_steps"]])
        seconds = np.concatenate([seconds, arrays["sampling_window_s"]])
    if "train_batch_size" in arrays:  # missing in older records, in which all backends train in steps
        size = int(arrays["train_batch_size"])
    else:
        size = min(record.spec.recipe.batch_size, outcome.examples["train"])
    return Windows(steps / seconds * size, seconds, outcome.speed.train.warmup_windows)


def first_windows(record: RunRecord, arrays: Arrays) -> list[int]:
    """Return the indices of the training windows that contain the first step of a process.

    The first window of the run and the first window after each interruption are returned. The throughput is computed
    without these windows.
    """
    checkpoints = _outcome(record).checkpoints
    resumed = set() if checkpoints is None else set(checkpoints.resumed_at)
    ends = arrays["train_window_steps"].cumsum().tolist()
    return [index for index, start in enumerate([0, *ends[:-1]]) if start == 0 or start in resumed]


def inference_windows(record: RunRecord, arrays: Arrays) -> Windows | None:
    """Return the inference windows, or None if they were not stored."""
    outcome = _outcome(record)
    if "inference_window_s" not in arrays or outcome.speed.inference is None:
        return None
    seconds = arrays["inference_window_s"]
    rates = arrays["inference_window_batches"] / seconds * outcome.latency.batch_size
    return Windows(rates, seconds, outcome.speed.inference.warmup_windows)


def predictions(record: RunRecord, arrays: Arrays) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the targets and outputs for the test split, or None if they were not stored.

    For classification, targets are int64 ``[N]`` and outputs are logits ``[N, C]``. For token classification, the
    shapes are ``[N, L]`` and ``[N, L, C]``. For regression, both arrays are float64 ``[N, T]`` in the targets' units.
    """
    info = record.provenance.data
    if info is None or "test_outputs" not in arrays:
        return None
    return info.in_target_unit(arrays["test_targets"]), info.in_target_unit(arrays["test_outputs"].astype("float64"))


def _outcome(record: RunRecord) -> Success:
    assert isinstance(record.outcome, Success)
    return record.outcome
