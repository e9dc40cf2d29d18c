"""Overrides of settings, written as ``section.key=value``."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from harness.errors import UnknownNameError, UsageError

SECTIONS = ("recipe", "model", "task", "dataset", "protocol")


MAX_COMBINATIONS = 100_000
"""Maximum number of combinations of override values in one selection."""
MAX_INTEGER = 2**63 - 1
"""Largest absolute value of an integer in a setting."""


def combinations(overrides: Iterable[str]) -> list[tuple[str, ...]]:
    """Return all combinations of the values of overrides such as ``recipe.batch_size=16,32``. In each combination,
    every override has a single value.

    Values are separated by commas. Commas in brackets, braces and double quotes do not separate values. Text is treated
    as a single value if it is valid JSON, such as ``[1,2]`` or ``"a,b"``, or if it has an empty part, such as ``,``. A
    later override of a setting replaces an earlier one. The values of the last override change fastest.

    Raises `harness.UsageError` if there are too many combinations, or if a value occurs twice.
    """
    choices: dict[str, list[str]] = {}
    for text in overrides:
        path, equals, value = text.partition("=")
        values = _divided(value) if equals else [value]
        if len(set(values)) < len(values):
            raise UsageError(f"invalid override {text!r}: the same value occurs twice; remove one")
        choices.pop(path.strip(), None)
        choices[path.strip()] = [f"{path}{equals}{each}" for each in values]
    if math.prod(map(len, choices.values())) > MAX_COMBINATIONS:
        raise UsageError(
            f"the overrides result in more than {MAX_COMBINATIONS} combinations; remove some of the values"
        )
    return list(itertools.product(*choices.values()))


def _divided(value: str) -> list[str]:
    """Split a value at commas, as described in `combinations`."""
    try:
        msgspec.json.decode(value.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        parts, depth, quoted, escaped = [""], 0, False, False
        for sign in value:
            if sign == "," and depth == 0 and not quoted:
                parts.append("")
                continue
            parts[-1] += sign
            if sign == '"' and not escaped:
                quoted = not quoted
            depth += 0 if quoted else (sign in "[{") - (sign in "]}")
            escaped = sign == "\\" and not escaped
        stripped = [part.strip() for part in parts]
        return stripped if all(stripped) and depth == 0 and not quoted else [value]
    return [value]


def parse_overrides(overrides: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Convert ``["recipe.epochs=3"]`` to ``{"recipe": {"epochs": 3}}``. Raises `harness.UsageError` if an override is
    invalid."""
    parsed: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for text in overrides:
        path, equals, value = text.partition("=")
        section, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            raise UsageError(f"invalid override {text!r}; write it as section.key=value, such as recipe.epochs=3")
        if section not in parsed:
            raise UnknownNameError("section", section, SECTIONS, hint=f"(in the override {text!r})")
        try:
            parsed[section][key] = msgspec.json.decode(value.encode())
        except msgspec.DecodeError:
            parsed[section][key] = value
        except (UnicodeEncodeError, RecursionError):
            raise UsageError(f"invalid override {text!r}; its value is neither JSON nor plain text") from None
    return parsed


def as_overrides(values: Mapping[str, Any] | Iterable[str]) -> tuple[str, ...]:
    """Convert ``{"recipe.epochs": 3}`` to ``("recipe.epochs=3",)``. Strings are returned unchanged.

    Raises `harness.UsageError` if a value cannot be represented in JSON, or if it contains NaN or infinity.
    """
    if isinstance(values, Mapping):
        return tuple(f"{key}={_json(key, value)}" for key, value in values.items())
    return (values,) if isinstance(values, str) else tuple(values)


def own_data_overrides(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the overrides for options of the user's own data, such as ``{"target_column": "price"}``. Unset options
    are omitted. A single target column is passed as a string.

    The target, feature and slice columns are given as a string or an iterable of strings, such as an array or a pandas
    Index. Raises `harness.UsageError` if a column name is not a string.
    """
    values = dict(options)
    for name in ("target_column", "feature_columns", "slice_columns"):
        values[name] = _column_names(name, values.get(name))
    targets = values["target_column"]
    values["target_column"] = targets[0] if len(targets) == 1 else targets
    return as_overrides(
        {
            f"dataset.{name}": value
            for name, value in values.items()
            if value is not None and value is not False and not (isinstance(value, str | tuple) and not value)
        }
    )


def _column_names(option: str, given: Any) -> tuple[str, ...]:
    if given is None or isinstance(given, str):
        return (given,) if given else ()
    try:
        names = tuple(given)
    except TypeError:
        names = (given,)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise UsageError(f"{option} contains {wrong[0]!r}, which is not a string; pass the names of columns")
    return names


def override_path(text: str) -> str:
    """Return the setting that an override changes, such as ``recipe.epochs``."""
    return text.partition("=")[0].strip()


def _json(key: str, value: Any) -> str:
    """Return a value as JSON. Numpy numbers are converted to Python numbers, and dates are converted to strings."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_converted)
    except (TypeError, ValueError, RecursionError):
        if _has_infinite(value):
            raise UsageError(f"invalid value of {key}: {value!r}; pass a finite number") from None
        raise UsageError(f"invalid value of {key}: {value!r} cannot be written as JSON") from None


def _converted(value: Any) -> Any:
    for convert in ("item", "isoformat"):
        if hasattr(value, convert):
            return getattr(value, convert)()
    raise TypeError


@contextmanager
def declared_by(owner: str) -> Iterator[None]:
    """If a setting is invalid, add the name of the plugin object that declares the setting to the error message."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{owner}: {error}") from None


def merge(kind: type[Struct], section: str, *layers: Mapping[str, Any]) -> Any:
    """Return an instance of the struct type `kind` with the values in `layers`. Later layers take precedence.

    Raises `harness.UnknownNameError` if a key is not a field of `kind`, and `harness.UsageError` if a value is invalid.
    """
    values: dict[str, Any] = {}
    # `msgspec.structs.fields` is not used here, because evaluating all annotations would take most of the time of
    # planning.
    stored = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    known = [f"{section}.{name}" for name in stored]
    for layer in layers:
        for key, value in layer.items():
            if f"{section}.{key}" not in known:
                raise UnknownNameError("option", f"{section}.{key}", known)
            values[key] = value
    for name, value in values.items():
        if (large := _large_integer(value)) is not None:
            raise UsageError(
                f"invalid value of {section}.{name}: {large} is too large; pass an integer between {-MAX_INTEGER} and "
                f"{MAX_INTEGER}"
            )
    try:
        return msgspec.convert({stored[name]: value for name, value in values.items()}, kind, strict=True)
    except msgspec.ValidationError as error:
        for name, choices in _choices(kind):
            if name in values and values[name] not in choices:
                raise UnknownNameError(f"{section}.{name}", str(values[name]), choices) from None
        field = re.search(r"\$\.(\w+)", str(error))
        name = next((name for name in values if field and stored[name] == field[1]), "")
        if isinstance(values.get(name), str) and _has_infinite(_number(values[name])):
            raise UsageError(f"invalid value of {section}.{name}: {values[name]}; pass a finite number") from None
        names = {encoded: f"{section}.{name}" for name, encoded in stored.items()}
        message = re.sub(r"\$\.(\w+)", lambda path: names[path[1]], str(error))
        raise UsageError(f"invalid value in section {section!r}: {message}") from None


def _large_integer(value: Any) -> int | None:
    """Return the first integer in a value from JSON that does not have 64 bits, or None if there is none."""
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return value
    return next((found for part in _parts(value) if (found := _large_integer(part)) is not None), None)


def _has_infinite(value: Any) -> bool:
    """Return whether a value contains NaN or infinity."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return any(map(_has_infinite, _parts(value)))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _number(text: str) -> Any:
    """Return the value of a text that is JSON except for numbers such as ``nan``, ``-inf`` and ``1e400``. These numbers
    are read as NaN or infinity. Return None if the text cannot be read.
    """
    with suppress(ValueError, RecursionError):
        return json.loads(re.sub(r"(?i)[+-]?\b(nan|inf|infinity)\b", "NaN", text))
    return None


def _choices(kind: type[Struct]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the name and the allowed values of each field whose type is a `Literal` of strings."""
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is Literal and all(isinstance(word, str) for word in get_args(hint)):
            yield name, get_args(hint)
