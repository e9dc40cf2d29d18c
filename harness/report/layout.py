"""How a wide table is laid out for people: a block for each task, dataset and device.

What all rows of a block share stands in its heading, columns that are empty in a block are left out, and what failed is
told below it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.analysis.comparison_table import RATIOS
from harness.analysis.differences import IDENTITY
from harness.analysis.formatting import one_line
from harness.analysis.metrics import in_group
from harness.analysis.table import Column, Row, Table

_HEADING = ("task", "dataset", "model", "device", "precision", "options", "batch_size", "seeds", "runs", "parity")
_NEVER_SHOWN = ("metric", "metric_better", "flags", "failures")


@dataclass(frozen=True)
class Block:
    heading: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    """What each row is called among these."""
    flags: tuple[str, ...]
    failures: tuple[str, ...]


def blocks(table: Table) -> list[Block]:
    """The table's rows, in their order, cut into blocks."""
    devices: dict[tuple[str, str], list[str]] = {}
    for row in table.rows:
        if row.text("device") != "auto":
            devices.setdefault((row.text("task"), row.text("dataset")), []).append(row.text("device"))
    parts: dict[tuple[str, str, str], list[Row]] = {}
    for row in table.rows:
        task, dataset, device = (row.text(name) for name in ("task", "dataset", "device"))
        if device == "auto":  # it failed before it chose one: it stays beside what it was to be compared with
            device = devices.get((task, dataset), [device])[0]
        parts.setdefault((task, dataset, device), []).append(row)
    return [block(table, tuple(rows)) for rows in parts.values()]


def block(table: Table, rows: tuple[Row, ...]) -> Block:
    """These rows of the table as one block."""
    shared = {name: rows[0].text(name) for name in _HEADING if len({row.text(name) for row in rows}) == 1}
    if all(row.text("runs") == row.text("seeds") for row in rows):
        shared["runs"] = ""  # one run a seed goes without saying
    columns = tuple(
        _titled(column, rows)
        for column in table.columns
        if column.name not in (*shared, *_NEVER_SHOWN) and _tells(column, rows)
    )
    if len({row.text("metric_unit") for row in rows if row.text("metric")}) == 1:  # the quality's title has it
        columns = tuple(column for column in columns if column.name != "metric_unit")
    flags, failures = (
        tuple(one_line(f"{_label(row, shared)}, {row.text(name)}", limit=500) for row in rows if row.text(name))
        for name in ("flags", "failures")
    )
    labels = tuple(one_line(_label(row, shared)) or row.text("backend") for row in rows)
    return Block(_heading(shared), columns, rows, labels, flags, failures)


def _titled(column: Column, rows: tuple[Row, ...]) -> Column:
    """The quality column bears the name and unit of the metric."""
    if column.name not in ("quality", "reference"):
        return column
    metrics = dict.fromkeys(row.text("metric") for row in rows if row.text("metric"))
    units = {row.text("metric_unit") for row in rows if row.text("metric")}
    title = one_line("/".join(metrics)) if column.name == "quality" else column.title
    return dataclasses.replace(column, title=title, unit=one_line(units.pop()) if len(units) == 1 else "")


def _heading(shared: dict[str, str]) -> str:
    parts = []
    for name, value in shared.items():
        if not value or (name, value) == ("seeds", "0"):
            continue
        if name == "batch_size":
            parts.append(f"batch {value}")
        elif name == "parity":
            parts.append(f"parity {value}")
        elif name in ("seeds", "runs"):
            parts.append(f"{value} {name if value != '1' else name[:-1]}")
        else:
            parts.append(one_line(value))
    return " · ".join(parts)


def _label(row: Row, shared: dict[str, str]) -> str:
    return " ".join(row.text(name) for name in (*IDENTITY, "options") if name not in shared and row.text(name))


def _tells(column: Column, rows: tuple[Row, ...]) -> bool:
    """Whether a column says something here. Ratios do from two backends up, or where something else was compared."""
    shown = {row.text(column.name) for row in rows} - {""}
    if column.name in RATIOS and len({row.text("backend") for row in rows}) == 1:
        return len(shown) > 1
    return bool(shown)


def legend(shown: list[Block]) -> list[str]:
    """What a reader must know of the figures in these blocks."""
    names = {column.name for block in shown for column in block.columns}
    cells = [row.cells[name] for block in shown for row in block.rows for name in names]
    lines = []
    if any(cell.ci95 is not None for cell in cells):
        over = "seeds, or over splits where there are several" if _with_splits(shown) else "seeds"
        lines.append(f"± is the half-width of the 95% interval of the mean over {over} (Student t).")
    if names & set(RATIOS):
        lines.append("× is the ratio to the first backend of the same model and settings.")
    if any(row.text("parity") not in ("", "unchecked") for block in shown for row in block.rows):
        lines.append("parity: same (largest relative error of the logits), or differs, by `harness parity`.")
    if any(block.flags for block in shown):
        kinds = "wide interval, drift, two modes, throttling, other load, changed code"
        lines.append(f"! flagged: {kinds}; `harness show` tells more.")
    if "mfu_percent" in names:
        lines.append("MFU: FLOP/s of training as a share of what `harness doctor --roofline` attained.")
    if names & {metric.name for metric in in_group("latency")}:
        lines.append("p50, p90, p99: latency of one batch; each needs 11, 64, 662 samples in a run to be given.")
    return lines


def _with_splits(shown: list[Block]) -> bool:
    return any(" splits" in row.text("options") for block in shown for row in block.rows)
