"""``harness plugin new``: a small installable package for each kind of thing, which keeps the kit's rules as it is."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from harness.errors import HarnessError, UsageError

KINDS = ("task", "dataset", "model", "backend", "metric", "reporter")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def create(name: str, kind: str, output: Path) -> list[Path]:
    """Write the package `name` into the new folder `output`; returns its files.

    Raises `harness.UsageError` for a name that cannot be one or is taken, or a folder that has something in it.
    """
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(module):
        raise UsageError(f"{name!r} cannot be a package's name; use small letters, digits and hyphens, as in my-{kind}")
    if len(name) > 60:
        raise UsageError(f"{name[:20]!r}... is too long for a package's name; give at most 60 letters")
    if module in sys.stdlib_module_names or find_spec(module) is not None:
        raise UsageError(f"there is a module {module!r} already, which the package would hide; give it another name")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is there already, and not empty; --output names another folder")
    words = {"thing_class": "".join(part.title() for part in name.split("-")), "thing-name": name, "thing_name": module}
    templates = files("harness.testing.scaffold") / "templates"
    made = {
        f"{module}.py": f"{kind}.py.txt",
        f"tests/test_{module}.py": f"test_{kind}.py.txt",
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": f"README_{kind}.md.txt",
    }
    written = []
    try:
        for path, template in made.items():
            text = (templates / template).read_text()
            for word, value in words.items():
                text = text.replace(word, value)
            place = output / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            written.append(place)
    except OSError as error:
        raise HarnessError(f"{error.filename}: cannot be written: {error.strerror}") from None
    return written
