"""Layout of the table for display, with one block for each task, dataset and device.

The heading of a block shows the values shared by all of its rows. Empty columns of a block are omitted, and failed runs
are listed below the block.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.comparison_table import EFFICIENCY, RATIOS
from harness.analysis.differences import IDENTITY
from harness.analysis.formatting import one_line
from harness.analysis.metrics import FIT_THROUGHPUT, MFU, in_group, unranked_note
from harness.analysis.table import Column, Row, Table
from harness.measure.stats import MINIMUM_SAMPLES

_HEADING = ("task", "dataset", "model", "device", "precision", "options", "batch_size", "seeds", "runs", "parity")
_NEVER_SHOWN = ("metric", "metric_title", "metric_better", "flags", "failures")


@dataclass(frozen=True)
class Block:
    """Rows of a table, with their heading, columns and notes."""

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    """Name of each row, composed of the fields that differ between the rows of the block."""
    variants: tuple[str, ...]
    """Name of each row without the backend and the device."""
    flags: tuple[str, ...]
    """Notes on flagged values: one for each row with flagged values, or one for all rows if the notes are identical."""
    failures: tuple[str, ...]
    """Notes on failed runs, one for each row with failed runs."""


def blocks(table: Table) -> list[Block]:
    """Divide the rows of a table into blocks."""
    devices: dict[tuple[str, str], list[str]] = {}
    for row in table.rows:
        if row.text("device") != "auto":
            devices.setdefault((row.text("task"), row.text("dataset")), []).append(row.text("device"))
    parts: dict[tuple[str, str, str], list[Row]] = {}
    for row in table.rows:
        task, dataset, device = (row.text(name) for name in ("task", "dataset", "device"))
        if device == "auto":  # a run that failed early is grouped with the rows to which it would be compared
            device = devices.get((task, dataset), [device])[0]
        parts.setdefault((task, dataset, device), []).append(row)
    return [block(table, tuple(rows)) for rows in parts.values()]


def block(table: Table, rows: tuple[Row, ...]) -> Block:
    """Return a block with these rows of the table."""
    shared = {name: rows[0].text(name) for name in _HEADING if len({row.text(name) for row in rows}) == 1}
    if all(row.text("runs") == row.text("seeds") for row in rows):
        shared["runs"] = ""  # omit the column if there is one run per seed
    columns = tuple(
        _titled(column, rows)
        for column in table.columns
        if column.name not in (*shared, *_NEVER_SHOWN) and _is_informative(column, rows)
    )
    # The unit is in the header of the quality column.
    if len({row.text("metric_unit") for row in rows if row.text("metric")}) == 1:
        columns = tuple(column for column in columns if column.name != "metric_unit")
    flags, failures = _remarks(rows, "flags", shared), _remarks(rows, "failures", shared)
    labels = tuple(one_line(_label(row, shared)) or row.text("backend") for row in rows)
    variants = tuple(one_line(_label(row, shared | {"backend": "", "device": ""})) for row in rows)
    return Block(_heading(shared), columns, rows, labels, variants, flags, failures)


def _remarks(rows: tuple[Row, ...], name: str, shared: dict[str, str]) -> tuple[str, ...]:
    """Return the nonempty texts of a column, each preceded by the label of its row. If all rows have the same text, the
    text is returned only once."""
    texts = {row.text(name) for row in rows}
    if len(rows) > 1 and len(texts) == 1 and texts != {""}:
        return (one_line(f"all rows, {texts.pop()}", limit=500),)
    return tuple(one_line(f"{_label(row, shared)}, {row.text(name)}", limit=500) for row in rows if row.text(name))


def _titled(column: Column, rows: tuple[Row, ...]) -> Column:
    """Return the column. If it is the quality column, its title and unit are replaced with those of the metric."""
    if column.name not in ("quality", "reference"):
        return column
    metrics = dict.fromkeys(row.text("metric_title") for row in rows if row.text("metric"))
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


def _is_informative(column: Column, rows: tuple[Row, ...]) -> bool:
    """Return True if the column has values. With only one backend, a column of ratios is informative only if it
    contains different ratios.
    """
    shown = {row.text(column.name) for row in rows} - {""}
    if column.name in RATIOS and len({row.text("backend") for row in rows}) == 1:
        return len(shown) > 1
    return bool(shown)


def legend(shown: list[Block]) -> list[str]:
    """Return the lines that explain the values in these blocks."""
    names = {column.name for block in shown for column in block.columns}
    cells = [row.cells[name] for block in shown for row in block.rows for name in names]
    lines = []
    if any(cell.shown_ci95 for cell in cells):
        over = "seeds, or over several splits" if _with_splits(shown) else "seeds"
        lines.append(f"± is the half-width of the 95% confidence interval of the mean over {over} (Student t).")
        if _with_splits(shown, resampled=True):
            lines.append(
                "For folds and random splits, the ± of scores is corrected for overlapping training splits (Nadeau and "
                "Bengio 2003)."
            )
    if any(cell.ci95 is not None and not cell.shown_ci95 for cell in cells):
        lines.append("A mean without ± is from one seed, or from several seeds whose values agree to seven digits.")
    if FIT_THROUGHPUT.name in names:
        lines.append("fit: throughput when the whole training split is fitted in one call; not comparable with train.")
    lines += unranked([row for block in shown for row in block.rows])
    if names & set(RATIOS):
        lines.append("× is the ratio to the first backend with the same model and settings.")
        if any(row.cells[name].ci95 is not None for block in shown for row in block.rows for name in RATIOS):
            pairs = "pairs of runs with the same seed and repeat"
            lines.append(f"The ± of a ratio (×) is based on {pairs} or, without pairs, on the ± of both means.")
    if EFFICIENCY.name in names:
        lines.append(
            "scaling: training throughput relative to the row with one device and the same settings, divided by the "
            "number of devices."
        )
    if any(row.text("parity") not in ("", "unchecked") for block in shown for row in block.rows):
        lines.append(
            "parity: result of `harness parity`: same (with the largest relative error of the logits), partly "
            "checked or differs."
        )
    if any(block.flags for block in shown):
        lines.append("! flagged: the value may be unreliable; see `harness show` for details.")
    if MFU.name in names:
        lines.append("MFU: FLOP/s during training, relative to the peak measured by `harness doctor --roofline`.")
    latencies = {metric.part: metric.name for metric in in_group("latency")}
    if names & set(latencies.values()):
        *counts, last = (str(MINIMUM_SAMPLES[float(part.removeprefix("p"))]) for part in latencies)
        needed = f"{', '.join(counts)} and {last}"
        lines.append(
            f"{', '.join(latencies)}: percentiles of the latency of one batch, which require at least "
            f"{needed} samples in a run."
        )
    return lines


def unranked(rows: Sequence[Row]) -> list[str]:
    """Return a list with a note on the primary metrics whose direction is unknown, or an empty list if there are
    none."""
    names = {one_line(row.text("metric")) for row in rows if row.text("metric") and not row.text("metric_better")}
    return [unranked_note(sorted(names))] if names else []


def _with_splits(shown: list[Block], *, resampled: bool = False) -> bool:
    """Return True if a row covers several splits or, if `resampled` is true, several folds or random splits."""
    kinds = "folds|random splits" if resampled else "folds|random splits|splits"
    pattern = re.compile(rf"\d+( of \d+)? ({kinds})\b")
    return any(pattern.match(row.text("options")) for block in shown for row in block.rows)
