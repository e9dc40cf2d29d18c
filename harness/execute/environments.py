"""Creation and removal of named environments. Environments are defined and read by the module
`harness.plugins.environments`.

An environment is created in a hidden directory, which is renamed at the end. An environment that is not hidden is
therefore always complete.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import filelock
import msgspec
from msgspec import Struct

from harness.errors import HarnessError, UsageError
from harness.execute.child import run_program
from harness.execute.constraints import conflicting, constraints
from harness.execute.environment_lock import lock_text
from harness.plugins import environments
from harness.plugins.environments import (
    DESCRIPTION,
    LOCK,
    EnvironmentFile,
    Installer,
    NamedEnvironment,
    UpgradeStrategy,
    check_name,
    interpreter_in,
)
from harness.plugins.requirements import install_arguments, own_distributions
from harness.records.files import write_new, write_whole
from harness.records.locations import environments_dir
from harness.records.store import write_json

INSTALL_LIMIT_S = 3600.0
"""Time limit for an installation, in seconds. Frameworks are large."""
_SHORT_LIMIT_S = 300.0
CONSTRAINTS = "constraints.txt"
"""File in an environment's directory with the constraints that were used."""
MAX_LISTED = 10
"""Maximum number of requirements to list before an installation."""
MAX_LINES = 20
"""Maximum number of output lines to show if an installer fails."""
_MINIMUM = (3, 11)
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Environment variables that would make an interpreter or an installer use packages from a different environment."""
_LOCAL_OPTION = re.compile(r"(-r|-c|-e|--requirement|--constraint|--editable)\b")
_PROBE = """
import importlib.metadata, importlib.util, json, os, platform, sys
standard = (os.path.dirname(os.__file__), os.path.join(os.path.dirname(os.__file__), "lib-dynload"))
path = [p for p in sys.path if p not in standard and os.path.isdir(p)]
packages, modules, seen = [], {}, set()
for found in importlib.metadata.distributions():
    name = found.metadata["Name"]
    if name is None or name.lower().replace("_", "-").replace(".", "-") in seen:
        continue
    seen.add(name.lower().replace("_", "-").replace(".", "-"))
    packages.append((name, found.version, found.read_text("direct_url.json") or "{}"))
    for point in found.entry_points:
        if point.group == "harness":
            modules[point.value.partition(":")[0].partition(".")[0]] = ""
for name in ("harness", *modules):
    try:
        modules[name] = importlib.util.find_spec(name).origin or ""
    except (ImportError, AttributeError, ValueError):
        modules[name] = ""
print(json.dumps({
    "python": platform.python_implementation() + " " + platform.python_version(),
    "version": sys.version_info[:2], "path": path, "packages": packages, "modules": modules,
}))
"""
"""Program that prints a description of the Python interpreter that runs it. The program imports only the standard
library, because harness may not be installed."""


class _Probed(Struct, frozen=True):
    python: str
    version: tuple[int, int]
    path: list[str]
    packages: list[tuple[str, str, str]]
    """Name, version and ``direct_url.json`` content of each distribution."""
    modules: dict[str, str]


def create(
    name: str,
    requirements: Sequence[str],
    *,
    interpreter: str = "",
    installer: Installer = "pip",
    inherit: bool = False,
    upgrade: UpgradeStrategy = "only-if-needed",
    replace: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> NamedEnvironment:
    """Create an environment and return it.

    The environment contains the distributions in `requirements`, a list of lines of a requirements file. The
    environment also contains harness and the plugin distributions, which are installed from the sources used in this
    process's environment. If `upgrade` is ``only-if-needed``, packages not named in `requirements` have the same
    versions as in this process's environment, unless these versions conflict with the requirements. If `upgrade`
    is ``eager``, all packages have the newest suitable versions. If `inherit` is true, only `requirements` and their
    dependencies are installed. All other packages are imported from this process's environment. If `replace` is true,
    an existing environment is replaced.

    Raises `harness.UsageError` if the request is invalid, and `harness.HarnessError` if the installer fails.
    `harness.HarnessError` contains the last lines of the installer's output. If an error occurs, nothing is changed.
    """
    check_name(name)
    for line in requirements:
        _check_requirement(line)
    if installer == "uv" and shutil.which("uv") is None:
        raise UsageError("uv is not installed; install it, or use --installer pip")
    if interpreter and shutil.which(interpreter) is None:
        raise UsageError(f"{interpreter}: this Python interpreter does not exist; pass its path with --python")
    root = environments_dir()
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root, name):
        target = root / name
        if target.exists() or target.is_symlink():
            if not _is_environment(target):
                raise UsageError(f"{target} exists, but is not an environment created by harness; choose another name")
            if not replace:
                raise UsageError(
                    f"environment {name!r} already exists; choose another name, or run: harness env remove {name}"
                )
        partial = root / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # an earlier creation was killed
        try:
            partial.mkdir()
            _build(partial, requirements, interpreter, installer, inherit, upgrade, say)
            if target.exists():
                old = root / f".{name}.old"
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
                partial.rename(target)
                shutil.rmtree(old, ignore_errors=True)
            else:
                partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return environments.load(name)


def update(
    name: str,
    added: Sequence[str] = (),
    *,
    upgrade: UpgradeStrategy | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> NamedEnvironment:
    """Recreate an environment from its requirements and `added`, and return the new environment.

    By default, `upgrade` is the strategy with which the environment was created. Raises the same exceptions as
    `create`.
    """
    known = environments.load(name).description
    return create(
        name,
        [*known.requirements, *added],
        interpreter=known.interpreter,
        installer=known.installer,
        inherit=known.inherit,
        upgrade=upgrade or known.upgrade,
        replace=True,
        say=say,
    )


def remove(name: str) -> None:
    """Remove an environment. Raises `harness.UsageError` if the environment does not exist or was not created by
    harness."""
    check_name(name)
    root = environments_dir()
    if not (root / name).exists():
        environments.load(name)  # raises the error that lists the known names
    if not _is_environment(root / name):
        raise UsageError(f"{root / name} was not created by harness, so it was not removed")
    with _locked(root, name):
        hidden = root / f".{name}.old"
        shutil.rmtree(hidden, ignore_errors=True)
        (root / name).rename(hidden)
        shutil.rmtree(hidden)


def _is_environment(directory: Path) -> bool:
    return not directory.is_symlink() and (directory / DESCRIPTION).is_file() and (directory / "venv").is_dir()


@contextlib.contextmanager
def _locked(root: Path, name: str) -> Iterator[None]:
    try:
        with filelock.FileLock(root / f".{name}.lock", timeout=0):
            yield
    except filelock.Timeout:
        raise UsageError(f"another command is changing environment {name!r}; wait until it finishes") from None


def _check_requirement(line: str) -> None:
    if not line.strip() or "\n" in line or "\r" in line:
        raise UsageError(f"{line!r} is not a requirement; pass a requirement such as 'numpy==2.1.0'")
    if _LOCAL_OPTION.match(line.strip()):
        raise UsageError(
            f"{line!r} refers to another file, which may not exist when the environment is recreated; list the "
            f"requirements of that file instead"
        )


def _build(
    directory: Path,
    requirements: Sequence[str],
    interpreter: str,
    installer: Installer,
    inherit: bool,
    upgrade: UpgradeStrategy,
    say: Callable[[str], None],
) -> None:
    """Create the virtual environment, install the packages, and write the lock and the description."""
    base = shutil.which(interpreter) if interpreter else None
    python = str(interpreter_in(directory))
    own_pip = installer == "uv" or importlib.util.find_spec("pip") is not None
    say("creating the virtual environment")
    venv = [base or sys.executable, "-m", "venv", *(["--without-pip"] if own_pip else []), str(directory / "venv")]
    _run(venv, "the virtual environment could not be created", _SHORT_LIMIT_S)
    first = _probe(python)
    if first.version < _MINIMUM:
        raise UsageError(
            f"{base}: harness requires Python {_MINIMUM[0]}.{_MINIMUM[1]} or newer, but this interpreter is "
            f"{first.python}"
        )
    if inherit:
        if first.version != sys.version_info[:2]:
            raise UsageError(
                f"an environment with {first.python} cannot use the packages of the current one "
                f"(Python {sys.version_info[0]}.{sys.version_info[1]}); remove --inherit or --python"
            )
        write_new(Path(first.path[-1]) / "harness_inherited.pth", _inherited().encode())
    own = [] if inherit else _own_arguments()
    report = directory / "report.json"
    if requirements or own:
        write_new(directory / "requirements.txt", "".join(f"{line}\n" for line in requirements).encode())
        listed = [*own, "-c", str(directory / CONSTRAINTS), "-r", str(directory / "requirements.txt")]
        if installer == "uv":
            command = ["uv", "pip", "install", "--python", python, *listed]
        else:
            pip = [sys.executable, "-m", "pip", "--python", python] if own_pip else [python, "-m", "pip"]
            quiet = ["--disable-pip-version-check", "--no-input", "--report", str(report)]
            command = [*pip, "install", *quiet, *listed]
        few = len(requirements) <= MAX_LISTED
        shown = ", ".join(requirements) if few else f"{len(requirements)} requirements"
        say(f"installing {shown or 'harness'} with {installer}")
        kept = [] if upgrade == "eager" else constraints(requirements, own_distributions(), urls=not inherit)
        _install(installer, command, directory / CONSTRAINTS, kept, say)
    probed = _probe(python)
    if not probed.modules.get("harness"):
        raise HarnessError("harness is not installed in the new environment, so the environment was not created")
    write_new(directory / LOCK, lock_text(probed.python, probed.packages, report).encode())
    report.unlink(missing_ok=True)
    path = tuple(_inside(entry, directory) for entry in probed.path)
    description = EnvironmentFile(
        requirements=tuple(requirements),
        installer=installer,
        inherit=inherit,
        upgrade=upgrade,
        interpreter=interpreter,
        python=probed.python,
        path=path,
        modules={name: _inside(place, directory) for name, place in probed.modules.items() if place},
        installed_digest=environments.installed_digest(directory, path),
    )
    write_json(directory / DESCRIPTION, description)


def _install(
    installer: Installer, command: Sequence[str], file: Path, given: Sequence[str], say: Callable[[str], None]
) -> None:
    """Run an installer with all constraints in `given` that do not cause a conflict, and write these constraints to
    `file`.

    If the installer fails and names constraints as the reason, it is run again without these constraints. An installer
    may name more constraints than necessary, for example those that conflict with different versions of a requirement.
    If several constraints were removed, each of them is therefore tried again before anything is installed.

    Raises `harness.HarnessError` if the installer fails for another reason.
    """
    problem = f"{installer} could not install the packages"

    def attempt(kept: Sequence[str], *options: str) -> _ProgramError | None:
        write_whole(file, "".join(f"{line}\n" for line in kept).encode())
        try:
            _run([*command, *options], problem, INSTALL_LIMIT_S)
        except _ProgramError as error:
            return error
        return None

    kept, removed = list(given), list[str]()
    while error := attempt(kept, *(["--dry-run"] if len(removed) > 1 else [])):
        conflicts = conflicting(error.output, kept)
        if not conflicts:
            raise error
        say(f"resolving the dependencies again without {', '.join(conflicts)}")
        removed += conflicts
        kept = [one for one in kept if one not in conflicts]
    if len(removed) <= 1:
        return
    for constraint in removed:
        if attempt([*kept, constraint], "--dry-run") is None:
            say(f"keeping {constraint}, which does not conflict")
            kept.append(constraint)
    if error := attempt(kept):
        raise error


def _inside(place: str, directory: Path) -> str:
    path = Path(place)
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else place


def _inherited() -> str:
    """Return the content of a ``.pth`` file that adds the site directories of this process to the import path."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sites = [entry for entry in sys.path if Path(entry).name == "site-packages" and entry not in given]
    return "".join(f"import site; site.addsitedir({entry!r})\n" for entry in sites)


def _own_arguments() -> list[str]:
    """Return the installer arguments that install harness and its plugins from the sources used in this process's
    environment."""
    return [
        word
        for name in own_distributions()
        for word in install_arguments(name) or [f"{name}=={importlib.metadata.version(name)}"]
    ]


class _ProgramError(HarnessError):
    """Error raised if a program fails. `output` is the program's whole output; the message contains only its last
    lines."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


def _run(command: Sequence[str], problem: str, limit_s: float) -> str:
    """Run a program and return its output. Raises `harness.HarnessError` with the last lines of the output if the
    program fails."""
    variables: Mapping[str, str] = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    try:
        done = run_program(command, timeout_s=limit_s, environment=variables)
    except OSError as error:
        raise HarnessError(f"{problem}: {error}") from None
    if done.returncode != 0:
        output = f"{done.stdout}\n{done.stderr}".strip()
        lines = output.splitlines()[-MAX_LINES:]
        raise _ProgramError("\n  ".join([f"{problem} (exit status {done.returncode}):", *lines]), output)
    return done.stdout


def _probe(python: str) -> _Probed:
    output = _run([python, "-I", "-c", _PROBE], f"the interpreter {python} does not work", _SHORT_LIMIT_S)
    try:
        return msgspec.json.decode(output, type=_Probed)
    except ValueError as error:
        raise HarnessError(f"the interpreter {python} does not work: it printed {output[:200]!r} ({error})") from None
