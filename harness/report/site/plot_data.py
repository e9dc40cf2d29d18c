"""The plot data embedded in a page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MAX_PLOTTED = 12
"""Maximum number of plot panels on a task page or on the home page."""


class Figures:
    """The plots on a page. Each dataset is stored once in columns, which the page's script converts to rows."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, list[Any]]] = {}
        self.figures: dict[str, dict[str, Any]] = {}

    def add(self, name: str, titled: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
        """Add charts to the page, and return their keys and titles.

        Charts are as wide as their containers, and their colors are set by the page's script.
        """
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
        """Add the data for a plot whose specification is shared by all run pages."""
        name = next((name for name, known in self.data.items() if known is columns), f"d{len(self.data)}")
        self.data[name] = columns
        self.figures[key] = {"data": [name]}

    def page(self) -> dict[str, Any]:
        """Return the plots as data for the template, or an empty dictionary if the page has no plots."""
        return {"data": self.data, "figures": self.figures} if self.figures else {}


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
