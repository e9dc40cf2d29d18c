"""Test that processes are started in one module only.

`harness.execute.child` ensures that a process ends when its parent dies or when its time limit is reached, and that its
failure is reported. Source code is parsed, not imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {"harness/execute/child.py"}
"""Files that may start processes."""
MODULES = re.compile(r"(subprocess|multiprocessing|pty|webbrowser|joblib|loky|billiard|pexpect|sh|plumbum)(\.|$)")
NAMES = re.compile(
    r"(?:.*\.)?(fork|forkpty|posix_spawnp?|popen|popen[234]|execl[pe]{0,2}|execvp?e?|spawn[lv]p?e?"
    r"|ProcessPoolExecutor|ProcessPool|create_subprocess_(exec|shell)|subprocess_(exec|shell))"
)
"""Functions and classes that start a process, from any module."""
CALLS = re.compile(r"(os\.system|click\.(edit|launch)|platform\.processor|ctypes\.util\.find_library)")
"""Functions that start a process, and whose last name is also used for other purposes."""


def process_starts(source: str) -> Iterator[str]:
    """Yield the imports and names in `source` with which it can start a process."""
    aliases: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if MODULES.match(alias.name))
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            yield from (name for name in names.values() if starts_process(name))
            aliases |= names
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            base, dot, rest = ast.unparse(node).partition(".")
            name = aliases.get(base, base) + dot + rest
            yield from [name] if starts_process(name) else []


def starts_process(name: str) -> bool:
    return bool(MODULES.match(name) or NAMES.fullmatch(name) or CALLS.fullmatch(name))


def found_in(*folders: str) -> dict[str, list[str]]:
    """Return the process starts in the Python files of these folders, by file."""
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    found = {str(file.relative_to(ROOT)): sorted(set(process_starts(file.read_text()))) for file in files}
    return {file: starts for file, starts in found.items() if starts}


def test_only_allowed_modules_start_processes() -> None:
    assert set(found_in("harness", "plugins")) == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess",
        "import subprocess as sp",
        "from subprocess import run",
        "def lazy():\n    import multiprocessing.pool",
        "from multiprocessing import get_context",
        "from concurrent.futures import ProcessPoolExecutor",
        "from concurrent.futures import ProcessPoolExecutor as Pool",
        "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()",
        "from concurrent import futures\nfutures.ProcessPoolExecutor()",
        "from concurrent.futures.process import ProcessPoolExecutor",
        "import os\nos.fork()",
        "import os\nos.forkpty()",
        "import os\nstart = os.posix_spawn",
        "import os\nos.execvpe('a', [], {})",
        "import os\nos.spawnlp(0, 'a')",
        "import os\nos.system('a')",
        "import os as system\nsystem.popen('a')",
        "from os import system",
        "from os import execv as go",
        "import asyncio\nasyncio.create_subprocess_exec('a')",
        "async def start(loop):\n    await loop.subprocess_shell('a')",
        "import click\nclick.edit('a')",
        "from click import launch",
        "import webbrowser",
        "import pty",
        "import joblib",
        "import platform\nplatform.processor()",
        "import ctypes.util\nctypes.util.find_library('c')",
        "from ctypes.util import find_library",
    ],
)
def test_a_process_start_is_found(source: str) -> None:
    assert list(process_starts(source))


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.execute()\nos.getpid()",
        "from harness.execute.child import run_program",
        "from concurrent.futures import ThreadPoolExecutor",
        "import psutil\npsutil.Process()",
        "import shlex",
        "import platform\nplatform.system()",
        "text = 'subprocess'",
        "connection.execute('a')",
        "editor.edit('a')",
    ],
)
def test_other_code_is_not_reported(source: str) -> None:
    assert list(process_starts(source)) == []
