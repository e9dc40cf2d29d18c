"""Tables for ``docs/reference/audit.md``, generated from the code: ``python -m benchmarks.audit_checks``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.checks.audit import from_record, replay
from harness.checks.audit.check import Check
from harness.checks.audit.fields import UNCHECKABLE

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "audit.md"
END = "<!-- end -->\n"


def tables() -> dict[str, str]:
    """Return the tables, keyed by the line that precedes each table on the page."""
    fields = "".join(f"| `{name}` | {reason} |\n" for name, reason in UNCHECKABLE.items())
    return {
        "<!-- python -m benchmarks.audit_checks: record -->\n": _checks(from_record.CHECKS),
        "<!-- python -m benchmarks.audit_checks: replay -->\n": _checks(replay.CHECKS),
        "<!-- python -m benchmarks.audit_checks: limits -->\n": f"| field | reason |\n| :-- | :-- |\n{fields}",
    }


def _checks(checks: Iterable[Check]) -> str:
    rows = [(check.name, ", ".join(f"`{name}`" for name in check.fields) or "–") for check in checks]
    return "| check | fields |\n| :-- | :-- |\n" + "".join(f"| {name} | {fields} |\n" for name, fields in rows)


def updated(page: str) -> str:
    """Return the page with its tables replaced. Raises `ValueError` if a marker is missing."""
    for begin, table in tables().items():
        before, marker, rest = page.partition(begin)
        _, end, after = rest.partition(END)
        if not (marker and end):
            raise ValueError(f"{PAGE} must contain the lines {begin!r} and {END!r}")
        page = f"{before}{begin}\n{table}\n{END}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
