"""Tables of predictions: labels and probabilities, or values in the target's unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.user_files.encodings import encodable
from harness.errors import UsageError
from harness.records import IGNORED, DataInfo, Failure, Success, samples
from harness.records.store import StoredRun

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from harness.data.user_files.new_data import NewData


RESERVED = ("row", "path", "split", "seed")
"""Table columns that do not contain labels, values or predictions."""


def stored_predictions(run: StoredRun) -> pd.DataFrame:
    """Return the run's predictions for its test split as a table; see `table`.

    The first column is ``row``, the number of the row in the user's file, or ``path``, the path of the image or
    recording. For datasets from plugins, ``row`` is the position in the test split. Rows and positions are
    counted from 1. Raises `harness.UsageError` if the run failed or its predictions were not saved, and
    `harness.RecordError` if the stored arrays are damaged.
    """
    record = run.record
    if isinstance(record.outcome, Failure):
        raise UsageError(f"run {record.run_id!r} failed, so it has no predictions: {record.outcome.message}")
    if not isinstance(record.outcome, Success):
        raise UsageError(f"run {record.run_id!r} is a trial of harness tune, which does not predict the test split")
    arrays, info = samples.stored(run), record.provenance.data
    if info is None or "test_outputs" not in arrays:
        raise UsageError(samples.not_stored(record))
    targets, outputs = arrays["test_targets"], arrays["test_outputs"]
    rows = arrays.get("test_rows", np.arange(1, len(outputs) + 1))
    if info.objective == "regression":
        values = info.in_target_unit(targets)
        return table(info, outputs, rows, numbers=dict(zip(names_of(info), values.T, strict=True)))
    if info.objective == "token_classification":
        return _by_position(info, outputs, targets, rows)
    names = names_of(info)
    return table(info, outputs, rows, labels=[names[target] for target in targets])


def combined_predictions(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Return the predictions of several runs with the same settings, such as all folds of a cross-validation.

    The table has the same columns as the result of `stored_predictions`, with the additional columns ``split`` and
    ``seed`` after the first column. Rows are sorted by the first column. With all folds and one seed, each example has
    one row, with the prediction of a model that was not trained on this example. If the folds are in chronological
    order, examples before the first fold have no row. Raises the errors of `stored_predictions`, and
    `harness.UsageError` if the settings differ or if two runs have the same split and seed.
    """
    import pandas as pd

    first, tables = runs[0].record, []
    names: dict[tuple[int | None, int], str] = {}
    for run in runs:
        spec = run.record.spec
        if spec.group_key != first.spec.group_key:
            raise UsageError(
                f"runs {first.run_id!r} and {run.record.run_id!r} have different settings; pass runs that differ only "
                "in the split and the seed"
            )
        if (other := names.setdefault((spec.split, spec.seed), run.record.run_id)) != run.record.run_id:
            raise UsageError(f"runs {other!r} and {run.record.run_id!r} have the same split and seed; pass one of them")
        frame = stored_predictions(run)
        frame.insert(1, "split", spec.split)
        frame.insert(2, "seed", spec.seed)
        tables.append(frame)
    if len({tuple(each.columns) for each in tables}) > 1:
        raise UsageError("the runs have different classes or targets; pass runs that used the same data")
    joined = pd.concat(tables, ignore_index=True)
    return joined.sort_values(joined.columns[0], kind="stable", ignore_index=True)


def with_other_splits(run: StoredRun, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return, for each split, the newest successful run with the same settings and seed as `run`. For the split of
    `run`, this is `run` itself.

    Raises `harness.UsageError` if the run does not use a numbered split, or if a fold or random split has no successful
    run.
    """
    spec = run.record.spec
    if spec.split is None:
        raise UsageError(f"run {run.record.run_id!r} has no numbered split; remove --all-splits")
    found: dict[int | None, StoredRun] = {}
    for other in sorted(runs, key=lambda each: each.record.started_at):
        known = other.record.spec
        if known.group_key == spec.group_key and known.seed == spec.seed and isinstance(other.record.outcome, Success):
            found[known.split] = other
    found[spec.split] = run
    count = spec.split_count or 0
    if missing := [number for number in range(1, count + 1) if number not in found]:
        shown = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UsageError(
            f"there is no successful run of {spec.split_kind} {shown} of {count}; run the missing ones first"
        )
    return [found[number] for number in sorted(found, key=lambda split: split or 0)]


def table(
    info: DataInfo,
    outputs: NDArray[Any],
    rows: NDArray[Any],
    *,
    labels: Sequence[str | None] | None = None,
    numbers: Mapping[str, Sequence[float] | NDArray[Any]] | None = None,
    kept: Mapping[str, Sequence[Any]] | None = None,
) -> pd.DataFrame:
    """Return a table with one row per example.

    The first column is ``row`` or ``path``, followed by the columns in `kept`. For classification, the next columns are
    ``label`` (if `labels` are given), ``predicted``, and ``probability_<class>`` for each class. For regression, the
    next columns are the true values (if `numbers` are given), named by `true_column`, and the predictions
    ``predicted_<target>``. All of these values are in the target's unit. `outputs` are logits ``[N, C]`` or
    standardized predictions ``[N, T]``.

    Raises `harness.UsageError` if a column in `kept` has the same name as another column.
    """
    import pandas as pd

    found = _predicted(info, outputs, rows, labels, numbers)
    for place, (name, cells) in enumerate((kept or {}).items(), 1):
        if name in found:
            raise UsageError(
                f"the table already has a column {name!r}; rename the column in the data, or do not keep it"
            )
        plain = [cell if cell is None or isinstance(cell, int | float) else encodable(str(cell)) for cell in cells]
        found.insert(place, name, pd.Series(plain, dtype=object))
    return found


def check_kept(info: DataInfo, new: NewData) -> None:
    """Raise `harness.UsageError` if a kept column has the same name as another column of `table`."""
    nothing = np.zeros((0, info.outputs), np.float32)
    labels: list[str | None] | None = None if new.labels is None else []
    numbers: dict[str, list[float]] = {name: [] for name in new.numbers}
    table(info, nothing, new.rows[:0], labels=labels, numbers=numbers, kept=dict.fromkeys(new.kept, ()))


def _predicted(
    info: DataInfo,
    outputs: NDArray[Any],
    rows: NDArray[Any],
    labels: Sequence[str | None] | None,
    numbers: Mapping[str, Sequence[float] | NDArray[Any]] | None,
) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {"path" if rows.dtype.kind == "U" else "row": rows}
    names = names_of(info)
    if info.objective == "regression":
        columns |= {true_column(name, names): values for name, values in (numbers or {}).items()}
        values = info.in_target_unit(outputs)
        columns |= {f"predicted_{name}": values[:, number] for number, name in enumerate(names)}
        return pd.DataFrame(columns)
    if labels is not None:
        columns["label"] = list(labels)
    columns["predicted"] = [names[number] for number in outputs.argmax(axis=1)]
    columns |= {f"probability_{name}": column for name, column in zip(names, probabilities(outputs).T, strict=True)}
    return pd.DataFrame(columns)


def true_column(target: str, targets: Sequence[str]) -> str:
    """Return the name of the column with the true values of a regression target.

    This is the name of the target, unless another column of the table has this name. In this case, the name is preceded
    by ``true_``.
    """
    taken = {*RESERVED, *(f"predicted_{name}" for name in targets)}
    name = target
    while name in taken or (name != target and name in targets):
        name = f"true_{name}"
    return name


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
