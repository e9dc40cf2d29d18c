"""Warnings about features that reveal the target or the order of the rows, and about features without information."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.user_files import functions
from harness.data.user_files.training_values import unknown_categories
from harness.errors import DataError

ROW_NAMES = ("", "index", "id", "row", "row_id", "rowid", "row number", "unnamed: 0")
"""Common names of row number columns, in lower case."""
ROWS = 5000
"""Maximum number of rows in a test for linear dependence."""
COLUMNS = 500
"""Maximum number of columns to test for linear dependence."""
EXACT = 1e-3
"""Maximum relative residual of an exact linear combination of the features, which corresponds to R2 above 0.999999."""
PRODUCTS, LEVELS = 10, 20
"""Products of features are tested only if there are at most `PRODUCTS` features. Offsets are tested only for columns
with at most `LEVELS` categories."""
COMBINED = 5
"""Minimum number of rows for each feature, product and category in a test for linear combinations."""
ROUNDED = 0.6
"""Maximum residual of a rounded linear combination, in units of the target's last decimal."""
DISTINCT = 20
"""Minimum number of distinct values required to test whether a rounded target is a linear combination."""
SMALLEST = 1e-100
"""Lower limit for the largest absolute value in a column. The square of a number far below this limit underflows to 0
in double precision.
"""
GAPS = 5
"""Maximum mean difference between consecutive row numbers of a table from which rows were removed."""
NUMBERED, SHUFFLED = 10, 20
"""Minimum number of rows required to treat consecutive numbers as row numbers. The first value applies to sorted
columns, and the second to unsorted columns.
"""
ID_NAME = re.compile(r"(?i:(^|[_ .-])(id|uuid|guid|key|no|nr)$)|[a-z](Id|ID|Key|No|Nr)$")
"""Regular expression that matches the names of possible ID columns.

A matching column is an ID column if it contains distinct integers.
"""

Numbers = NDArray[np.float64]
Parts = Mapping[str, NDArray[Any]]


def row_numbers(features: Mapping[str, Numbers]) -> list[str]:
    """Return a warning for each feature ``[N]`` that contains row numbers."""
    found = []
    for name, values in features.items():
        usual = name.strip().lower() in ROW_NAMES or name.startswith("Unnamed:")
        steps = np.diff(values)
        counts = len(values) >= NUMBERED and bool(np.all(np.abs(steps) == 1) and np.all(steps == steps[0]))
        order = "" if counts or len(values) < SHUFFLED else _row_order(values, steps)
        shuffled = not counts and not order and len(values) >= SHUFFLED and bool(np.all(np.diff(np.sort(values)) == 1))
        identifies = ID_NAME.search(name.strip()) and _are_different_integers(values)
        if counts or order or shuffled or ((usual or identifies) and len(values) > 1):
            why = order or "because of its name"
            if counts or shuffled:
                why = f"its values are consecutive numbers{' in another order' * shuffled}"
            found.append(
                f"feature column {name!r} seems to contain row numbers ({why}), which carry no information "
                f"about other rows; leave "
                "it out with --feature-columns"
            )
    return found


def _row_order(values: Numbers, steps: Numbers) -> str:
    """Return a text that states whether integers increase or decrease from row to row. The text is empty if the
    integers do not resemble the row numbers of a table from which some rows were removed."""
    if not (values == np.floor(values)).all() or not ((steps > 0).all() or (steps < 0).all()):
        return ""
    if np.ptp(values) > GAPS * len(values) or (steps == steps[0]).all():  # equal steps may be a grid of measurements
        return ""
    return f"its values {'increase' if steps[0] > 0 else 'decrease'} from row to row"


def _are_different_integers(values: Numbers) -> bool:
    return bool((values == np.floor(values)).all()) and len(np.unique(values)) == len(values)


def giveaways(
    features: Mapping[str, Numbers], categories: Mapping[str, NDArray[Any]], targets: Mapping[str, Numbers]
) -> list[str]:
    """Return warnings about features ``[N]`` that determine a target ``[N]`` exactly."""
    found = []
    for target, values in targets.items():
        if len(values) < NUMBERED:
            continue
        linear = _linear(features, values) if len(np.unique(values)) > 2 else []
        if len(linear) == 1:
            found.append(
                f"target {target!r} is a linear function of the feature {linear[0]!r}; check that it is known "
                f"at prediction time"
            )
        elif linear:
            found.append(
                f"target {target!r} is a linear combination of the features {_listed(linear)}; check that all of them "
                "are known at prediction time"
            )
        others = {name: column for name, column in {**features, **categories}.items() if name not in linear}
        exact = _functions(others, values, f"target {target!r}")
        found += exact
        if not linear and not exact:
            products = _products(features, values, target)
            found += products or _combinations(features, categories, values, target)
            found += _functions_of_target(others, values, target)
    return found


def _products(features: Mapping[str, Numbers], values: Numbers, target: str) -> list[str]:
    """Return a warning if the target is a product of powers of several features. For example, a total price is the
    product of an amount and a unit price.

    The target may be rounded. Where the target is 0, one of the features must also be 0.
    """
    nonzero = values != 0
    if nonzero.sum() <= 0.5 * len(values) or len(np.unique(values)) < DISTINCT:
        return []
    sizes = np.abs(values[nonzero])
    logs = {name: np.log(np.abs(column[nonzero])) for name, column in features.items() if column[nonzero].all()}
    names = _linear(logs, np.log(sizes), ROUNDED * _last_place(values) / sizes)
    zero = np.any([features[name] == 0 for name in names], axis=0)
    if len(names) < 2 or not zero[~nonzero].all():
        return []
    return [
        f"target {target!r} is a product of powers of the features {_listed(names)}; check that all of them are known "
        "at prediction time"
    ]


def _combinations(
    features: Mapping[str, Numbers], categories: Mapping[str, NDArray[Any]], values: Numbers, target: str
) -> list[str]:
    """Return a warning if the target is a linear combination of the features, the products of two features, and an
    offset for each category. For example, a price may include a tax and a fee for each delivery method."""
    known = {name: column for name, column in features.items() if not np.isnan(column).any() and np.ptp(column) > 0}
    columns = dict(known)
    sources: dict[str, set[str]] = {name: {name} for name in known}
    if len(known) <= PRODUCTS:
        for one, other in combinations(known, 2):
            columns[f"{one} * {other}"] = known[one] * known[other]
            sources[f"{one} * {other}"] = {one, other}
    for name, cells in categories.items():
        levels = sorted({str(cell) for cell in cells})
        for level in levels[1:] if len(levels) <= LEVELS else ():
            columns[f"{name} = {level}"] = np.array([str(cell) == level for cell in cells], np.float64)
            sources[f"{name} = {level}"] = {name}
    used = set().union(*(sources[name] for name in _linear(columns, values)))
    if len(used) < 2 or len(values) < COMBINED * len(columns) or not used & known.keys():
        return []
    return [
        f"target {target!r} is a combination of the features {_listed(sorted(used))} (a sum of their multiples, "
        "products and offsets for categories); check that all of them are known at prediction time"
    ]


def _functions_of_target(columns: Mapping[str, NDArray[Any]], values: Numbers, target: str) -> list[str]:
    """Return a warning for each column that is a rounded or binned function of the target."""
    return [
        f"feature {name!r} is {found} of the target {target!r}; check that it is known at prediction time"
        for name, column in columns.items()
        if (found := functions.relation(values, column, len(columns))) and ("monotone" in found or "step" in found)
    ]


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def label_giveaways(features: Mapping[str, NDArray[Any]], labels: NDArray[Any]) -> list[str]:
    """Return a warning for each feature ``[N]`` that determines the labels ``[N]``."""
    return _functions(features, labels, "the label") if len(labels) >= NUMBERED else []


def _functions(columns: Mapping[str, NDArray[Any]], target: NDArray[Any], what: str) -> list[str]:
    """Return a warning for each column ``[N]`` that determines the target ``[N]``, and for each numeric column whose
    missing values determine it.
    """
    gaps = {name: np.isnan(column).astype(object) for name, column in columns.items() if column.dtype.kind == "f"}
    count = len(columns) + len(gaps)
    found = []
    for name, column in columns.items():
        if relation := functions.relation(column, target, count):
            found.append(f"{what} is {relation} of the feature {name!r}; check that it is known at prediction time")
        if name in gaps and functions.relation(gaps[name], target, count):
            found.append(
                f"{what} is determined by whether the feature {name!r} is missing; check that it is known at "
                "prediction time"
            )
    return found


def _linear(features: Mapping[str, Numbers], target: Numbers, tolerance: Numbers | None = None) -> list[str]:
    """Return features whose linear combination equals the target, or an empty list if there are none. If a single
    feature suffices, only this feature is returned. Otherwise, the features with nonzero weights are returned.

    `tolerance` (``[N]``) is the maximum difference from the target in each row. By default, the target may be rounded.
    """
    step = len(target) // ROWS + 1
    if tolerance is None:
        tolerance = np.full(len(target), ROUNDED * _last_place(target[::step]))
    y, tolerance = target[::step], tolerance[::step]
    columns = {name: values[::step] for name, values in features.items() if not np.isnan(values).all()}
    for name, values in columns.items():
        known = ~np.isnan(values)
        if known.sum() > 0.5 * len(y) and (
            _fit(values[known, None], y[known], tolerance[known])[0] or _is_rounded_line(values[known], y[known])
        ):
            return [name]
    known = ~np.any([np.isnan(values) for values in columns.values()], axis=0) if columns else np.zeros(len(y), bool)
    if known.sum() <= 0.5 * len(y):  # too few complete rows, so drop columns with missing values
        columns = {name: values for name, values in columns.items() if not np.isnan(values).any()}
        known = np.ones(len(y), bool)
    y, tolerance = y[known], tolerance[known]
    whole = {name: values[known] for name, values in columns.items() if np.ptp(values[known]) > 0}
    if not 1 < len(whole) <= COLUMNS or len(y) < 2 * (len(whole) + 1):
        return []
    names, matrix = list(whole), np.stack(list(whole.values()), axis=1)
    exact, used = _fit(matrix, y, tolerance)
    return [name for name, weight in zip(names, used, strict=True) if weight] if exact else []


def _fit(matrix: Numbers, y: Numbers, tolerance: Numbers) -> tuple[bool, NDArray[np.bool_]]:
    """Return whether `y` is a linear combination of the columns within `tolerance`. Also return a
    mask that is True for columns with nonzero weights.
    """
    none = np.zeros(matrix.shape[1], bool)
    if len(y) < 2 * (matrix.shape[1] + 1):
        return False, none
    centered = matrix - matrix.mean(axis=0)
    scale = np.abs(centered).max(axis=0)
    rest = y - y.mean()
    size = np.abs(rest).max()
    if size == 0 or not scale.all():
        return False, none
    scaled, rest = centered / scale, rest / size
    weights = np.linalg.lstsq(scaled, rest, rcond=None)[0]
    left = rest - scaled @ weights
    residual = float(np.linalg.norm(left) / np.linalg.norm(rest))
    exact = residual < EXACT or bool((np.abs(left) * size <= tolerance).all())
    return exact, np.abs(weights) > max(1e-6, 10 * residual)


def _is_rounded_line(x: Numbers, y: Numbers) -> bool:
    """Return whether the target is a linear function of a column. The target and the column may be rounded, for example
    after a unit conversion.
    """
    if np.ptp(x) == 0 or len(np.unique(x)) < DISTINCT or len(np.unique(y)) < DISTINCT:
        return False
    slope, offset = np.polyfit(x - x.mean(), y, 1)
    left = np.abs(y - offset - slope * (x - x.mean())).max()
    return bool(left <= ROUNDED * (_last_place(y) + abs(slope) * _last_place(x)))


def _last_place(y: Numbers) -> float:
    """Return the unit of the last decimal place, such as 0.01 for 1.25. Return 0 if the numbers are not rounded or have
    few distinct values.
    """
    if len(np.unique(y)) < DISTINCT:
        return 0.0
    places = (10.0**-place for place in range(-3, 7))
    return next((unit for unit in places if np.abs(y / unit - np.rint(y / unit)).max() < 1e-6), 0.0)


def check_trained(source: str, features: Mapping[str, Numbers], train: NDArray[Any]) -> None:
    """Raise `harness.DataError` if a feature ``[N]`` contains no numbers in the training split."""
    empty = [name for name, values in features.items() if np.isnan(values[train]).all()]
    if empty:
        columns = f"column {empty[0]!r} has" if len(empty) == 1 else f"columns {', '.join(map(repr, empty[:5]))} have"
        raise DataError(
            f"{source}: {columns} no numbers in the training split; leave it out with --feature-columns "
            "(dataset.feature_columns), or change the splits"
        )


def check_ranges(source: str, columns: Mapping[str, Numbers]) -> None:
    """Raise `harness.DataError` if the numbers of a column ``[N]`` are too close to 0 for standardization."""
    for name, values in columns.items():
        known = values[~np.isnan(values)]
        if known.size and 0 < np.abs(known).max() < SMALLEST:
            raise DataError(
                f"{source}: all values of column {name!r} are below {SMALLEST:g} in absolute value; use another unit"
            )


def coverage(features: Mapping[str, Numbers], categories: Parts, parts: Parts) -> list[str]:
    """Return warnings about features that are constant in the training split, and about missing values and categories
    that occur only in other splits."""
    train = parts["train"]
    constant = [name for name, values in features.items() if _is_constant(values[train])]
    constant += [name for name, cells in categories.items() if len({cells[row] for row in train}) == 1]
    found = []
    if constant:
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        columns = f"{'column' if len(constant) == 1 else 'columns'} {', '.join(map(repr, constant[:5]))}{more}"
        verb, pronoun = ("is", "it") if len(constant) == 1 else ("are", "them")
        found.append(f"{columns} {verb} constant in the training split, so a model cannot learn from {pronoun}")
    for name, column in features.items():
        gaps = {part: int(np.isnan(column[parts[part]]).sum()) for part in ("train", "validation", "test")}
        if not gaps["train"] and (gaps["validation"] or gaps["test"]):
            count = gaps["validation"] + gaps["test"]
            rows = "validation or test row has" if count == 1 else "validation and test rows have"
            found.append(f"column {name!r}: {count:,} {rows} no value, but all training rows have one")
    for name, cells in categories.items():
        known = {cells[row] for row in train}
        for part in ("validation", "test"):
            found += unknown_categories(name, [cells[row] for row in parts[part]], known, f"{part} row")
    return found


def _is_constant(values: Numbers) -> bool:
    return bool(((values == values[0]) | np.isnan(values) & np.isnan(values[0])).all())


def constant_targets(targets: Mapping[str, Numbers], parts: Parts) -> list[str]:
    """Return a warning for each target that is constant in the training or test split."""
    return [
        f"target {name!r} has the same value in all rows of the {'training' if part == 'train' else part} split"
        for name, values in targets.items()
        for part in ("train", "test")
        if len(parts[part]) > 1 and np.ptp(values[parts[part]]) == 0
    ]
