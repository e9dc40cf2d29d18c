"""Search spaces, written as ``recipe.learning_rate=log:1e-4:1e-2`` or ``recipe.batch_size=16,32,64``."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from harness.errors import UnknownNameError, UsageError
from harness.plan.overrides import as_overrides, combinations, parse_overrides

SECTIONS = ("recipe", "model", "task")
"""Sections whose settings can be searched. Trials with different data or a different measurement protocol would not be
comparable."""
_RANGE = re.compile(r"(?:(?P<log>log):)?(?P<low>(?!log:)[^:,\[\]{}\"]+):(?P<high>[^:,\[\]{}\"]+)")

Value = bool | int | float | str | None


class Dimension(Struct, frozen=True, kw_only=True):
    """The values that a search tries for one setting."""

    name: str
    """Name of the setting, such as ``recipe.learning_rate``."""
    kind: Literal["choices", "int", "float"]
    """``choices`` for a list of values. ``int`` or ``float`` for a range of numbers."""
    choices: tuple[Value, ...] = ()
    """Values to try if `kind` is ``choices``. Lists and mappings are written in JSON."""
    low: float = 0.0
    """Lower bound of a range (inclusive)."""
    high: float = 0.0
    """Upper bound of a range (inclusive)."""
    log: bool = False
    """True if the numbers in a range are drawn uniformly on a logarithmic scale."""

    @property
    def ends(self) -> tuple[Value, ...]:
        """All values in a list, or both bounds of a range."""
        return self.choices or tuple(self.number(end) for end in (self.low, self.high))

    def number(self, value: float) -> int | float:
        """Return a number in a range, converted to an integer if the setting is an integer."""
        return round(value) if self.kind == "int" else float(value)

    def contains(self, value: Any) -> bool:
        """Return whether a value is in the search space."""
        if self.kind == "choices":
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and self.number(value) == value

    @property
    def text(self) -> str:
        """The dimension as written on the command line."""
        if self.kind == "choices":
            return f"{self.name}={','.join(as_text(choice) for choice in self.choices)}"
        return f"{self.name}={'log:' if self.log else ''}{self.number(self.low)}:{self.number(self.high)}"


def as_text(value: Value) -> str:
    """Return the text that represents a value in an override."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def overrides(settings: Mapping[str, Value]) -> tuple[str, ...]:
    """Return settings as overrides, such as ``recipe.learning_rate=0.01``."""
    return tuple(f"{name}={as_text(value)}" for name, value in settings.items())


def search_texts(search: Mapping[str, str | Iterable[Any]] | Iterable[str]) -> tuple[str, ...]:
    """Return a search space as strings that `parse` accepts. Values that are lists are written in JSON."""
    if not isinstance(search, Mapping):
        return tuple(search)
    texts = []
    for name, values in search.items():
        if isinstance(values, str):
            texts.append(f"{name}={values}")
        else:
            listed = [text.partition("=")[2] for value in values for text in as_overrides({name: value})]
            texts.append(f"{name}={','.join(listed)}")
    return tuple(texts)


def parse(searches: Sequence[str], fields: Mapping[str, type[Struct]]) -> tuple[Dimension, ...]:
    """Return the dimensions of a search space.

    `fields` maps each section to the struct type of its settings. Raises `harness.UsageError` if the search space is
    empty, if a dimension cannot be parsed, or if a setting is unknown, occurs twice or cannot be searched.
    """
    if not searches:
        raise UsageError(
            "the search space is empty; pass --search, for example --search recipe.learning_rate=log:1e-4:1e-2"
        )
    found: dict[str, Dimension] = {}
    for text in searches:
        name, equals, space = (part.strip() for part in text.partition("="))
        section, dot, field = name.partition(".")
        if not (equals and dot and field):
            raise UsageError(
                f"invalid search {text!r}; write it as section.key=VALUES, such as recipe.batch_size=16,32 or "
                "recipe.learning_rate=log:1e-4:1e-2"
            )
        if section not in SECTIONS:
            known = f"(in the search {text!r}; only settings in the sections {', '.join(SECTIONS)} can be searched)"
            raise UnknownNameError("section", section, SECTIONS, hint=known)
        kind = fields[section]
        if field not in kind.__struct_fields__:
            raise UnknownNameError("option", name, [f"{section}.{each}" for each in kind.__struct_fields__])
        if name in found:
            raise UsageError(f"the setting {name} is searched twice; remove one of its --search options")
        found[name] = _dimension(text, name, space, typing.get_type_hints(kind)[field])
    return tuple(found.values())


def _dimension(text: str, name: str, space: str, hint: Any) -> Dimension:
    if not space:
        raise UsageError(f"the search {text!r} is empty; list values, or write a range as low:high")
    number = _number_type(hint)
    written = _RANGE.fullmatch(space)
    if written is None and number is not None and ":" in space:
        raise UsageError(f"invalid search {text!r}; write a range as low:high or log:low:high")
    if written is None or (number is None and not written["log"]):
        return Dimension(name=name, kind="choices", choices=_choices(text, name))
    if number is None:
        raise UsageError(f"invalid search {text!r}: {name} is not a number; list values, separated by commas")
    low, high = (_end(text, name, written[end], number) for end in ("low", "high"))
    if low >= high:
        raise UsageError(
            f"invalid search {text!r}: the range is empty or has a single value, because {low} is not less than "
            f"{high}; use --set for a fixed value"
        )
    if written["log"] and low <= 0:
        raise UsageError(f"invalid search {text!r}: the lower bound of a logarithmic range must be positive, got {low}")
    kind: Literal["int", "float"] = "int" if number is int else "float"
    return Dimension(name=name, kind=kind, low=low, high=high, log=bool(written["log"]))


def _number_type(hint: Any) -> type[int] | type[float] | None:
    """Return int or float for a numeric annotation, and None for all other annotations. Numeric annotations may be
    optional or ``Annotated``."""
    if typing.get_origin(hint) is typing.Annotated:
        return _number_type(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        found = {_number_type(part) for part in typing.get_args(hint) if part is not types.NoneType}
        return float if found == {int, float} else found.pop() if len(found) == 1 else None
    return hint if hint in (int, float) else None


def _end(text: str, name: str, end: str, number: type[int] | type[float]) -> float:
    try:
        value = number(end.strip())
    except ValueError:
        kind = "an integer" if number is int else "a number"
        raise UsageError(f"invalid search {text!r}: {end.strip()!r} is not {kind}, but {name} must be {kind}") from None
    if not math.isfinite(value):
        raise UsageError(f"invalid search {text!r}: the bounds of a range must be finite")
    return value


def _choices(text: str, name: str) -> tuple[Value, ...]:
    section, _, field = name.partition(".")
    found = [parse_overrides(each)[section][field] for each in combinations([text])]
    if len(found) < 2:
        raise UsageError(
            f"invalid search {text!r}: there is only one value; list several values, separated by commas, or use --set"
        )
    return tuple(value if isinstance(value, Value) else msgspec.json.encode(value).decode() for value in found)


def grid(dimensions: Iterable[Dimension], most: int) -> list[dict[str, Value]] | None:
    """Return all combinations of the values in lists and the bounds of ranges. Return None if there are more than
    `most` combinations."""
    combined: list[dict[str, Value]] = [{}]
    for dimension in dimensions:
        combined = [{**settings, dimension.name: value} for settings in combined for value in dimension.ends]
        if len(combined) > most:
            return None
    return combined
