"""What a report is made from: the table, and the runs that it sums up."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from harness.analysis.table import Row, Table
from harness.records import Success

if TYPE_CHECKING:
    from harness.checks.parity.verdict import ParityVerdict
    from harness.plugins.catalog import Catalog
    from harness.records.store import StoredRun


@dataclass(frozen=True, kw_only=True)
class Report:
    """`runs`, whose table has its rows in the order of their first ones; `verdicts` are the parity checks of their
    directory."""

    runs: tuple[StoredRun, ...]
    catalog: Catalog
    verdicts: tuple[ParityVerdict, ...] = ()
    all_ratios: bool = False
    price_per_hour: float | None = None
    """As `build_table` says."""
    title: str = "Benchmark results"
    problems: tuple[str, ...] = field(default=())
    """Records that could not be read, and why."""

    @cached_property
    def table(self) -> Table:
        """Sums up the runs, each of which is in one row. Made when it is first asked for."""
        from harness.analysis.comparison_table import build_table

        return build_table(
            [run.record for run in self.runs],
            self.verdicts,
            all_ratios=self.all_ratios,
            price_per_hour=self.price_per_hour,
            metrics=[provided.value for provided in self.catalog.metrics.values()],
        )

    @cached_property
    def by_id(self) -> dict[str, StoredRun]:
        return {run.record.run_id: run for run in self.runs}

    @cached_property
    def backends(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(row.text("backend") for row in self.table.rows))

    def runs_of(self, row: Row) -> list[StoredRun]:
        """Return the runs of a row, in the order in which they started."""
        return [self.by_id[name] for name in row.run_ids]

    def successes(self, row: Row) -> list[StoredRun]:
        """Return the runs of a row that succeeded."""
        return [run for run in self.runs_of(row) if isinstance(run.record.outcome, Success)]
