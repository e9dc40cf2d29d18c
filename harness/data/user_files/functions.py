"""Detection of targets that are a function of a single column.

A function is reported only if it is exact in all rows and unlikely to occur by chance. The p-value of a function is an
upper bound on the probability that a function of the same kind exists for a random permutation of the target. The
p-value must be below `FALSE_ALARMS` divided by the number of columns. The bound on the p-value is valid for columns
that are independent of the target. A column may predict the target well but not exactly. Minimum row counts limit how
often a function is reported for a column that predicts the target inexactly.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

FALSE_ALARMS = 1e-6
"""Maximum probability that any function is reported for a table whose columns are independent of the target."""
FEWEST = 20
"""Minimum number of distinct values in each monotone piece of a function."""
PIECES = 4
"""Maximum number of monotone pieces of a function."""
FEW = 20
"""Maximum number of distinct target values for step functions."""
ROWS = 50
"""Minimum number of rows for step functions and for many-to-one functions of categories."""
ROWS_OF_TWO = 100
"""Minimum number of rows for a step function with only two ranges. Two ranges can also result from a column that
separates two clusters.
"""
PER_VALUE = 10
"""Minimum average number of rows for each column value or range."""
PER_RENAMED = 5
"""Minimum average number of rows per column value for a one-to-one function of categories. If each row of a table is
repeated a few times, any column with distinct values determines the target.
"""
NEAR = 5
"""Number of rows used on each side of a limit between two ranges to estimate the density of rows near the limit."""
DENSE = 0.7
"""Minimum density of rows near the limits of a range, relative to the density within the range.

If a column separates classes that form clusters, the rows between the clusters are sparse. A column with sparse rows
between clusters may predict the class well without fully determining the class.
"""
CHECKED_FIRST = 2000
"""Number of rows to examine first in order to rule out most columns."""


def relation(column: NDArray[Any], target: NDArray[Any], columns: int = 1) -> str | None:
    """Return a description of the function if the target ``[N]`` is a function of the column ``[N]``, and None
    otherwise.

    Rows without a number in the column are ignored. `columns` is the number of columns being examined.
    """
    numeric = column.dtype.kind == "f"
    if numeric:
        known = ~np.isnan(column)
        if known.sum() < max(FEWEST, 0.5 * len(column)):
            return None
        column, target = column[known], target[known]
    if target.dtype.kind == "f" and np.isnan(target).any():
        return None
    x, y = _numbered(column), _numbered(target)
    chance = math.log(FALSE_ALARMS / max(1, columns))
    step = len(x) // CHECKED_FIRST + 1
    for part in (slice(None, None, step), slice(None)) if step > 1 else (slice(None),):
        final = part == slice(None)
        found = _lookup(x[part], y[part], chance, final) or (
            _by_order(x[part], y[part], column[part], target[part], chance, final) if numeric else None
        )
        if found is None:
            return None
    return found


def _numbered(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the rank of each number, or the integer code of each category."""
    if values.dtype.kind in "iuf":
        ranks: NDArray[np.int64] = np.unique(values, return_inverse=True)[1].astype(np.int64)
        return ranks
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values.tolist()], np.int64)


def _log_arrangements(y: NDArray[np.int64]) -> float:
    """Return the logarithm of the number of distinct permutations of the values."""
    from scipy.special import gammaln

    return float(gammaln(len(y) + 1) - gammaln(np.bincount(y) + 1.0).sum())


def _lookup(x: NDArray[np.int64], y: NDArray[np.int64], chance: float, final: bool) -> str | None:
    """Return a description of the column if each of its values always occurs with the same target value, otherwise
    None."""
    # In a sample of the rows, not every code occurs.
    values, targets = len(np.unique(x)), int(y.max()) + 1
    pairs = len(np.unique(x * targets + y))
    if pairs != values or targets < 2:
        return None
    if not final:
        return "consistent"
    one_to_one = values == targets
    if values > len(x) / (PER_RENAMED if one_to_one else PER_VALUE) or (not one_to_one and len(x) < ROWS):
        return None
    ways = math.lgamma(values + 1) if one_to_one else values * math.log(targets)
    if ways - _log_arrangements(y) > chance:
        return None
    return "a one-to-one function" if one_to_one else "a function"


def _by_order(
    x: NDArray[np.int64], y: NDArray[np.int64], column: NDArray[Any], target: NDArray[Any], chance: float, final: bool
) -> str | None:
    """Return a description if the target is a piecewise monotone function of a numeric column. A description is also
    returned if the rows with the same target form ranges of the column.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    same = np.diff(x) == 0
    if (np.diff(y)[same] != 0).any():
        return None
    firsts = np.flatnonzero(np.append(True, ~same))
    if y.max() < FEW:
        return _ranges(y, column[order].astype(float), chance, final)
    if target.dtype.kind not in "iuf":
        return None
    steps = np.diff(y[firsts])
    directions = np.sign(steps[steps != 0])
    pieces = 1 + int((np.diff(directions) != 0).sum())
    if pieces > PIECES or (final and len(firsts) < FEWEST * pieces):
        return None
    from scipy.special import gammaln

    counts = np.bincount(y)
    shared = gammaln(counts + pieces) - gammaln(pieces) - gammaln(counts + 1.0)
    if final and math.log(2) + float(shared.sum()) - _log_arrangements(y) > chance:
        return None
    if pieces == 1:
        return "a one-to-one function" if len(firsts) == len(counts) else "a monotone function"
    return f"a piecewise monotone function ({pieces} pieces)"


def _ranges(y: NDArray[np.int64], column: NDArray[np.float64], chance: float, final: bool) -> str | None:
    """Return a description if the rows with the same target form ranges of the sorted column."""
    ends = np.flatnonzero(np.diff(y)) + 1
    targets, pieces = int(y.max()) + 1, len(ends) + 1
    if targets < 2 or pieces > 2 * targets - 1 + (targets == 2):
        return None
    if not final:
        return "ranges"
    if len(y) < max(ROWS if pieces > 2 else ROWS_OF_TWO, PER_VALUE * pieces):
        return None
    from scipy.special import gammaln

    ways = gammaln(len(y)) - gammaln(pieces) - gammaln(len(y) - pieces + 1)
    ways += math.log(targets) + (pieces - 1) * math.log(max(1, targets - 1))
    if float(ways) - _log_arrangements(y) > chance:
        return None
    limits = [0, *ends.tolist(), len(y)]
    density = [
        (end - start) / max(1e-300, float(column[end - 1] - column[start])) for start, end in itertools.pairwise(limits)
    ]
    ratios = []
    for number, end in enumerate(ends.tolist()):
        before, after = min(NEAR, end - limits[number]), min(NEAR, limits[number + 2] - end)
        span = float(column[end + after - 1] - column[end - before])
        ratios.append((before + after - 1) / span / min(density[number], density[number + 1]))
    if np.median(ratios) < DENSE:
        return None
    return f"a step function ({pieces} ranges)"
