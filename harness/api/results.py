"""`Results` and `TuningResults`, the objects that `harness.run`, `harness.load` and `harness.tune` return."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from harness.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.rank import Ranking
    from harness.analysis.table import Table
    from harness.api.stored_run import Run
    from harness.checks.parity.verdict import ParityVerdict
    from harness.interfaces import Metric
    from harness.tuning.study import Study


class Results(Sequence[RunRecord]):
    """A sequence of run records, ordered by start time, with a comparison table.

    Indexing with an integer returns a `RunRecord`, and slicing returns `Results`. In a notebook, `Results` are
    displayed as a comparison table.

    Parameters
    ----------
    records : iterable of RunRecord
        The records, in order.
    problems : iterable of str, optional
        A message for each record file that could not be read.
    verdicts : iterable of ParityVerdict, optional
        Results of parity checks, for display in the comparison table.
    metrics : iterable of Metric, optional
        Metrics provided by plugins, whose units and directions are shown in the comparison table.
    directory : Path, optional
        Results directory that contains the runs.

    Attributes
    ----------
    records : tuple of RunRecord
        The records, in order.
    problems : tuple of str
        A message for each record file that could not be read, including its path and the reason.
    reused : int
        Number of runs that were not executed again because their earlier records were reused.
    """

    def __init__(
        self,
        records: Iterable[RunRecord],
        problems: Iterable[str] = (),
        verdicts: Iterable[ParityVerdict] = (),
        metrics: Iterable[Metric] = (),
        *,
        reused: int = 0,
        directory: Path | None = None,
    ) -> None:
        self.records = tuple(records)
        self._directory = directory
        self.problems = tuple(problems)
        self._verdicts = tuple(verdicts)
        self._metrics = tuple(metrics)
        self.reused = reused

    @overload
    def __getitem__(self, index: int) -> RunRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> RunRecord | Results:
        if isinstance(index, slice):
            return self._with(self.records[index])
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self.records)

    def _with(self, records: Iterable[RunRecord]) -> Results:
        return Results(records, self.problems, self._verdicts, self._metrics, directory=self._directory)

    def filter(
        self,
        where: Callable[[RunRecord], bool] | None = None,
        *,
        task: str | Iterable[str] = (),
        dataset: str | Iterable[str] = (),
        model: str | Iterable[str] = (),
        backend: str | Iterable[str] = (),
        device: str | Iterable[str] = (),
        precision: str | Iterable[str] = (),
        seed: int | Iterable[int] = (),
        status: str | Iterable[str] = (),
    ) -> Results:
        """Return the results of the runs that satisfy all conditions.

        Parameters
        ----------
        where : callable, optional
            Function that takes a `RunRecord` and returns True if the record should be kept.
        task, dataset, model, backend, device, precision : str or iterable of str, optional
            Required values of fields in the run's specification.
        seed : int or iterable of int, optional
            Random seeds.
        status : str or iterable of str, optional
            ``"success"``, ``"failure"``, ``"trial"``, or a kind of failure such as ``"timeout"``.

        Returns
        -------
        Results
            The matching records, in the same order.

        Raises
        ------
        UnknownNameError
            If a status is unknown.

        Examples
        --------
        ::

            harness.load("results/").filter(task="nlp", backend=["torch", "tensorflow"], status="success")
        """
        from harness.api.filters import matching

        wanted = {
            "task": task,
            "dataset": dataset,
            "model": model,
            "backend": backend,
            "device": device,
            "precision": precision,
            "seed": seed,
        }
        return self._with(matching(self.records, wanted, status, where))

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs, in the order of `records`. Each `Run` provides access to the predictions and the trained model of a
        run.

        Raises `UsageError` if the results directory is not known.
        """
        from harness.api.stored_run import Run
        from harness.errors import UsageError

        if self._directory is None:
            raise UsageError("these results have no results directory; load them with harness.load")
        return tuple(Run(self._directory / record.run_id, record) for record in self.records)

    def table(self, *, price_per_hour: float | None = None, metrics: Sequence[str] = ()) -> Table:
        """Return the comparison table, aggregated over seeds and splits.

        The table has one row for each task, dataset, model, backend, device and precision.

        Parameters
        ----------
        price_per_hour : float, optional
            Hourly price of the machine, in any currency. If given, the table includes the cost per million samples.
        metrics : sequence of str, optional
            Names of metrics to show in addition to the default columns.

        Returns
        -------
        Table
            The rows, with means and 95% confidence intervals.
        """
        from harness.analysis.comparison_table import build_table

        return build_table(
            self.records, self._verdicts, price_per_hour=price_per_hour, metrics=self._metrics, shown=metrics
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the comparison table as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            One row for each row in `table`. Metrics are floats. For each column of means, there is a column with the
            half-width of the 95% confidence interval.
        """
        return self.table().frame()

    def plot(self, path: str | os.PathLike[str], plot: str | None = None) -> Path:
        """Plot the runs and save the plot to a file.

        Parameters
        ----------
        path : str or path-like
            File to write. The suffix determines the format: svg, png, pdf, html or json (Vega-Lite).
        plot : str, optional
            Name of the plot: ``"pareto"``, ``"quality"``, ``"curves"``, ``"ratios"``, ``"confusion"``, ``"roc"``,
            ``"latency"`` or ``"memory"``. The default is quality against throughput (``"pareto"``), or ``"quality"`` if
            no throughput was measured.

        Returns
        -------
        Path
            The path of the file.

        Raises
        ------
        UsageError
            If the plot or the format is unknown, or if the runs lack the data required for the plot.
        """
        from harness.execute.trial import crashing
        from harness.plugins import discover
        from harness.records.files import write_whole
        from harness.records.store import StoredRun
        from harness.report.plots.figure import figure
        from harness.report.report import Report

        runs = tuple(StoredRun(run.path, run.record) for run in self.runs)
        report = Report(runs=runs, catalog=discover((), crashing), verdicts=self._verdicts)
        file = Path(path)
        name = plot or ("quality" if all(record.quality_only for record in self.records) else "pareto")
        write_whole(file, figure(report, name, file.suffix))
        return file

    def rank(
        self, metric: str = "quality", by: str | Iterable[str] = "backend", *, baseline: str = "", ties: str = "verdict"
    ) -> Ranking:
        """Return a ranking of backends, models or other settings across datasets.

        This method is the Python equivalent of ``harness rank``.

        Parameters
        ----------
        metric : str, default="quality"
            Name of the metric. ``"quality"`` is the primary metric of each task.
        by : str or iterable of str, default="backend"
            Fields to rank: ``"backend"``, ``"model"``, ``"device"``, ``"precision"``, or a setting such as
            ``"recipe.batch_size"``.
        baseline : str, optional
            Reference candidate for the ratios. Runs of the reference candidate also replace failed runs of other
            candidates. By default, the first candidate with results on the most datasets is used.
        ties : {"verdict", "exact"}, default="verdict"
            With ``"verdict"``, two candidates tie on a dataset if their comparison is inconclusive. With ``"exact"``,
            two candidates tie only if their means are equal.

        Returns
        -------
        Ranking
            Mean ranks, win rates and ratios with 95% intervals. All values are computed twice: with failed runs
            excluded, and with failed runs imputed. The fields are those of ``harness rank --format json`` (see
            ``docs/reference/report-columns.md``).

        Raises
        ------
        UsageError
            If fewer than two candidates have datasets in common, or if a name is unknown.

        Examples
        --------
        ::

            harness.load("results/").rank(by="model").placements[0].standings
        """
        from harness.analysis.rank import rank
        from harness.errors import UsageError
        from harness.records.store import StoredRun

        if ties not in ("verdict", "exact"):
            raise UsageError(f"unknown value for ties {ties!r}; use 'verdict' or 'exact'")
        return rank(
            [StoredRun((self._directory or Path()) / record.run_id, record) for record in self.records],
            {metric.name: metric for metric in self._metrics},
            metric,
            (by,) if isinstance(by, str) else tuple(by),
            baseline=baseline,
            ties="exact" if ties == "exact" else "verdict",
        )

    def __repr__(self) -> str:
        """Return the comparison table as text, for display in a notebook."""
        from harness.report.text import render

        return render(self.table()) if self.records else "no runs"

    def _repr_html_(self) -> str:
        """Return the comparison table as HTML, for display in a notebook."""
        from harness.report.html_table import render

        return render(self.table()) if self.records else "<p>no runs</p>"


class TuningResults:
    """The results of `tune`.

    Parameters
    ----------
    studies : iterable of Study
        The studies, one for each backend.
    results : Results
        Records of the runs that confirm the settings with fresh seeds.

    Attributes
    ----------
    studies : tuple of Study
        The studies, one for each backend. A study contains the trials, the cost of the search, and the numbers that
        identify the best trials.
    results : Results
        Records of the runs with the default settings and with the best settings. The records of the runs with the best
        settings contain the cost of tuning.
    """

    def __init__(self, studies: Iterable[Study], results: Results) -> None:
        self.studies = tuple(studies)
        self.results = results

    @property
    def best(self) -> dict[str, dict[str, Any]]:
        """The best settings for each backend, as overrides for `run`.

        With several objectives, these settings are the best ones for the first objective. Backends without a completed
        trial are omitted.
        """
        found = {}
        for study in self.studies:
            trials = [study.trial(number) for number in study.best]
            if trials:
                sign = 1 if study.objectives[0].higher_is_better else -1
                found[study.spec.backend] = max(trials, key=lambda trial: sign * trial.values[0]).settings
        return found

    def __repr__(self) -> str:
        """Return the studies and the comparison table as text, for display in a notebook."""
        from harness.report.tuning import render

        records = {record.run_id: record for record in self.results}
        return "\n".join([*(render(study, records) for study in self.studies), repr(self.results)])

    def _repr_html_(self) -> str:
        """Return the studies and the comparison table as HTML, for display in a notebook."""
        from harness.report.html_table import preformatted
        from harness.report.tuning import render

        records = {record.run_id: record for record in self.results}
        studies = "\n".join(render(study, records) for study in self.studies)
        return f"{preformatted(studies)}\n{self.results._repr_html_()}"
