"""Functions that import plugin code, check the plugin API version for which the code was written, and compute the
digest of the code."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import PluginError, UnknownNameError
from harness.plugins.failures import describe
from harness.plugins.hookspecs import API_VERSION
from harness.records import PluginRef

DECLARATION = "HARNESS_API_VERSION"
_VERSION = re.compile(r"(\d+)(?:\.(\d+))?", re.ASCII)
_DECLARED = re.compile(rf"^{DECLARATION}\s*=\s*[\"']([^\"']*)[\"']\s*(#.*)?$", re.MULTILINE)


def is_file(value: str) -> bool:
    """Return True if a plugin is specified by a file path, and False if it is specified by a module name."""
    return value.endswith(".py") and Path(value).is_absolute()


def import_object(value: str) -> Any:
    """Import the object at ``module``, ``module:attribute`` or the absolute path of a Python file.

    A file is imported as a module with the name of the file, so that ``"my_plugin:build"`` refers to ``build`` in
    ``my_plugin.py``.

    Raises `harness.PluginError` if the plugin was written for a version of the plugin API that this version of harness
    does not provide. Exceptions that the module raises are not caught.
    """
    module_name, _, attributes = (value, "", "") if is_file(value) else value.partition(":")
    source = Path(value) if is_file(value) else source_of(module_name)
    _refuse_other_version(source)
    imported = _import_file(Path(value)) if is_file(value) else importlib.import_module(module_name)
    for attribute in filter(None, attributes.split(".")):
        imported = getattr(imported, attribute)
    return imported


def resolve(reference: str) -> Callable[..., Any]:
    """Return the object at ``"module:attribute"``. Raises `harness.PluginError` if the object cannot be imported."""
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        # A file that is loaded as a plugin can import only itself and other loaded or installed modules.
        advice = (
            "; install the module, add its file to --plugin, or move the function into the plugin's file"
            if isinstance(error, ModuleNotFoundError) and error.name == module_name
            else ""
        )
        raise PluginError(f"{reference!r} cannot be imported: {describe(error)}{advice}") from error
    value: Callable[..., Any] | None = getattr(module, attribute, None)
    if value is None:
        near = UnknownNameError("function", attribute, vars(module)).near
        suggestion = "" if near is None else f"; did you mean {near!r}?"
        raise PluginError(f"{reference!r}: module {module_name!r} has no attribute {attribute!r}{suggestion}")
    return value


def check_api_version(plugin: Any) -> None:
    """Raise `harness.PluginError` if the plugin was written for a version of the plugin API that this version of
    harness does not provide, or if the declared version is not a string."""
    declared = getattr(plugin, DECLARATION, None)
    if declared is not None:
        _check(declared)


def with_digest(ref: PluginRef) -> PluginRef:
    """Return a copy of the reference with the digest of the current code."""
    return msgspec.structs.replace(ref, code_digest=digest(ref.value))


def digest(value: str, find: Callable[[str], Path | None] | None = None) -> str:
    """Return the SHA-256 (hex) of the paths and contents of a plugin's Python files.

    If the plugin is part of a package, the digest covers all files in the top-level package. The digest is an empty
    string if a file cannot be read, for example because the plugin is in a zip file. `find` returns the source file of
    a top-level module or package. By default, `find` searches the import path of this process.
    """
    if is_file(value):
        files = {Path(value).name: Path(value)}
    else:
        source = (find or source_of)(value.partition(":")[0].partition(".")[0])
        if source is None:
            return ""
        folder = source.parent
        files = {source.name: source}
        if source.name == "__init__.py":
            files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    total = hashlib.sha256()
    try:
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            total.update(f"{name}\0{len(content)}\0".encode())
            total.update(content)
    except OSError:
        return ""
    return total.hexdigest()


def source_of(module_name: str) -> Path | None:
    """Return a module's source file without importing the module. Return None if the module has no source file."""
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None


def _import_file(path: Path) -> Any:
    name = path.stem
    known = sys.modules.get(name)
    if known is None:
        other = importlib.util.find_spec(name) if "." not in name else None
        place = other.origin if other is not None else None
    else:
        place = getattr(known, "__file__", None) or "a built-in module"
        if place == str(path):
            return known
    if place is not None and place != str(path):
        raise PluginError(f"{path} would hide the module {name!r} ({place}); rename the file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise PluginError(f"{path} does not exist or is not a Python file; pass the path of a plugin's file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _refuse_other_version(source: Path | None) -> None:
    """Raise `harness.PluginError` if the source code declares a version of the plugin API that this version of harness
    does not provide.

    The version is checked before the code is executed, because the code may use names that this version of harness does
    not provide.
    """
    try:
        text = source.read_text(errors="replace") if source is not None and source.suffix == ".py" else ""
    except OSError:
        return
    if declared := _DECLARED.search(text):
        _check(declared[1])


def _check(declared: Any) -> None:
    """Raise `harness.PluginError` unless the declared version has the same major version as `API_VERSION`, and the same
    or a lower minor version. Each minor version adds names that the plugin may use."""
    version = _VERSION.fullmatch(declared) if isinstance(declared, str) else None
    if version is None:
        raise PluginError(
            f"{DECLARATION} is {declared!r}, which is not a version; write it as a string, such as "
            f'{DECLARATION} = "{API_VERSION}"'
        )
    major, minor = map(int, API_VERSION.split("."))
    if int(version[1]) != major or int(version[2] or 0) > minor:
        raise PluginError(
            f"the plugin was written for version {declared} of the plugin API, but this version of harness provides "
            f"version {API_VERSION}; install a release of the plugin for API {API_VERSION} or an earlier {major}.x, "
            "or a different version of harness"
        )
