"""The function `harness.compare` and its result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from harness.api.results import Results

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.compare.judge import Compared
    from harness.records.store import StoredRun


class Comparisons(Sequence["Compared"]):
    """The results of `compare`: a sequence with one element for each pair of matching settings.

    In a notebook, the comparisons are displayed as tables.

    Parameters
    ----------
    pairs : iterable of Compared
        The comparisons, in the format of ``harness compare --format json``.
    warnings : iterable of str
        Messages about excluded and flagged runs.

    Attributes
    ----------
    pairs : tuple of Compared
        The comparisons.
    warnings : tuple of str
        Messages about excluded and flagged runs.
    """

    def __init__(self, pairs: Iterable[Compared], warnings: Iterable[str] = ()) -> None:
        self.pairs = tuple(pairs)
        self.warnings = tuple(warnings)

    @overload
    def __getitem__(self, index: int) -> Compared: ...
    @overload
    def __getitem__(self, index: slice) -> Comparisons: ...
    def __getitem__(self, index: int | slice) -> Compared | Comparisons:
        if isinstance(index, slice):
            return Comparisons(self.pairs[index], self.warnings)
        return self.pairs[index]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Compared]:
        return iter(self.pairs)

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame with one row for each setting and metric.

        Returns
        -------
        pandas.DataFrame
            The column ``setting``, followed by the fields in the output of ``harness compare --format json``.
        """
        import msgspec
        import pandas as pd

        rows: list[dict[str, Any]] = [
            {"setting": pair.name, **msgspec.structs.asdict(comparison)}
            for pair in self.pairs
            for comparison in pair.comparisons
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        """Return the comparisons as text."""
        from harness.report.comparison_text import render

        return "\n".join([render(self.pairs), *(f"Warning: {text}" for text in self.warnings)])

    def _repr_html_(self) -> str:
        """Return the comparisons as HTML, for display in a notebook."""
        from harness.report.html_table import comparisons

        return comparisons(self.pairs, self.warnings)


def compare(
    base: Results | str | os.PathLike[str],
    new: Results | str | os.PathLike[str],
    metric: str | Iterable[str] = (),
    *,
    price_per_hour: float | None = None,
    results: str | os.PathLike[str] | None = None,
    plugins: Iterable[str] = (),
) -> Comparisons:
    """Compare two sets of runs, metric by metric, with confidence intervals.

    This function is the Python equivalent of ``harness compare``, without the option ``--fail-on``.

    Parameters
    ----------
    base, new : Results, str or path-like
        The two sets of runs: results of `run` or `load`, or anything that ``harness compare`` accepts, such as a
        results directory or part of a run id.
    metric : str or iterable of str, optional
        Metrics to compare. By default, the primary metric of the task, speed, latency and memory are compared.
    price_per_hour : float, optional
        Hourly price of the machine, for cost comparisons.
    results : str or path-like, optional
        Results directory in which run ids are looked up. The default is the value of the environment variable
        ``HARNESS_RESULTS``, or ``results`` if it is not set.
    plugins : iterable of str, optional
        Python files or modules to load as plugins, in addition to the installed plugins.

    Returns
    -------
    Comparisons
        The changes from `base` to `new`, with the verdicts.

    Raises
    ------
    UsageError
        If no successful runs match, or if one of the metrics cannot be used to compare the runs.
    UnknownNameError
        If a metric is unknown.
    RecordError
        If a record cannot be read.

    Examples
    --------
    ::

        results = harness.load("results/")
        harness.compare(results.filter(backend="torch"), results.filter(backend="tensorflow"), "quality")
    """
    from harness.analysis.compare.judge import compare_all
    from harness.analysis.compare.match import find_each
    from harness.analysis.compare.sides import match_sides
    from harness.execute.trial import crashing
    from harness.plugins import check_loaded, discover
    from harness.records.store import StoredRun, results_dir

    sources = tuple(plugins)
    catalog = discover(sources, crashing)
    check_loaded(sources, catalog)
    directory = results_dir(results)

    def found(runs: Results | str | os.PathLike[str]) -> list[StoredRun]:
        if isinstance(runs, Results):
            return [StoredRun(run.path, run.record) for run in runs.runs]
        return find_each([os.fspath(runs)], directory, lambda: catalog, strict=True)[0]

    both = (found(base), found(new))
    sides = match_sides(*both)
    sides.check([len(runs) for runs in both])
    warnings = list(sides.warnings)
    metrics = (metric,) if isinstance(metric, str) else tuple(metric)
    compared = compare_all(sides.matches, catalog, metrics, price_per_hour=price_per_hour, warn=warnings.append)
    return Comparisons(compared, warnings)
