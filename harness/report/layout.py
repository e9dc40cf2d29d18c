"""How a wide table is laid out for people: a block for each task, dataset and device.

What all rows of a block share stands in its heading, columns that are empty in a block are left out, and what failed is
told below it.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.table import Column, Row, Table, one_line

_HEADING = ("task", "dataset", "model", "device", "precision", "options", "batch_size", "seeds", "runs")
_NEVER_SHOWN = ("task", "dataset", "metric", "metric_unit", "failures")


@dataclass(frozen=True)
class Block:
    heading: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    failures: tuple[str, ...]


def blocks(table: Table) -> list[Block]:
    """The table's rows, in their order, cut into blocks."""
    parts: dict[tuple[str, ...], list[Row]] = {}
    for row in table.rows:
        parts.setdefault(tuple(row.text(name) for name in ("task", "dataset", "device")), []).append(row)
    return [_block(table, tuple(rows)) for rows in parts.values()]


def _block(table: Table, rows: tuple[Row, ...]) -> Block:
    shared = {name: rows[0].text(name) for name in _HEADING if len({row.text(name) for row in rows}) == 1}
    if all(row.text("runs") == row.text("seeds") for row in rows):
        shared["runs"] = ""  # one run a seed goes without saying
    columns = tuple(
        _titled(column, rows)
        for column in table.columns
        if column.name not in (*shared, *_NEVER_SHOWN) and any(row.text(column.name) for row in rows)
    )
    failures = tuple(
        one_line(f"{_label(row, shared)}, {row.text('failures')}", limit=500) for row in rows if row.text("failures")
    )
    return Block(_heading(shared), columns, rows, failures)


def _titled(column: Column, rows: tuple[Row, ...]) -> Column:
    """The quality column bears the name and unit of the metric."""
    if column.name not in ("quality", "reference"):
        return column
    metrics = dict.fromkeys(row.text("metric") for row in rows if row.text("metric"))
    units = dict.fromkeys(row.text("metric_unit") for row in rows if row.text("metric_unit"))
    title = one_line("/".join(metrics)) if column.name == "quality" else column.title
    return Column(column.name, title, one_line("/".join(units)), column.kind)


def _heading(shared: dict[str, str]) -> str:
    parts = []
    for name, value in shared.items():
        if not value:
            continue
        if name == "batch_size":
            parts.append(f"batch {value}")
        elif name in ("seeds", "runs"):
            parts.append(f"{value} {name if value != '1' else name[:-1]}")
        else:
            parts.append(one_line(value))
    return " · ".join(parts)


def _label(row: Row, shared: dict[str, str]) -> str:
    names = ("model", "backend", "device", "precision", "options")
    return " ".join(row.text(name) for name in names if name not in shared and row.text(name))


def legend(table: Table) -> list[str]:
    """What a reader must know of the figures that this table holds."""
    cells = [row.cells for row in table.rows]
    lines = []
    if any(cell.ci95 is not None for row in cells for cell in row.values()):
        lines.append("± is the half-width of the 95% interval of the mean over seeds (Student t).")
    if any(row["train_ratio"].value is not None or row["inference_ratio"].value is not None for row in cells):
        lines.append("× is the ratio to the first backend of the same model and settings.")
    if any(row["p50_ms"].value is not None for row in cells):
        lines.append("p50, p90, p99: latency of one batch; each needs 11, 64, 662 samples in a run to be given.")
    return lines
