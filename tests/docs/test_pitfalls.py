"""Tests that every test named on the pages of pitfalls and of reliability exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "explanation" / name for name in ("pitfalls.md", "reliability.md")]
NAMED = [name for page in PAGES for name in re.findall(r"`(tests/\S+?)::(\w+)`", page.read_text(encoding="utf-8"))]


def test_names_are_collected() -> None:
    assert len(NAMED) > 30


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_named_test_exists(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
