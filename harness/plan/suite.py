"""Suites: TOML files with several selections, which can be shared and run again.

::

    protocol = "publish"  # for all runs that do not set it

    [[run]]
    task = ["nlp", "vision"]
    backend = ["torch", "tensorflow"]

    [[run]]
    task = "regression"
    dataset = "uci-energy"
    split = "all"
    set = { "recipe.epochs" = 5 }

The keys are the names in `harness.plan.selection.OPTIONS`. Keys of `shared` options can also be set above the runs, and
then apply to all of them. ``set`` can also be a list, such as ``["recipe.epochs=5"]``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.errors import RecordError, UnknownNameError, UsageError
from harness.plan.overrides import as_overrides
from harness.plan.selection import OPTIONS, Option, Selection
from harness.records.reading import read_named

MAX_BYTES = 16 * 2**20
"""Maximum size of a suite."""


def load(path: Path) -> list[Selection]:
    """Return the selections of a suite, in order. Raises `harness.UsageError` if the file is invalid."""
    try:
        content = tomllib.loads(read_named(path, MAX_BYTES).decode())
    except RecordError as error:
        raise UsageError(str(error)) from None
    except RecursionError:
        raise UsageError(f"{path}: not a valid suite: its values are nested too deeply") from None
    except ValueError as error:  # not UTF-8, not TOML, or a number with too many digits
        raise UsageError(f"{path}: not a valid TOML file: {error}") from None
    runs = content.pop("run", [])
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise UsageError(f"{path}: contains no runs; add a table [[run]] with a task for each run")
    _check_keys(path, "the file", content, [option.name for option in OPTIONS.values() if option.shared])
    return [_selection(path, number, {**content, **run}) for number, run in enumerate(runs, start=1)]


def dump(selections: Iterable[Selection]) -> str:
    """Return the selections as the text of a suite, which `load` can read."""
    return "\n".join(map(_entry, selections))


def _selection(path: Path, number: int, values: Mapping[str, Any]) -> Selection:
    _check_keys(path, f"run {number}", values, _Run.__struct_fields__)
    try:
        run: dict[str, Any] = msgspec.structs.asdict(msgspec.convert(dict(values), _Run))
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}, run {number}: {error}") from None
    return Selection.from_values(run | {"set": as_overrides(run["set"] or ())})


def _check_keys(path: Path, where: str, values: Mapping[str, Any], known: Collection[str]) -> None:
    for key in values:
        if key not in known:
            raise UnknownNameError("key", key, known, hint=f"(in {where} of {path})")


def _type(option: Option) -> Any:
    if option.name == "set":
        return dict[str, Any] | list[str]
    if not option.several:
        return option.kind
    several = option.kind | list[option.kind]  # type: ignore[name-defined]
    return several | Literal[option.every] if option.every else several


_Run = msgspec.defstruct(
    "_Run",
    [("task", _type(OPTIONS["tasks"]))]
    + [(option.name, _type(option), None) for option in OPTIONS.values() if option.name != "task"],
    kw_only=True,
)


def _entry(selection: Selection) -> str:
    lines = ["[[run]]"]
    for option, values in selection.values():
        as_list = len(values) > 1 or option.name == "set"
        lines.append(f"{option.name} = {_toml(values if as_list else values[0])}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Return a value as TOML. JSON strings, numbers and booleans, and lists of them, are valid TOML."""
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007F")
