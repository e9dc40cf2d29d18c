"""Sort order for the names of classes, categories and groups."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WHOLE = re.compile(r"(-?[0-9]{1,100})(\.0+)?")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct names, sorted numerically if all names are whole numbers and alphabetically otherwise.

    Numbers such as ``2.0`` are considered whole numbers. An empty name, which denotes a missing value, comes first.
    """
    distinct = sorted(set(names))
    found = {name: _WHOLE.fullmatch(name) for name in distinct}
    if all(found[name] or not name for name in distinct):
        distinct.sort(key=lambda name: (bool(name), int(match[1]) if (match := found[name]) else 0))
    return tuple(distinct)
