"""The input for report formats: the comparison table and its runs."""

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
    from harness.tuning.study import Study


@dataclass(frozen=True, kw_only=True)
class Report:
    """The runs of a report, with the table that summarizes them.

    Reporters that declare ``takes="report"`` are called with an instance of this class.

    Parameters
    ----------
    runs : tuple of StoredRun
        Runs in the report, in the order in which they started.
    catalog : Catalog
        Installed plugins.
    verdicts : tuple of ParityVerdict, default=()
        Parity checks in the runs' results directory.
    all_ratios : bool, default=False
        If True, the table also shows ratios for rows that failed the parity check.
    price_per_hour : float or None, default=None
        Hourly price of the machine, used to compute the price per million samples. If None, the table does not show
        prices.
    metrics : tuple of str, default=()
        Names of metrics shown in additional columns of the table.
    title : str, default="Benchmark results"
        Title of the report.
    problems : tuple of str, default=()
        One message for each record that could not be read.
    studies : tuple of Study, default=()
        Studies of ``harness tune`` in the runs' results directory.
    """

    runs: tuple[StoredRun, ...]
    catalog: Catalog
    verdicts: tuple[ParityVerdict, ...] = ()
    all_ratios: bool = False
    price_per_hour: float | None = None
    metrics: tuple[str, ...] = ()
    title: str = "Benchmark results"
    problems: tuple[str, ...] = field(default=())
    studies: tuple[Study, ...] = ()

    @cached_property
    def table(self) -> Table:
        """Comparison table, built on first access. Each run belongs to exactly one row."""
        from harness.analysis.comparison_table import build_table

        return build_table(
            [run.record for run in self.runs],
            self.verdicts,
            all_ratios=self.all_ratios,
            price_per_hour=self.price_per_hour,
            metrics=[provided.value for provided in self.catalog.metrics.values()],
            shown=self.metrics,
        )

    @cached_property
    def by_id(self) -> dict[str, StoredRun]:
        """Runs by run id."""
        return {run.record.run_id: run for run in self.runs}

    @cached_property
    def backends(self) -> list[str]:
        """Names of the backends, in the order in which they first appear in the table."""
        return list(dict.fromkeys(row.text("backend") for row in self.table.rows))

    def runs_of(self, row: Row) -> list[StoredRun]:
        """Return the runs in a row.

        Parameters
        ----------
        row : Row
            Row of `table`.

        Returns
        -------
        list of StoredRun
            Runs in the order in which they started, including failed runs.
        """
        return [self.by_id[name] for name in row.run_ids]

    def successes(self, row: Row) -> list[StoredRun]:
        """Return the successful runs that belong to a table row.

        Parameters
        ----------
        row : Row
            Row of `table`.

        Returns
        -------
        list of StoredRun
            Successful runs in the order in which they started.
        """
        return [run for run in self.runs_of(row) if isinstance(run.record.outcome, Success)]
