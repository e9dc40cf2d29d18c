"""Tables with typed cells, from which all report formats are rendered.

`harness.analysis.comparison_table` defines the columns and builds the rows of the comparison table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.analysis.formatting import rounded

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """A column in a table."""

    name: str
    """Key in `Row.cells` and in machine-readable formats. The key ends with the unit."""
    title: str
    """Header without the unit."""
    unit: str
    """Unit of the values. Empty for strings, counts and fractions."""
    kind: Literal["text", "count", "number"]
    """Type of the values: strings, integers, or means over seeds. A mean may have a confidence interval."""
    better: Literal["higher", "lower", ""] = ""
    """Direction in which values improve. Empty if neither direction is better. For the quality column, the direction is
    given in the ``metric_better`` column, because it may differ between rows."""

    @property
    def header(self) -> str:
        """Title followed by the unit in parentheses."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True)
class Cell:
    """A value in a table. `value` and `ci95` are exact; `shown` and `shown_ci95` are rounded strings."""

    value: str | int | float | None
    """A string, a count or a mean. None if the value is missing."""
    ci95: float | None = None
    """Half-width of the 95% confidence interval. None if there is no interval."""
    flagged: bool = False
    """True if the value may be unreliable. The row's ``flags`` column gives the reason."""

    @property
    def shown(self) -> str:
        """`value` as a string, rounded identically in all formats. Empty if `value` is None."""
        if self.value is None:
            return ""
        return rounded(self.value, self.ci95)[0] if isinstance(self.value, float) else str(self.value)

    @property
    def shown_ci95(self) -> str:
        """`ci95` as a string. Empty if there is no interval or if its width rounds to zero (see `rounded`)."""
        if not isinstance(self.value, float) or self.ci95 is None:
            return ""
        return rounded(self.value, self.ci95)[1]


@dataclass(frozen=True)
class Row:
    """A row in a table."""

    cells: dict[str, Cell]
    """Cells by column name."""
    run_ids: tuple[str, ...] = ()
    """Ids of the runs in the row."""

    def text(self, name: str) -> str:
        """Return the cell in column `name` as a string."""
        return self.cells[name].shown


@dataclass(frozen=True)
class Table:
    """Comparison table from which report formats are rendered.

    Parameters
    ----------
    columns : tuple of Column
        Columns, in print order.
    rows : tuple of Row
        Rows, each with one cell per column.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def frame(self) -> pd.DataFrame:
        """Return the table as a data frame with unrounded numbers.

        Returns
        -------
        pandas.DataFrame
            A data frame with the table's rows and columns. Each ``number`` column is float64, with NaN for missing
            values. Each ``number`` column is followed by a column ``<name>_ci95``, which contains the half-width of the
            95% confidence interval. ``count`` columns are int64, and ``text`` columns are str.
        """
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
