"""Tests of the modules that commands import. Unlike import times, they do not depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    *("torch", "tensorflow", "keras", "transformers", "numpy", "pandas", "scipy", "sklearn", "rich", "tabulate"),
    *("psutil", "pluggy", "babel", "tokenizers", "importlib.metadata", "requests", "filelock", "tarfile"),
}
FRAMEWORKS = HEAVY - {"tabulate", "psutil", "pluggy", "importlib.metadata"}

LOADED = """
import json, sys
sys.argv[1:] = {arguments!r}
before = len(sys.modules)
from harness.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print()
print(json.dumps(sorted(sys.modules)))
"""


def modules_of(*arguments: str) -> list[str]:
    code = LOADED.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded: list[str] = json.loads(done.stdout.splitlines()[-1])
    return loaded


@pytest.mark.parametrize(
    "command", ["", "run", "parity", "evaluate", "list", "data", "data fetch", "show", "report", "doctor"]
)
def test_help_imports_no_slow_module(command: str) -> None:
    loaded = modules_of(*command.split(), "--help")
    assert HEAVY & set(loaded) == set()


def test_help_imports_few_modules() -> None:
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(len(sys.modules))"], capture_output=True, text=True, check=True
    )
    assert len(modules_of("--help")) - int(bare.stdout) <= 120


@pytest.mark.parametrize("command", ["list", "list datasets", "data list"])
def test_list_imports_no_framework(command: str) -> None:
    assert FRAMEWORKS & set(modules_of(*command.split())) == set()
