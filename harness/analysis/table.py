"""The comparison table as data: typed cells, rounded in one place, so that every format prints the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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
    """Which figures of the column are to be preferred; of the quality, the row's ``metric_better`` says it."""


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


COLUMNS = (
    Column("task", "task", "", "text"),
    Column("dataset", "dataset", "", "text"),
    Column("model", "model", "", "text"),
    Column("backend", "backend", "", "text"),
    Column("device", "device", "", "text"),
    Column("precision", "precision", "", "text"),
    Column("options", "options", "", "text"),
    Column("batch_size", "batch", "", "count"),
    Column("seeds", "seeds", "", "count"),
    Column("runs", "runs", "", "count"),
    Column("metric", "metric", "", "text"),
    Column("metric_unit", "metric unit", "", "text"),
    Column("metric_better", "metric better", "", "text"),
    Column("quality", "quality", "", "number"),
    Column("reference", "closed form", "", "number"),
    Column("f1_macro", "f1_macro", "", "number", "higher"),
    Column("r2", "r2", "", "number", "higher"),
    Column("train_samples_per_s", "train", "samples/s", "number", "higher"),
    Column("inference_samples_per_s", "inference", "samples/s", "number", "higher"),
    Column("train_cost_per_million", "train cost", "per 1M", "number", "lower"),
    Column("inference_cost_per_million", "infer. cost", "per 1M", "number", "lower"),
    Column("mfu_percent", "MFU", "%", "number", "higher"),
    Column("time_to_target_s", "to target", "s", "number", "lower"),
    Column("p50_ms", "p50", "ms", "number", "lower"),
    Column("p90_ms", "p90", "ms", "number", "lower"),
    Column("p99_ms", "p99", "ms", "number", "lower"),
    Column("host_peak_mib", "host peak", "MiB", "number", "lower"),
    Column("device_peak_mib", "device peak", "MiB", "number", "lower"),
    Column("reserved_peak_mib", "reserved peak", "MiB", "number", "lower"),
    Column("driver_peak_mib", "driver peak", "MiB", "number", "lower"),
    Column("train_cpu_j", "train cpu", "J/sample", "number", "lower"),
    Column("inference_cpu_j", "infer. cpu", "J/sample", "number", "lower"),
    Column("train_gpu_j", "train gpu", "J/sample", "number", "lower"),
    Column("inference_gpu_j", "infer. gpu", "J/sample", "number", "lower"),
    Column("train_ratio", "train", "×", "number"),
    Column("inference_ratio", "infer.", "×", "number"),
    Column("parity", "parity", "", "text"),
    Column("status", "status", "", "text"),
    Column("flags", "flags", "", "text"),
    Column("failures", "failures", "", "text"),
)


@dataclass(frozen=True)
class Table:
    """What every report format is made from: `columns` in order, and rows with a cell for each of them."""

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


def rounded(value: float, ci95: float | None) -> tuple[str, str]:
    """A mean and its half-width as text: two significant digits of the half-width, and the mean to the same place.

    Without a half-width, or with one of zero, four significant digits; never more than seven.
    """
    if not ci95:
        digits = 4
        place = digits - 1 - _exponent(value, digits)
    else:
        place = 1 - _exponent(ci95, 2)
        place = min(place, 6 - _exponent(max(abs(value), ci95), 7))
    if value and not 1e-4 <= max(abs(value), ci95 or 0) < 1e9:
        power = _exponent(max(abs(value), ci95 or 0), 7)
        digits_after = max(place + power, 0)
        return f"{value:.{digits_after}e}", "" if ci95 is None else f"{ci95:.1e}"
    return _fixed(value, place), "" if ci95 is None else _fixed(ci95, place)


def _exponent(value: float, digits: int) -> int:
    """Decimal exponent of the leading digit once rounded to `digits` significant ones (0.0996 to two is 0.10)."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2]) if value else 0


def _fixed(value: float, place: int) -> str:
    number = round(value, place)
    if not number:
        return "0"
    return f"{number:.{max(place, 0)}f}"


def one_line(text: str, limit: int = 200) -> str:
    """`text` without line breaks and control characters, at most `limit` characters long."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
