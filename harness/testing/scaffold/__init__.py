"""Implementation of ``harness plugin new``, which creates an installable plugin package that passes the conformance
kit."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.records.files import write_new

KINDS = ("task", "dataset", "model", "backend", "metric", "reporter")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def create(name: str, kind: str, output: Path) -> list[Path]:
    """Write the package `name` to the folder `output`, and return the paths of its files.

    Raises `harness.UsageError` if the name is not valid, if a module with this name exists, or if the folder is not
    empty.
    """
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(module):
        raise UsageError(
            f"{name!r} is not a valid package name; use lowercase letters, digits and hyphens, as in my-{kind}"
        )
    if len(name) > 60:
        raise UsageError(f"the package name {name[:20]!r}... is too long; use at most 60 characters")
    if module in sys.stdlib_module_names or find_spec(module) is not None:
        raise UsageError(f"a module named {module!r} already exists and would be hidden; choose another name")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} already exists and is not empty; choose another folder with --output")
    words = {"thing_class": "".join(part.title() for part in name.split("-")), "thing-name": name, "thing_name": module}
    templates = files("harness.testing.scaffold") / "templates"
    sources = {
        f"{module}.py": f"{kind}.py.txt",
        f"tests/test_{module}.py": f"test_{kind}.py.txt",
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": f"README_{kind}.md.txt",
    }
    written = []
    try:
        for path, template in sources.items():
            text = (templates / template).read_text()
            for word, value in words.items():
                text = text.replace(word, value)
            target = output / path
            target.parent.mkdir(parents=True, exist_ok=True)
            write_new(target, text.encode())
            written.append(target)
    except OSError as error:
        raise HarnessError(f"cannot write {error.filename}: {error.strerror}") from None
    return written
