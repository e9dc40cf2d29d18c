"""What every report format is made from: `Table`, of typed cells that all formats print alike.

`comparison_table` has the columns of the comparison table and makes its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.analysis.formatting import rounded

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    name: str
    """Key of `Row.cells` and of every machine-readable format; ends in its unit."""
    title: str
    unit: str
    kind: Literal["text", "count", "number"]
    """``number`` columns are means over seeds and may have an interval; the others are as they are."""
    better: Literal["higher", "lower", ""] = ""
    """Which values are better; for the quality, the row's ``metric_better`` says it."""

    @property
    def header(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True)
class Cell:
    """One figure or name. `value` and `ci95` (half-width) are not rounded; `shown` and `shown_ci95` are."""

    value: str | int | float | None
    ci95: float | None = None
    flagged: bool = False
    """There is a reason to doubt it, which the row's ``flags`` tell."""

    @property
    def shown(self) -> str:
        """Empty for None. Every format prints a number as this says, so that all of them agree."""
        if self.value is None:
            return ""
        return rounded(self.value, self.ci95)[0] if isinstance(self.value, float) else str(self.value)

    @property
    def shown_ci95(self) -> str:
        if not isinstance(self.value, float) or self.ci95 is None:
            return ""
        return rounded(self.value, self.ci95)[1]


@dataclass(frozen=True)
class Row:
    cells: dict[str, Cell]
    run_ids: tuple[str, ...] = ()
    """The runs that it sums up."""

    def text(self, name: str) -> str:
        return self.cells[name].shown


@dataclass(frozen=True)
class Table:
    """`columns` in order, and rows with a cell for each of them."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def frame(self) -> pd.DataFrame:
        """One row each; numbers unrounded, with a column ``<name>_ci95`` (half-width) beside each mean."""
        import pandas as pd

        data: dict[str, Any] = {}
        for column in self.columns:
            values = [row.cells[column.name].value for row in self.rows]
            if column.kind == "number":
                data[column.name] = pd.Series(values, dtype="float64")
                ci95 = [row.cells[column.name].ci95 for row in self.rows]
                data[f"{column.name}_ci95"] = pd.Series(ci95, dtype="float64")
            else:
                dtype: Any = "int64" if column.kind == "count" else "str"
                data[column.name] = pd.Series(values, dtype=dtype)
        return pd.DataFrame(data)
