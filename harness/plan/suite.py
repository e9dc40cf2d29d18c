"""Suites: TOML files that define several selections of runs.

::

    protocol = "publish"  # for all runs that do not set it
    budget_hours = 8

    [[run]]
    task = ["nlp", "vision"]
    backend = ["torch", "tensorflow"]
    matrix = { recipe.batch_size = [16, 32, 64] }
    exclude = [{ backend = "tensorflow", recipe.batch_size = 64 }]

    [[run]]
    task = "regression"
    dataset = "uci-energy"
    split = "all"
    set = { recipe.epochs = 5 }

The allowed keys are the names in `harness.plan.selection.OPTIONS`, `_ENTRY` and `_FILE`. Options with ``shared=True``
can also be set before the first ``[[run]]``. Such options then apply to all entries. The names of settings such as
``recipe.epochs`` can be quoted. The value of ``set`` can also be a list, such as ``["recipe.epochs=5"]``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harness.errors import HarnessError, RecordError, UnknownNameError, UsageError
from harness.plan.overrides import SECTIONS, as_overrides, override_path
from harness.plan.selection import OPTIONS, Option, Selection
from harness.plan.toml_lines import Place, lines_of
from harness.records.reading import read_named

MAX_BYTES = 16 * 2**20
"""Maximum size of a suite file."""


@dataclass(frozen=True)
class Suite:
    """The content of a suite file."""

    selections: list[Selection]
    budget_s: float | None = None
    """Time in seconds after which no more runs are started. If None, there is no limit."""


def load(path: Path) -> Suite:
    """Read a suite.

    Raises `harness.UsageError` if the suite is invalid. The error message contains the file name and the line number.
    """
    try:
        text = read_named(path, MAX_BYTES).decode("utf-8-sig")  # some editors write a byte order mark
        content = tomllib.loads(text)
    except RecordError as error:
        raise UsageError(str(error)) from None
    except RecursionError:
        raise UsageError(f"{path}: not a valid suite: the values are nested too deeply") from None
    except ValueError as error:  # not UTF-8, not TOML, or a number with too many digits
        raise UsageError(f"{path}: not a valid TOML file: {error}") from None
    return _Reader(path, text, content).suite()


def dump(selections: Iterable[Selection]) -> str:
    """Return the selections as suite text that `load` can read."""
    return "\n".join(map(_entry, selections))


def schema() -> str:
    """Return the JSON Schema (draft 2020-12) of a suite. Editors use the schema to complete and check keys."""
    content = msgspec.json.schema(_Suite)
    content["$defs"]["Run"]["anyOf"] = [{"required": [key]} for key in ("task", "weights")]
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "harness suite", **content}
    return msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=1).decode()


# ---- reading ----------------------------------------------------------------------------------------------


class _Reader:
    """Converter from a parsed suite to selections."""

    def __init__(self, path: Path, text: str, content: dict[str, Any]) -> None:
        self._path, self._content = path, content
        self._lines = cache(lambda: lines_of(text))
        """Line numbers of the keys, which are needed only for error messages."""

    def suite(self) -> Suite:
        runs = self._content.get("run", [])
        if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
            raise UsageError(f"{self._path}: contains no runs; add a table [[run]] with a task for each run")
        shared = {key: value for key, value in self._content.items() if key != "run"}
        self._check_keys(shared, _FILE, ())
        hours = {key: shared.pop(key) for key in list(shared) if key == "budget_hours"}
        budget = self._converted(hours, _Budget, ()).get("budget_hours")
        if budget == math.inf:
            self._fail("budget_hours must be finite; omit it to run without a limit", ("budget_hours",))
        selections = [each for number, run in enumerate(runs) for each in self._selections(number, run, shared)]
        return Suite(selections, budget and budget * 3600)

    def _selections(self, number: int, run: Mapping[str, Any], shared: Mapping[str, Any]) -> list[Selection]:
        """Return one selection for the combinations of an entry's values, and one for each item in ``include``."""
        place = ("run", number)
        self._check_keys(run, (*_OPTION_KEYS, *_ENTRY), place)
        entry = {**shared, **run}
        for key in ("set", "matrix"):
            if isinstance(entry.get(key), dict):
                entry[key] = self._flat(entry[key], (*place, key))
        for key in ("exclude", "include"):
            if isinstance(entry.get(key), list):
                entry[key] = [
                    self._flat(each, (*place, key, position)) if isinstance(each, dict) else each
                    for position, each in enumerate(entry[key])
                ]
        if not entry.keys() & {"task", "weights"}:
            self._fail("this entry selects no runs; set task or weights", place)
        self._check_matrix(entry.get("matrix"), place)
        values = self._converted(entry, _Run, place)
        name = values.pop("name", "")
        matrix, exclude, include = values.pop("matrix", {}), values.pop("exclude", []), values.pop("include", [])
        try:
            values["set"] = as_overrides(values.get("set", ()))
            dimensions = as_dimensions(matrix)
        except UsageError as error:
            self._fail(str(error), place)
        for path in matrix:
            if path in {override_path(text) for text in values["set"]}:
                self._fail(f"{path!r} is in both set and matrix; remove one of them", (*place, "matrix", path))
        dimensional = {key: _several(values[key]) for key in _DIMENSIONS if key in values} | dict(matrix)
        for position, rule in enumerate(exclude):
            self._check_rule(rule, dimensional, (*place, "exclude", position))
        base = self._selection(values | {"set": (*values["set"], *dimensions)}, place)
        found = [dataclasses.replace(base, exclude=tuple(exclude), name=name)]
        for position, extra in enumerate(include):
            here = (*place, "include", position)
            self._check_combination(extra, here)
            options = {key: value for key, value in extra.items() if key in OPTION_BY_KEY}
            changed = self._converted({**entry, **options}, _Run, here)
            kept = {key: value for key, value in matrix.items() if key not in extra}
            settings = {key: value for key, value in extra.items() if key not in options}
            remaining = [text for text in values["set"] if override_path(text) not in settings]
            overrides = (*remaining, *as_dimensions(kept), *as_overrides(settings))
            found.append(self._selection(changed | {"set": overrides}, here))
        return found

    def _selection(self, values: Mapping[str, Any], place: Place) -> Selection:
        try:
            selection = Selection.from_values(values)
        except UsageError as error:
            self._fail(str(error), place)
        return dataclasses.replace(selection, located=self._locator(place))

    def _check_matrix(self, matrix: object, place: Place) -> None:
        """Raise `harness.UsageError` if a setting in ``matrix`` does not have a list of values."""
        for key, value in matrix.items() if isinstance(matrix, dict) else ():
            if not isinstance(value, list) or not value:
                advice = f"write a list, such as {key} = [1, 2], or move a setting with one value to set"
                self._fail(f"{key!r} in matrix requires a list of values; {advice}", (*place, "matrix", key))

    def _check_rule(self, rule: Mapping[str, Any], dimensions: Mapping[str, Sequence[Any]], place: Place) -> None:
        """Raise `harness.UsageError` if a combination in ``exclude`` cannot match any run of the entry."""
        self._check_combination(rule, place)
        for key, value in rule.items():
            here = (*place, key)
            if key in OPTION_BY_KEY and key not in _DIMENSIONS:
                self._fail(f"{key!r} has the same value in all runs of the entry; remove it from exclude", here)
            if key not in OPTION_BY_KEY and key not in dimensions:
                self._fail(f"{key!r} is not in matrix, so exclude has no effect; add its values to matrix", here)
            if (
                key in dimensions
                and dimensions[key] != ["all"]
                and not any(_equal(value, each) for each in dimensions[key])
            ):
                known = ", ".join(map(_toml, dimensions[key]))
                self._fail(f"{key} = {_toml(value)} matches no run; the values of {key!r} are {known}", here)

    def _check_combination(self, combination: Mapping[str, Any], place: Place) -> None:
        if not combination:
            self._fail("this combination has no keys; add at least one", place)
        settings = [key for key in combination if key.partition(".")[0] in SECTIONS and "." in key]
        self._check_keys(combination, (*_COMBINED, *settings), place)

    def _flat(self, values: Mapping[str, Any], place: Place) -> dict[str, Any]:
        """Return the values of the settings, keyed by full name.

        In TOML, ``recipe.epochs = 1`` without quotes is a nested table.
        """
        flat = {key: value for key, value in values.items() if not _is_section(key, value)}
        for section, settings in values.items():
            for name, value in settings.items() if _is_section(section, settings) else ():
                if (key := f"{section}.{name}") in flat:
                    self._fail(f"{key!r} is set twice; remove one of the values", (*place, section, name))
                flat[key] = value
        return flat

    # ---- errors -------------------------------------------------------------------------------------------

    def _check_keys(self, values: Mapping[str, Any], known: Collection[str], place: Place) -> None:
        for key in values:
            if key not in known:
                moved = "" if place or key not in (*_OPTION_KEYS, *_ENTRY) else "(set it in each [[run]])"
                error = UnknownNameError("key", key, known, hint=moved)
                error.args = (f"{self._at((*place, key))}: {error}",)
                raise error

    def _converted(self, values: Mapping[str, Any], kind: Any, place: Place) -> dict[str, Any]:
        """Return the values that a table contains. Raises `harness.UsageError` if a value has the wrong type."""
        try:
            checked = msgspec.structs.asdict(msgspec.convert(dict(values), kind))
            return {key: value for key, value in checked.items() if value is not UNSET}
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$.")
            keys = re.findall(r"\w+", path)[:1]
            option = OPTION_BY_KEY.get(keys[0]) if keys else None
            if option is not None and option.choices and isinstance(values[option.name], str):
                message = str(UnknownNameError(option.name, values[option.name], option.choices))
            elif path:
                message = f"{path.rstrip('`')}: {message}"
            self._fail(message, (*place, *keys))

    def _fail(self, message: str, place: Place) -> NoReturn:
        raise UsageError(f"{self._at(place)}: {message}") from None

    def _at(self, place: Place) -> str:
        """Return the file and the line of the value at the path `place`.

        If this value has no line number, return the line of the closest enclosing value.
        """
        return f"{self._path}:{self._line(place)}"

    def _line(self, place: Place) -> int:
        lines = self._lines()
        while place and place not in lines:
            if (nested := _nested(place)) in lines:
                return lines[nested]
            # The key may be set for all entries, before the first [[run]].
            if (last := place[-1:]) in lines and place[:1] == ("run",) and len(place) == 3:
                return lines[last]
            place = place[:-1]
        return lines.get(place, 1)

    def _locator(self, place: Place) -> Callable[[HarnessError], str]:
        """Return a function that locates errors in an entry.

        The line of an error is found by searching the suite for the names in the error message.
        """

        def located(error: HarnessError) -> str:
            message = str(error)
            lines = self._lines()
            for word in re.findall(r"[\w-]+(?:\.\w+)*", message):
                keys = (word, word.removesuffix("s"), *(f"{section}.{word}" for section in SECTIONS))
                for key, parents in itertools.product(
                    keys, ((*place,), (*place, "set"), (*place, "matrix"), place[:2], ())
                ):
                    for found in ((*parents, key), _nested((*parents, key))):
                        if found in lines and key != "run":
                            return self._at(self._element(found, message))
            return self._at(self._element((*place, "set"), message) if (*place, "set") in lines else place)

        return located

    def _element(self, place: Place, message: str) -> Place:
        """Return the path of the first array element that is mentioned in `message`.

        If there is none, return `place`.
        """
        value: Any = self._content
        for step in place:
            value = value[step]
        texts = map(str, value if isinstance(value, list) else ())
        found = (re.search(rf"(?<![\w.-]){re.escape(text)}(?![\w-])", message) for text in texts)
        starts = [(match.start(), position) for position, match in enumerate(found) if match]
        return (*place, min(starts)[1]) if starts else place


def _is_section(key: str, value: Any) -> bool:
    return key in SECTIONS and isinstance(value, dict)


def _nested(place: Place) -> Place:
    """Return the path of a setting whose name is not quoted. TOML splits a name without quotes at the first period."""
    section, _, name = str(place[-1]).partition(".")
    return (*place[:-1], section, name)


def as_dimensions(matrix: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """Convert ``{"recipe.batch_size": [16, 32]}`` to ``("recipe.batch_size=16,32",)``.

    Raises `harness.UsageError` if a value cannot be represented in JSON.
    """
    return tuple(
        f"{key}={','.join(text.partition('=')[2] for value in values for text in as_overrides({'': value}))}"
        for key, values in matrix.items()
    )


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _equal(one: Any, other: Any) -> bool:
    return as_overrides({"": one}) == as_overrides({"": other})


# ---- the format -------------------------------------------------------------------------------------------


def _type(option: Option) -> Any:
    if option.name == "set":
        return dict[str, Any] | list[str]
    kind: Any = option.kind
    if option.kind is int:
        kind = Annotated[int, Meta(ge=option.least)]
    if option.choices:
        kind = Literal[option.choices]
    if not option.several:
        return kind
    several = kind | Annotated[list[kind], Meta(min_length=1)]
    return several | Literal[option.every] if option.every else several


def _described(kind: Any, text: str) -> Any:
    return Annotated[kind, Meta(description=text)]


def _fields(options: Iterable[Option]) -> list[tuple[str, Any, Any]]:
    return [_field(option.name, _type(option), option.help) for option in options]


def _field(name: str, kind: Any, text: str) -> tuple[str, Any, Any]:
    return name, _described(kind, text) | UnsetType, UNSET


OPTION_BY_KEY = {option.name: option for option in OPTIONS.values()}
_OPTION_KEYS = tuple(OPTION_BY_KEY)
_DIMENSIONS = tuple(option.name for option in OPTIONS.values() if option.several and option.name != "set")
"""Keys of options that accept several values. The values of these options are combined with the values in ``matrix``,
and all combinations are executed."""
_COMBINED = tuple(key for key in _OPTION_KEYS if key != "set")
"""Keys that are allowed in the combinations listed in ``include``."""
_ENTRY = ("name", "matrix", "exclude", "include")
_FILE = (*(option.name for option in OPTIONS.values() if option.shared), "budget_hours")

_BUDGET = _field(
    "budget_hours",
    Annotated[float, Meta(gt=0)],
    "Number of hours after which no further runs are started. To execute the remaining runs, run the command again.",
)
_Budget = msgspec.defstruct("_Budget", [_BUDGET])
_Values = Annotated[list[Any], Meta(min_length=1)]
_Combinations = list[dict[str, Any]]
_Run = msgspec.defstruct(
    "Run",
    [
        *_fields(option for option in OPTIONS.values() if option.name != "set"),
        _field(
            "set",
            _type(OPTIONS["overrides"]),
            "Settings with one value, such as { recipe.epochs = 5 }, or a list such as ['recipe.epochs=5'].",
        ),
        _field(
            "name",
            Annotated[str, Meta(min_length=1)],
            "Name of the entry. Other entries can set teacher to this name. These entries are executed after this "
            "entry, and use its model as the teacher in knowledge distillation. This entry must define a single run.",
        ),
        _field(
            "matrix",
            dict[str, _Values | dict[str, _Values]],
            "Settings with several values, such as recipe.batch_size = [16, 32]. All combinations are executed.",
        ),
        _field(
            "exclude",
            _Combinations,
            "Combinations to exclude. A run is excluded if it matches all keys of a combination.",
        ),
        _field(
            "include",
            _Combinations,
            "Additional combinations. The values of a combination replace the values of the entry.",
        ),
    ],
    kw_only=True,
    forbid_unknown_fields=True,
)
_Suite = msgspec.defstruct(
    "Suite",
    [
        (
            "run",
            _described(
                Annotated[list[_Run], Meta(min_length=1)],  # type: ignore[valid-type]
                "Entries of the suite. Each entry is executed with all combinations of its values.",
            ),
        ),
        *_fields(option for option in OPTIONS.values() if option.shared),
        _BUDGET,
    ],
    kw_only=True,
    forbid_unknown_fields=True,
)


def _entry(selection: Selection) -> str:
    lines = ["[[run]]"]
    for option, values in selection.values():
        as_list = len(values) > 1 or option.name == "set"
        lines.append(f"{option.name} = {_toml(values if as_list else values[0])}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Return a value as TOML.

    In JSON and TOML, strings, numbers, booleans and lists of these values have the same form.
    """
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007F")
