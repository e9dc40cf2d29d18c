"""Tests that the page on attributes of plugin classes is complete."""

from __future__ import annotations

import inspect

import pytest

import harness
from harness.plan.setting_list import field_docstrings


def test_page_is_generated_from_the_docstrings() -> None:
    attributes = pytest.importorskip("benchmarks.attributes")
    page = attributes.PAGE.read_text(encoding="utf-8")
    assert attributes.updated(page) == page, "run: python -m benchmarks.attributes"


def test_every_attribute_of_the_classes_is_described() -> None:
    for name in pytest.importorskip("benchmarks.attributes").CLASSES:
        kind = getattr(harness, name)
        declared = {each for base in kind.__mro__ for each in inspect.get_annotations(base) if not each.startswith("_")}
        assert field_docstrings(kind).keys() == declared, name
