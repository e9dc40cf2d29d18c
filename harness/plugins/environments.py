"""Named environments: Python environments in which runs can be executed, in addition to the current environment.

An environment is a directory that `harness.execute.environments` creates. The directory contains a virtual environment,
the lock file, and a file that describes both. A run in an environment can be planned without starting the environment's
interpreter, because all required information is read from files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Literal

from msgspec import Struct

from harness.errors import RecordError, UnknownNameError, UsageError
from harness.plugins import requirements
from harness.plugins.code import digest, is_file, source_of
from harness.records import PluginRef
from harness.records.locations import environments_dir
from harness.records.reading import load_named, read_named
from harness.records.spec import ENV_NAME

CURRENT = "current"
"""Name of the environment in which the command itself is executed."""
DESCRIPTION = "environment.json"
LOCK = "environment.lock"
"""File names of the description and the lock in an environment's directory. The lock file is copied to each run's
directory."""
MAX_LOCK_BYTES = 2**20

Installer = Literal["pip", "uv"]
UpgradeStrategy = Literal["only-if-needed", "eager"]
"""Packages whose versions may differ from those in the current environment: packages whose current versions conflict
with the requirements, or all packages."""


class EnvironmentFile(Struct, frozen=True, kw_only=True):
    """The description of an environment, stored in ``environment.json``."""

    requirements: tuple[str, ...]
    """Requirements from which the environment was created, with one entry for each line of a requirements file."""
    installer: Installer
    inherit: bool
    """True if packages can also be imported from the environment in which the command was executed."""
    upgrade: UpgradeStrategy = "only-if-needed"
    interpreter: str
    """Python interpreter used to create the virtual environment. An empty string denotes the interpreter that executed
    the command."""
    python: str
    """Implementation and version of Python, such as ``CPython 3.11.7``."""
    path: tuple[str, ...]
    """Directories from which packages are imported. Paths inside the environment's directory are relative to that
    directory."""
    modules: dict[str, str]
    """Source files of `harness` and the plugins, with relative paths as in `path`. Packages installed with
    ``--editable`` are not in `path`."""
    installed_digest: str
    """Digest that the function `installed_digest` returned when the environment was created."""


class NamedEnvironment(Struct, frozen=True, kw_only=True):
    """An environment on this machine."""

    name: str
    directory: Path
    description: EnvironmentFile
    lock: str
    """Content of the lock."""

    @property
    def interpreter(self) -> str:
        """Path of the Python interpreter."""
        return str(interpreter_in(self.directory))

    @property
    def lock_digest(self) -> str:
        return hashlib.sha256(self.lock.encode()).hexdigest()

    @property
    def path(self) -> list[str]:
        """Import path of a child process, excluding the standard library."""
        inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        return [*inherited, *(str(self.directory / entry) for entry in self.description.path)]

    def source_of(self, module: str) -> Path | None:
        """Return the source file of a top-level module or package. Return None if the module cannot be imported."""
        spec = PathFinder.find_spec(module, self.path)
        if spec is not None and spec.origin and spec.has_location:
            return Path(spec.origin)
        known = self.description.modules.get(module)
        return self.directory / known if known else None

    def can_import(self, module: str) -> bool:
        """Return True if a module, such as ``a`` or ``a.b``, can be found. Modules are not imported."""
        first, *others = module.split(".")
        spec = PathFinder.find_spec(first, self.path)
        if spec is None:
            return module in sys.stdlib_module_names or (not others and first in self.description.modules)
        for depth, _ in enumerate(others, start=2):
            spec = _submodule(".".join(module.split(".")[:depth]), spec)
            if spec is None:
                return False
        return True

    def versions(self, packages: Iterable[str]) -> dict[str, str]:
        """Return the versions of installed packages; see `harness.measure.environment.versions`."""
        found: dict[str, str] = {}
        for package in packages:
            name = "harness" if package == requirements.DISTRIBUTION else package
            for distribution in importlib.metadata.distributions(name=package, path=self.path):
                found.setdefault(name, distribution.version)
        return found


def _submodule(name: str, package: ModuleSpec) -> ModuleSpec | None:
    places = package.submodule_search_locations
    return PathFinder.find_spec(name, places) if places is not None else None


def interpreter_in(directory: Path) -> Path:
    """Return the path of the interpreter in an environment's directory."""
    return directory / "venv" / "bin" / "python"


def check_name(name: str) -> None:
    """Raise `harness.UsageError` if `name` is not a valid environment name."""
    if name == CURRENT:
        raise UsageError(f"an environment cannot have the name {CURRENT!r}, which refers to the current environment")
    if not ENV_NAME.fullmatch(name):
        raise UsageError(
            f"{name[:70]!r} is not a valid environment name; use at most 64 letters, digits and . _ -, starting "
            "with a letter or digit"
        )


def names() -> list[str]:
    """Return the names of the environments on this machine."""
    try:
        entries = sorted(environments_dir().iterdir())
    except OSError:
        return []
    return [entry.name for entry in entries if ENV_NAME.fullmatch(entry.name) and (entry / DESCRIPTION).is_file()]


def load(name: str) -> NamedEnvironment:
    """Return the environment with this name.

    Raises `harness.UsageError` if the environment does not exist or its description cannot be read.
    """
    check_name(name)
    directory = environments_dir() / name
    if not (directory / DESCRIPTION).is_file():
        hint = f"(create it with: harness env create {name} --with 'PACKAGE==VERSION')"
        raise UnknownNameError("environment", name, [CURRENT, *names()], hint=hint)
    try:
        description = load_named(directory / DESCRIPTION, EnvironmentFile)
        lock = read_named(directory / LOCK, MAX_LOCK_BYTES).decode()
    except (RecordError, UnicodeDecodeError) as error:
        raise UsageError(
            f"environment {name!r} is damaged ({error}); run {shlex.join(['harness', 'env', 'remove', name])}, and "
            "create the environment again"
        ) from None
    return NamedEnvironment(name=name, directory=directory, description=description, lock=lock)


def load_usable(name: str) -> NamedEnvironment:
    """Return an environment whose interpreter exists and whose packages match its lock.

    Raises `harness.UsageError` otherwise.
    """
    environment = load(name)
    if not os.access(environment.interpreter, os.X_OK):
        raise UsageError(
            f"environment {name!r}: the interpreter {environment.interpreter} no longer exists; run: "
            f"{update_command(name)}"
        )
    if (
        installed_digest(environment.directory, environment.description.path)
        != environment.description.installed_digest
    ):
        raise UsageError(
            f"environment {name!r}: packages were installed or removed after it was created, so its lock is no "
            f"longer valid; run: {update_command(name)}"
        )
    return environment


def update_command(name: str) -> str:
    """Return the command that recreates an environment from the same requirements."""
    return shlex.join(["harness", "env", "update", name])


def installed_digest(directory: Path, path: Iterable[str]) -> str:
    """Return a digest of the names and versions of the distributions on an import path."""
    total = hashlib.sha256()
    for entry in path:
        try:
            names = [found.name for found in (directory / entry).iterdir()]
        except OSError:
            continue
        found = sorted(name for name in names if name.endswith((".dist-info", ".egg-info")))
        total.update("\0".join([entry, *found, ""]).encode(errors="surrogateescape"))
    return total.hexdigest()


def missing(requires: Mapping[str, str], name: str) -> str | None:
    """Return a message about required modules that are not installed in an environment, or None if all are installed.

    If `name` is empty, the current environment is checked. The format of `requires` is described in
    `harness.plugins.requirements.missing`.
    """
    if not name:
        return requirements.missing(requires)
    environment = load(name)
    absent = [module for module in requires if not environment.can_import(module)]
    if not absent:
        return None
    return (
        f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed in environment {name!r}; "
        f"run: {update_command(name)} --with 'PACKAGE==VERSION'"
    )


def check(name: str, refs: Collection[PluginRef]) -> None:
    """Raise `harness.UsageError` if an environment cannot be used.

    The environment and this process must have identical code for harness and for the plugins in `refs`.

    If `name` is empty, do nothing.
    """
    if not name:
        return
    environment = load_usable(name)
    for title, value in {"harness": "harness", **{f"plugin {ref.name!r}": ref.value for ref in refs}}.items():
        module = value.partition(":")[0].partition(".")[0]
        if is_file(value) or ((source := environment.source_of(module)) and source == source_of(module)):
            continue  # the same file here and there
        there = digest(value, environment.source_of)
        if not there:
            raise UsageError(
                f"{title} is not installed in environment {name!r}; install the package {module!r} "
                f"with: {update_command(name)}"
            )
        if there != digest(value):
            raise UsageError(
                f"the code of {title} in environment {name!r} differs from the code that this command uses; run: "
                f"{update_command(name)}"
            )


def packages(name: str) -> dict[str, str]:
    """Return the versions of all packages in an environment, by normalized name.

    If `name` is empty, return those of the current environment.
    """
    if name:
        return locked_packages(load(name).lock)
    versions: dict[str, str] = {}
    for each in importlib.metadata.distributions():
        versions.setdefault(requirements.normalized(str(each.metadata["Name"])), each.version)
    return versions


def locked_packages(lock: str) -> dict[str, str]:
    """Return the versions of the packages in a lock file, by normalized name."""
    lines = [line.partition("#")[0].strip() for line in lock.splitlines()]
    pairs = [line.split("==", 1) for line in lines if "==" in line]
    return {requirements.normalized(package): version for package, version in pairs}


def differing_packages(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return the packages that are installed in all of the environments, but in different versions.

    Each item contains the name of a package and its versions in the order of `names`. An empty name denotes the current
    environment.
    """
    installed = [packages(name) for name in names]
    common = sorted(set.intersection(*map(set, installed))) if installed else []
    found = [(package, [each[package] for each in installed]) for package in common]
    return [(package, versions) for package, versions in found if len(set(versions)) > 1]


def interpreter(name: str) -> str | None:
    """Return the interpreter of an environment, or None if `name` is empty."""
    return load_usable(name).interpreter if name else None


def lock_digest(name: str) -> str:
    """Return the digest of the lock of an environment, or an empty string if `name` is empty."""
    return load(name).lock_digest if name else ""


def python_version(name: str) -> str:
    """Return the implementation and version of Python in an environment.

    If `name` is empty, return the implementation and version in this process.
    """
    if name:
        return load(name).description.python
    return f"{platform.python_implementation()} {platform.python_version()}"
