"""Warnings about features that reveal the target or the order of the rows, and about features without information."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError

ROW_NAMES = ("", "index", "id", "row", "row_id", "rowid", "row number", "unnamed: 0")
"""Names of columns with row numbers, in lower case."""
ROWS = 5000
"""Maximum number of rows that are used to test for linear dependence."""
COLUMNS = 500
"""Maximum number of columns that are used to test for linear dependence."""
EXACT = 1e-9
"""Relative residual below which the target is a linear combination of the features."""
NUMBERED = 10
"""Minimum number of rows for which consecutive numbers are regarded as row numbers."""

Numbers = NDArray[np.float64]
Parts = Mapping[str, NDArray[Any]]


def row_numbers(features: Mapping[str, Numbers]) -> list[str]:
    """Return a warning about each feature ``[N]`` that contains row numbers."""
    found = []
    for name, values in features.items():
        usual = name.strip().lower() in ROW_NAMES or name.startswith("Unnamed:")
        steps = np.diff(values)
        counts = len(values) >= NUMBERED and bool(np.all(np.abs(steps) == 1) and np.all(steps == steps[0]))
        if counts or (usual and len(values) > 1):
            why = "its values are consecutive numbers" if counts else "because of its name"
            found.append(
                f"feature column {name!r} seems to contain row numbers ({why}), which are not informative for "
                f"other rows; leave "
                "it out with --feature-columns"
            )
    return found


def giveaways(
    features: Mapping[str, Numbers], categories: Mapping[str, NDArray[Any]], targets: Mapping[str, Numbers]
) -> list[str]:
    """Return warnings about features ``[N]`` that determine a target ``[N]`` exactly."""
    found = []
    for target, values in targets.items():
        if len(np.unique(values)) < 3 or len(values) < NUMBERED:
            continue
        linear = _linear(features, values)
        if len(linear) == 1:
            found.append(
                f"target {target!r} is a linear function of the feature {linear[0]!r}; check that it is known "
                f"at prediction time"
            )
        elif linear:
            shown = ", ".join(map(repr, linear[:5])) + (f" and {len(linear) - 5} more" if len(linear) > 5 else "")
            found.append(
                f"target {target!r} is a linear combination of the features {shown}; check that all of them are "
                f"known at prediction time"
            )
        others = [name for name in (*features, *categories) if name not in linear]
        for name in others:
            column = features[name] if name in features else categories[name]
            if is_one_to_one(column, values) or (name in features and is_monotone(column, values)):
                found.append(
                    f"target {target!r} is a one-to-one function of the feature {name!r}; check that it is "
                    f"known at prediction time"
                )
    return found


def label_giveaways(features: Mapping[str, NDArray[Any]], labels: NDArray[Any]) -> list[str]:
    """Return a warning about each feature ``[N]`` with one value for each label ``[N]``."""
    return [
        f"the label is a one-to-one function of the feature {name!r}; check that it is known at prediction time"
        for name, column in features.items()
        if len(labels) >= NUMBERED and is_one_to_one(column, labels)
    ]


def _linear(features: Mapping[str, Numbers], target: Numbers) -> list[str]:
    """Return the features of which the target is a linear combination, or an empty list if there is no exact
    combination. A single feature is preferred; otherwise, the features with non-zero weights are returned.
    """
    step = len(target) // ROWS + 1
    y = target[::step]
    columns = {name: values[::step] for name, values in features.items() if not np.isnan(values).all()}
    for name, values in columns.items():
        known = ~np.isnan(values)
        if known.sum() > 0.5 * len(y) and _residual(values[known, None], y[known])[0] < EXACT:
            return [name]
    whole = {name: values for name, values in columns.items() if np.ptp(values) > 0}  # not with NaN
    if not 1 < len(whole) <= COLUMNS or len(y) < 2 * (len(whole) + 1):
        return []
    names, matrix = list(whole), np.stack(list(whole.values()), axis=1)
    residual, weights = _residual(matrix, y)
    if residual >= EXACT:
        return []
    return [name for name, weight in zip(names, weights, strict=True) if abs(weight) > 1e-6]


def _residual(matrix: Numbers, y: Numbers) -> tuple[float, Numbers]:
    """Return the relative residual of a least squares fit with intercept, and the weights of the scaled columns."""
    if len(y) < 2 * (matrix.shape[1] + 1):
        return np.inf, np.zeros(matrix.shape[1])
    centered = matrix - matrix.mean(axis=0)
    scale = np.abs(centered).max(axis=0)
    rest = y - y.mean()
    size = np.abs(rest).max()
    if size == 0 or not scale.all():
        return np.inf, np.zeros(matrix.shape[1])
    scaled, rest = centered / scale, rest / size
    weights = np.linalg.lstsq(scaled, rest, rcond=None)[0]
    return float(np.linalg.norm(rest - scaled @ weights) / np.linalg.norm(rest)), weights


def is_one_to_one(column: NDArray[Any], target: NDArray[Any]) -> bool:
    """Return True if equal cells have equal targets and vice versa, and at most half of the values are distinct."""
    keys = [None if cell != cell else cell for cell in column.tolist()]
    values = target.tolist()
    distinct = len(set(keys))
    return 1 < distinct <= len(values) / 2 and len(set(values)) == distinct == len(set(zip(keys, values, strict=True)))


def is_monotone(column: Numbers, target: Numbers) -> bool:
    """Return whether the target increases or decreases strictly with the column, in at least 20 different values."""
    known = ~np.isnan(column)
    if known.sum() < max(20, 0.5 * len(column)):
        return False
    x, y = column[known], target[known]
    order = np.argsort(x, kind="stable")
    if (np.diff(x[order]) == 0).any():
        return False
    steps = np.diff(y[order])
    return bool((steps > 0).all() or (steps < 0).all())


def check_trained(source: str, features: Mapping[str, Numbers], train: NDArray[Any]) -> None:
    """Raise `harness.DataError` if a feature ``[N]`` has no number in the training split."""
    empty = [name for name, values in features.items() if np.isnan(values[train]).all()]
    if empty:
        columns = f"column {empty[0]!r} has" if len(empty) == 1 else f"columns {', '.join(map(repr, empty[:5]))} have"
        raise DataError(
            f"{source}: {columns} no number in the training split; leave it out with --feature-columns "
            "(dataset.feature_columns), or change the splits"
        )


def coverage(features: Mapping[str, Numbers], categories: Parts, parts: Parts) -> list[str]:
    """Return warnings about features that are constant in the training split, and about categories that it lacks."""
    train = parts["train"]
    constant = [name for name, values in features.items() if _is_constant(values[train])]
    constant += [name for name, cells in categories.items() if len({cells[row] for row in train}) == 1]
    found = []
    if constant:
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        found.append(
            f"constant in the training split, so the model cannot learn from it: "
            f"{'column' if len(constant) == 1 else 'columns'} {', '.join(map(repr, constant[:5]))}{more}"
        )
    for name, cells in categories.items():
        known = {cells[row] for row in train}
        for part in ("validation", "test"):
            unknown = [cells[row] for row in parts[part] if cells[row] not in known]
            if unknown:
                values = list(dict.fromkeys("missing" if cell is None else repr(cell) for cell in unknown))
                shown = ", ".join(values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "")
                found.append(
                    f"column {name!r}: the categories of {len(unknown):,} {part} "
                    f"{'row' if len(unknown) == 1 else 'rows'} do not occur in the training split ({shown}); "
                    f"they are encoded as all zeros"
                )
    return found


def _is_constant(values: Numbers) -> bool:
    return bool(((values == values[0]) | np.isnan(values) & np.isnan(values[0])).all())


def constant_targets(targets: Mapping[str, Numbers], parts: Parts) -> list[str]:
    """Return a warning about each target that is constant in the training or the test split."""
    return [
        f"target {name!r} has the same value in all rows of the {'training' if part == 'train' else part} split"
        for name, values in targets.items()
        for part in ("train", "test")
        if len(parts[part]) > 1 and np.ptp(values[parts[part]]) == 0
    ]
