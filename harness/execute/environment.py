"""Description of the environment of a run, which consists of the machine and the Git commit of harness."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

import msgspec

from harness.errors import UsageError
from harness.execute.child import run_program
from harness.measure import environment
from harness.plugins import environments as named
from harness.records import Environment

_GIT_TIMEOUT_S = 20.0


def collect(packages: Iterable[str] = ()) -> Environment:
    """Return the environment from `harness.measure.environment.collect` together with the Git commit of harness."""
    return msgspec.structs.replace(environment.collect(packages), git_commit=git_commit())


def collect_failed(packages: Iterable[str], env: str = "") -> Environment:
    """Return the description of the environment of a failed run. `env` is the name of the run's Python environment.

    If too many files are open, the environment contains only values that can be determined without opening files.
    """
    try:
        described = collect(packages)
        if not env:
            return described
        python, versions = named.python_version(env), named.load(env).versions((*environment.CORE_PACKAGES, *packages))
        return msgspec.structs.replace(described, python=python, packages=versions)
    except (OSError, UsageError):
        return Environment(
            os=platform.system(),
            kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            cpu=platform.machine(),
            cores=os.cpu_count() or 1,
            memory_bytes=0,
            gpus=[],
            packages={},
            load_1min=None,
        )


def git_commit() -> str | None:
    """Return the Git commit of the checkout from which harness is imported. Return None if harness is not imported from
    a checkout."""
    home = Path(__file__).resolve().parents[2]
    if not (home / ".git").exists():
        return None
    commit = _git(home, "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git(home, "status", "--porcelain", "--untracked-files=no")
    return commit.strip() + ("+dirty" if changed else "")


def _git(home: Path, *arguments: str) -> str | None:
    try:
        done = run_program(["git", "-C", str(home), *arguments], timeout_s=_GIT_TIMEOUT_S)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
