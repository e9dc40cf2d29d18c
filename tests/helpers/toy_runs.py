"""Planned runs of the toy plugins."""

from __future__ import annotations

from typing import Any

from toy_plugin import FAST

from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import RunSpec


def toy_specs(catalog: Catalog, *overrides: str, **selection: Any) -> tuple[RunSpec, ...]:
    """Return the specs of short runs, by default one with the healthy toy backend."""
    chosen: dict[str, Any] = {"tasks": ("toy-regress",), "backends": ("toy-numpy",), "threads": 1} | selection
    return expand(Selection(overrides=(*FAST, *overrides), **chosen), catalog)
