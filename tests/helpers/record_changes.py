"""Every change of one field in the JSON of a record, generated from the types of the fields."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from harness.checks.audit.fields import record_fields

TYPES = record_fields()


class Change(NamedTuple):
    """A record in which one field has been changed."""

    path: str
    kind: str
    record: dict[str, Any]


def changes(record: dict[str, Any]) -> Iterator[Change]:
    """Yield a copy of the record for every change of every field.

    For lists and dictionaries, the first item, the last item and the whole container are changed.
    """
    for path, place in _places("", (), record):
        value = _at(record, place)
        for kind, changed in _changed(path, value):
            new = copy.deepcopy(record)
            _at(new, place[:-1])[place[-1]] = changed
            yield Change(path, kind, new)


def _places(path: str, place: tuple[Any, ...], value: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the path of every field below a value, and the keys and indices that lead to it."""
    if place:
        yield path, place
    if isinstance(value, dict):
        is_struct = not place or isinstance(TYPES.get(path), msgspec.inspect.StructType)
        for name in list(value) if is_struct else _ends(list(value)):
            if path == "outcome" and name == "type":
                continue
            below = (f"{path}.{name}" if path else name) if is_struct else f"{path}[]"
            yield from _places(below, (*place, name), value[name])
    elif isinstance(value, list):
        for number in _ends(list(range(len(value)))):
            yield from _places(f"{path}[]", (*place, number), value[number])


def _ends(keys: list[Any]) -> list[Any]:
    """Return the first and the last of the keys or indices."""
    return keys if len(keys) < 3 else [keys[0], keys[-1]]


def _changed(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (kind, changed value) for every kind of change that applies to a value."""
    known = TYPES.get(path)
    if value is None:
        yield from (("filled with a number", 1), ("filled with a text", "x"))
        return
    yield "removed", None
    if isinstance(known, msgspec.inspect.LiteralType):
        yield from ((f"replaced by {other}", other) for other in known.values if other != value)
    elif isinstance(value, bool):
        yield "inverted", not value
    elif isinstance(value, int | float):
        yield "plus 1", value + 1
        yield "sign", -value
        yield "times 1.001", round(1.001 * value) if isinstance(value, int) else 1.001 * value
    elif isinstance(value, str):
        yield from (("emptied", ""), ("extended", value + "x"))
    elif isinstance(value, list):
        yield from (("emptied", []), ("shortened", value[:-1]), ("duplicated", [*value, *value[-1:]]))
        other = next((number for number, item in enumerate(value) if item != value[0]), 0)
        order = list(range(len(value)))
        order[:1], order[other : other + 1] = order[other : other + 1], order[:1]
        yield "swapped", [value[number] for number in order]
    elif not isinstance(known, msgspec.inspect.StructType):
        last = next(reversed(value), "")
        rest = {name: item for name, item in value.items() if name != last}
        yield from (("emptied", {}), ("shortened", rest), ("duplicated", {**value, f"{last}x": value.get(last)}))


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value
