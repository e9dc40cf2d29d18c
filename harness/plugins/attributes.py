"""Check the types of the attributes that describe a plugin's objects.

Python does not check these types, and a wrong type often causes no error. For example, the string ``"fp32"`` is an
iterable of four names.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from harness.errors import PluginError


def check_attributes(value: Any, kind: type[Any]) -> None:
    """Raise `harness.PluginError` if an attribute that `kind` declares has the wrong type.

    Attributes are checked if they are declared as str, bool, a `Literal`, or a sequence, collection or mapping of these
    types.
    """
    for name, hint in _hints(kind).items():
        if not hasattr(value, name):
            continue
        actual = getattr(value, name)
        if wanted := _mismatch(actual, hint):
            raise PluginError(f"the attribute {name} of {type(value).__name__} is {actual!r}; {wanted}")


def misspelled_attributes(value: Any, kind: type[Any]) -> dict[str, str]:
    """Return the attributes of an object that look like a misspelled attribute or method of `kind`, such as
    ``train_by_steps``, with the correct names.

    An attribute is not considered misspelled if the object also defines the similar attribute of `kind`.
    """
    own = {name for base in type(value).__mro__ if base not in kind.__mro__ for name in vars(base)}
    known = {name for name in (*dir(kind), *_hints(kind)) if not name.startswith("_")}
    near = {
        name: difflib.get_close_matches(name, known - own, 1, _SIMILAR)
        for name in sorted(own - known)
        if not name.startswith("_")
    }
    return {name: matches[0] for name, matches in near.items() if matches}


_SIMILAR = 0.85
"""Minimum similarity of a misspelled name, from 0 to 1 (`difflib.SequenceMatcher.ratio`)."""


def _hints(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _mismatch(value: Any, hint: Any) -> str:
    """Return instructions if a value does not have the type `hint`, or an empty string if no mismatch is found."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is ClassVar:
        return _mismatch(value, arguments[0])
    if origin is Literal:
        return "" if value in arguments else f"use one of: {', '.join(map(str, arguments))}"
    if hint is str:
        return "" if isinstance(value, str) else "write a string"
    if hint is bool:
        return "" if isinstance(value, bool) else "write True or False"
    if origin is Mapping:
        return _mapping_mismatch(value, *arguments)
    if origin in (Sequence, Collection):
        return _sequence_mismatch(value, *arguments)
    return ""


def _mapping_mismatch(value: Any, key: Any, item: Any) -> str:
    if not isinstance(value, Mapping):
        return "write a dictionary"
    mismatches = ((_mismatch(each, key), _mismatch(content, item)) for each, content in value.items())
    wrong = next(filter(any, mismatches), None)
    return f"for each {'key' if wrong[0] else 'value'} of the dictionary, {wrong[0] or wrong[1]}" if wrong else ""


def _sequence_mismatch(value: Any, item: Any) -> str:
    if isinstance(value, str):
        return f"write a tuple, such as ({value!r},)"
    if not isinstance(value, Iterable) or isinstance(value, bytes):
        return "write a tuple"
    wrong = next(filter(None, (_mismatch(each, item) for each in value)), "")
    return f"for each element of the tuple, {wrong}" if wrong else ""
