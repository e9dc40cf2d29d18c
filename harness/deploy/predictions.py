"""Tables of predictions: labels and probabilities, or values in the target's unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UsageError
from harness.records import IGNORED, DataInfo, Failure, Success, samples
from harness.records.store import StoredRun

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def stored_predictions(run: StoredRun) -> pd.DataFrame:
    """Return the run's predictions for its test split as a table; see `table`.

    The first column is ``row`` or ``path``. The column contains the number of the row in the user's file, counted from
    1, or the path of the image or recording. For other data, the row number is the position in the test split, counted
    from
    1. Raises `harness.UsageError` if the run failed or its predictions were not saved, and `harness.RecordError` if the
    stored arrays are damaged.
    """
    record = run.record
    if isinstance(record.outcome, Failure):
        raise UsageError(f"run {record.run_id!r} failed, so it has no predictions: {record.outcome.message}")
    if not isinstance(record.outcome, Success):
        raise UsageError(f"run {record.run_id!r} is a trial of harness tune, which does not predict the test split")
    arrays, info = samples.stored(run), record.provenance.data
    if info is None or "test_outputs" not in arrays:
        raise UsageError(f"the predictions of run {record.run_id!r} were not saved; train it again")
    targets, outputs = arrays["test_targets"], arrays["test_outputs"]
    rows = arrays.get("test_rows", np.arange(1, len(outputs) + 1))
    if info.objective == "regression":
        values = info.in_target_unit(targets)
        return table(info, outputs, rows, numbers=dict(zip(names_of(info), values.T, strict=True)))
    if info.objective == "token_classification":
        return _by_position(info, outputs, targets, rows)
    names = names_of(info)
    return table(info, outputs, rows, labels=[names[target] for target in targets])


def table(
    info: DataInfo,
    outputs: NDArray[Any],
    rows: NDArray[Any],
    *,
    labels: Sequence[str | None] | None = None,
    numbers: Mapping[str, Sequence[float] | NDArray[Any]] | None = None,
) -> pd.DataFrame:
    """Return a table with one row per example.

    The first column is ``row`` or ``path``. For classification, the next columns are ``label`` (if `labels` are given),
    ``predicted``, and ``probability_<class>`` for each class. For regression, the next columns are the true values,
    named after the targets (if `numbers` are given), and the predictions ``predicted_<target>``. All of these values
    are in the target's unit. `outputs` are logits ``[N, C]`` or standardized predictions ``[N, T]``.
    """
    import pandas as pd

    columns: dict[str, Any] = {"path" if rows.dtype.kind == "U" else "row": rows}
    names = names_of(info)
    if info.objective == "regression":
        columns |= dict(numbers or {})
        values = info.in_target_unit(outputs)
        columns |= {f"predicted_{name}": values[:, number] for number, name in enumerate(names)}
        return pd.DataFrame(columns)
    if labels is not None:
        columns["label"] = list(labels)
    columns["predicted"] = [names[number] for number in outputs.argmax(axis=1)]
    columns |= {f"probability_{name}": column for name, column in zip(names, probabilities(outputs).T, strict=True)}
    return pd.DataFrame(columns)


def _by_position(info: DataInfo, outputs: NDArray[Any], targets: NDArray[Any], rows: NDArray[Any]) -> pd.DataFrame:
    """Return a table with one row for each labeled position of each example, and a ``position`` column that counts from
    0."""
    example, position = np.nonzero(targets != IGNORED)
    names = names_of(info)
    labels = [names[target] for target in targets[example, position]]
    found = table(info, outputs[example, position], rows[example], labels=labels)
    found.insert(1, "position", position)
    return found


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the softmax of logits ``[N, C]``, computed in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def names_of(info: DataInfo) -> tuple[str, ...]:
    """Return the names of the classes or targets. If there are no names, return the indices as strings."""
    return info.label_names or tuple(map(str, range(info.outputs)))
