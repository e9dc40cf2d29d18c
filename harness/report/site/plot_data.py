"""Figures as a page holds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MAX_PLOTTED = 12
"""Panels of a task's page, and of the home page, that have figures."""


class Figures:
    """Figures of a page: their data once each, by columns, which is smaller and which the page's script takes apart."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, list[Any]]] = {}
        self.figures: dict[str, dict[str, Any]] = {}

    def add(self, name: str, titled: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
        """Charts with their titles, as wide as their places on the page, whose script gives the colors; returns the
        keys that the page finds them by, and the titles."""
        keys = []
        for place, (title, chart) in enumerate(titled):
            keys.append((f"{name}-{place}", title))
            self._add(f"{name}-{place}", chart)
        return keys

    def _add(self, key: str, chart: Any) -> None:
        spec = chart.to_dict(validate=False)
        spec.pop("config", None)
        datasets = spec.pop("datasets", {})
        for name, rows in datasets.items():
            self.data[name] = {column: [_short(row.get(column)) for row in rows] for column in rows[0]} if rows else {}
        spec |= {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
        self.figures[key] = {"spec": spec, "data": list(datasets)}

    def share(self, key: str, columns: dict[str, Any]) -> None:
        """A figure whose specification the pages of all runs have in common; equal data are kept once."""
        name = next((name for name, known in self.data.items() if known is columns), f"d{len(self.data)}")
        self.data[name] = columns
        self.figures[key] = {"data": [name]}

    def page(self) -> dict[str, Any]:
        return {"data": self.data, "figures": self.figures} if self.figures else {}


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
