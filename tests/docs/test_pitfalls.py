"""Tests that every test named on the page of pitfalls exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "pitfalls.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/\S+?)::(\w+)`", PAGE)


def test_names_are_collected() -> None:
    assert len(NAMED) > 30


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_named_test_exists(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
