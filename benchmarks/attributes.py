"""Tables for ``docs/plugins/attributes.md``, generated from the code: ``python -m benchmarks.attributes``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import harness
from harness.plan.setting_list import field_docstrings

PAGE = Path(__file__).parents[1] / "docs" / "plugins" / "attributes.md"
BEGIN, END = "<!-- python -m benchmarks.attributes -->\n", "<!-- end -->\n"
CLASSES = (
    *("Task", "Dataset", "RawInput", "RawData", "Split", "PreparedData", "DataInfo", "InputSpec", "TableColumns"),
    *("Model", "Parameter", "NetworkRef", "Network", "Binding", "Backend", "SessionRequest", "Batch", "DeviceInfo"),
    *("Metric", "Reporter", "Tracker", "Executor"),
)


def updated(page: str) -> str:
    """Return the page with its tables replaced. Raises `ValueError` if a marker is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} must contain the lines {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n{''.join(map(_section, CLASSES))}{end}{after}"


def _section(name: str) -> str:
    kind = getattr(harness, name)
    lines = ["| attribute | default | description |", "|:--|:--|:--|"]
    for attribute, description in field_docstrings(kind).items():
        lines.append(f"| `{attribute}` | {_default(kind, attribute)} | {description.replace('|', '&#124;')} |")
    return f"### harness.{name}\n\n" + "\n".join(lines) + "\n\n"


def _default(kind: type, attribute: str) -> str:
    """Return the default value of an attribute as Markdown, or ``required`` if the attribute has no default."""
    parameters = inspect.signature(kind).parameters
    if attribute in parameters:
        value: Any = parameters[attribute].default
        if value is inspect.Parameter.empty:
            return "required"
    elif hasattr(kind, attribute):
        value = getattr(kind, attribute)
    else:
        return "required"
    if isinstance(value, type):
        return f"`{value.__name__}`"
    if value == harness.Recipe():
        return "`Recipe()`"
    return "`{}`" if "factory" in repr(value) else f"`{value!r}`"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
