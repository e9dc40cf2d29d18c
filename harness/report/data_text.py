"""Descriptions of data as text: sections for a run, and the output of ``harness data info``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.analysis.formatting import one_line
from harness.report.costs import Section, text

if TYPE_CHECKING:
    from harness.data.summary import DataSummary, Spread
    from harness.records import DataInfo

CLASSES = 12
"""Maximum number of classes listed in a section."""
ROWS = 50
"""Maximum number of rows in a table."""


def data_section(info: DataInfo, examples: Mapping[str, int]) -> Section:
    """Return a section with all recorded information about the data.

    `examples` contains the number of examples in each split. This argument is used for records without
    `DataInfo.splits`.
    """
    splits = info.splits
    counts = {name: split.examples for name, split in splits.items()} or dict(examples)
    rows: list[tuple[str, object]] = []
    if counts:
        rows.append(("examples", _by_split(counts)))
    if info.objective == "regression":
        rows.append(("targets", ", ".join(info.label_names) or str(info.outputs)))
    else:
        rows.append((f"{info.outputs} classes", _classes(info)))
    for name, spec in info.inputs.items():
        rows.append((f"input {name}", f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"))
    repeated = {name: split.repeated for name, split in splits.items()}
    shared = {name: split.shared for name, split in splits.items() if name != "train"}
    if any(repeated.values()):
        rows.append(("repeated in the same split", _by_split(repeated)))
    if any(shared.values()):
        rows.append(("also in the training split", _by_split(shared)))
    rows += list(info.details.items())
    rows += [("warning", warning) for warning in info.warnings]
    return "data", rows


def _by_split(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _classes(info: DataInfo) -> str:
    """Return the names of the classes. Each name is followed by the number of training examples, if known."""
    names = info.label_names or tuple(map(str, range(info.outputs)))
    counts = info.splits["train"].classes if "train" in info.splits else ()
    if not counts:
        shown = list(names[:CLASSES])
    else:
        order = sorted(range(len(names)), key=lambda number: -counts[number])
        if len(order) > CLASSES:
            order = [*order[: CLASSES - 1], order[-1]]
        shown = [f"{names[number]} ({counts[number]:,})" for number in order]
        if len(names) > CLASSES:
            shown.insert(-1, "...")
    what = "positions" if info.objective == "token_classification" else "examples"
    hidden = len(names) - min(len(names), CLASSES)
    return (
        ", ".join(shown) + (f"; {hidden} more" if hidden else "") + (f"; training {what} in brackets" if counts else "")
    )


def render(summary: DataSummary) -> str:
    """Return the output of ``harness data info --task`` as text."""
    info = summary.info
    title, rows = data_section(info, {})
    origin: list[tuple[str, object]] = [
        ("dataset", summary.path or summary.dataset),
        ("task", f"{summary.task} ({info.objective})"),
    ]
    if summary.path is not None:
        origin.append(("inferred", ", ".join(summary.inferred) or "nothing"))
    origin += [(f"dataset.{name}", value) for name, value in summary.dataset_options.items() if value not in (None, [])]
    origin += [(f"task.{name}", value) for name, value in summary.task_options.items() if value is not None]
    warnings = [_line(f"warning: {warning}") for warning in info.warnings]
    parts = [
        _grid(title, [[name, text(value)] for name, value in rows if name != "warning"]),
        *(["\n".join(warnings)] if warnings else []),
        *_tables(summary),
        _grid("settings", [[name, text(value)] for name, value in origin]),
    ]
    return "\n\n".join(parts)


def _tables(summary: DataSummary) -> list[str]:
    info, parts = summary.info, []
    if summary.columns:
        rows: list[list[Any]] = [
            [column.name, ", ".join(column.roles) or "ignored", column.type, column.missing, column.distinct]
            for column in summary.columns
        ]
        parts.append(_grid("columns", rows, ["column", "role", "type", "missing", "distinct"]))
    if info.objective != "regression":
        names = info.label_names or tuple(map(str, range(info.outputs)))
        counted = [split.classes for split in info.splits.values()]
        rows = [[name, *(counts[number] for counts in counted)] for number, name in enumerate(names)]
        parts.append(_grid("classes", rows, ["class", *info.splits]))
    for title, spreads in (("sizes", summary.sizes), ("targets", summary.targets)):
        rows = [
            [what, split, *_values(spread)] for what, by_split in spreads.items() for split, spread in by_split.items()
        ]
        if rows:
            parts.append(_grid(f"{title} before preparation", rows, ["", "split", "min", "median", "max"]))
    rows = [[example.target, "; ".join(_contents(example.content))] for example in summary.examples]
    parts.append(_grid("first training examples", rows, ["target", "content"]))
    return parts


def _contents(content: Mapping[str, str]) -> list[str]:
    return list(content.values()) if len(content) == 1 else [f"{name}: {value}" for name, value in content.items()]


def _values(spread: Spread) -> list[str]:
    return [
        f"{value:,.4g}" if value != int(value) else f"{int(value):,}"
        for value in (spread.min, spread.median, spread.max)
    ]


def _grid(title: str, rows: list[list[Any]], headers: list[str] | None = None) -> str:
    from tabulate import tabulate

    more = [f"... and {len(rows) - ROWS} more"] if len(rows) > ROWS else []
    shown = [[_line(cell) if isinstance(cell, str) else cell for cell in row] for row in rows[:ROWS]]
    grid = tabulate(shown, headers=headers or (), tablefmt="plain", disable_numparse=True)
    return "\n".join([title, *(f"  {line}".rstrip() for line in [*grid.splitlines(), *more])])


def _line(content: str) -> str:
    """Return text from the user's files without control characters, which a terminal would interpret."""
    return one_line(content, limit=4000)
