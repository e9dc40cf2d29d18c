"""Comparison of recorded values with recomputed ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

ROUNDING = 1e-9
"""Allowed relative difference between a recorded value and the value recomputed from the same samples in the same
order."""
LIBRARIES = 1e-6
"""Allowed relative difference between a recorded score and the recomputed one. Scores may differ slightly, because
different versions of a library may add numbers in a different order."""
SHOWN = 3
"""Maximum number of differences to list."""


def differences(recorded: Any, computed: Any, name: str, tolerance: float = ROUNDING) -> list[str]:
    """Return a description of each difference between two values, such as structs or containers.

    Numbers are considered equal if they differ by at most `tolerance`, relative to the larger number. At most `SHOWN`
    differences are listed, followed by the number of remaining differences.
    """
    found = list(_differences(msgspec.to_builtins(recorded), msgspec.to_builtins(computed), name, tolerance))
    more = len(found) - SHOWN
    return found if more <= 1 else [*found[:SHOWN], f"and {more} other differences"]


def same(recorded: float | None, computed: float | None, tolerance: float = ROUNDING) -> bool:
    """Return True if two values are equal up to rounding, or if both are missing."""
    if recorded is None or computed is None:
        return recorded is computed
    return math.isclose(recorded, computed, rel_tol=tolerance, abs_tol=1e-12)


def _differences(recorded: Any, computed: Any, name: str, tolerance: float) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(computed, dict):
        for key in computed:
            if key not in recorded:
                yield f"{name}[{key}] is missing from the record"
        for key, value in recorded.items():
            if key not in computed:
                yield f"{name}[{key}] should not be in the record"
            else:
                yield from _differences(value, computed[key], f"{name}.{key}", tolerance)
    elif isinstance(recorded, list | tuple) and isinstance(computed, list | tuple):
        if len(recorded) != len(computed):
            yield f"{name} has {len(recorded)} items in the record, but {len(computed)} after recomputation"
            return
        for number, (one, other) in enumerate(zip(recorded, computed, strict=True)):
            yield from _differences(one, other, f"{name}[{number}]", tolerance)
    elif not _equal(recorded, computed, tolerance):
        yield f"{name} is {recorded} in the record, but the recomputed value is {computed}"


def _equal(recorded: Any, computed: Any, tolerance: float) -> bool:
    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    if is_number(recorded) and is_number(computed):
        exact = isinstance(recorded, int) and isinstance(computed, int)
        return recorded == computed if exact else same(recorded, computed, tolerance)
    return type(recorded) is type(computed) and recorded == computed
