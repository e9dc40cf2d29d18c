"""Texts name the distribution of this project, not the unrelated distribution named ``harness``."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = re.compile(
    r"(?<![\w./-])harness(?:\[[\w., -]+\]|\s*[<>=~!]=)"
    r"|pip install (?!.*(?:\\n|&& ) *harness )[^\n]*(?<![\w./-])harness(?=['\"`\s]|$)"
)
"""``harness`` as a requirement: with extras, with a version, or as an argument of ``pip install``."""


def sources() -> list[Path]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    kinds = (".py", ".md", ".toml", ".txt", ".html", ".yml", "Makefile", "run")
    names = [name for name in listed.stdout.split("\n") if name.endswith(kinds)]
    return [ROOT / name for name in names if not name.startswith(("results/", "tests/"))]


def test_no_text_names_a_foreign_distribution() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sources()
        if path.exists()
        for match in FOREIGN.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "pip install harness",
        "pip install -U 'harness[torch]'",
        '"harness[torch]"',
        "harness>=0.1",
        "harness == 1",
        "pip install a harness",
    ],
)
def test_foreign_requirements_are_found(text: str) -> None:
    assert FOREIGN.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'ml-harness[torch]'",
        "pip install ./examples/harness-jax",
        "harness run",
        "pip install examples/harness-ner && harness run",
        "harness-ner[torch]",
    ],
)
def test_other_texts_are_not_found(text: str) -> None:
    assert not FOREIGN.search(text)
