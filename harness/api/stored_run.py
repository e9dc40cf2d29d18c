"""`Run`, a stored run with methods that read its predictions and compute predictions for new data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.records import RunRecord
from harness.records.store import StoredRun

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from harness.data.user_files.tables import Table


@dataclass(frozen=True)
class Run:
    """A run in a results directory.

    `harness.Results.runs` contains one `Run` for each record.
    """

    path: Path
    """Directory of the run."""
    record: RunRecord
    """Record of the run."""

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Return the run's raw samples.

        Returns
        -------
        mapping of str to ndarray
            Arrays in ``arrays.npz``, keyed by name, such as ``latencies_s``. The mapping is empty if the arrays were
            not saved.

        Raises
        ------
        RecordError
            If the arrays cannot be read or if they do not match the record.
        """
        from harness.records import samples

        return samples.stored(StoredRun(self.path, self.record))

    @property
    def weights_path(self) -> Path | None:
        """Path of the trained weights (safetensors). None if the weights were not saved with ``save_weights=True``."""
        from harness.records.store import WEIGHTS

        path = self.path / WEIGHTS
        return path if path.is_file() else None

    @property
    def log(self) -> str:
        """Output of the run's process, or an empty string if it was not saved."""
        from harness.records.reading import MAX_JSON_BYTES, is_stored, read_stored
        from harness.records.store import LOG

        path = self.path / LOG
        return read_stored(path, MAX_JSON_BYTES).decode(errors="replace") if is_stored(path) else ""

    def _repr_html_(self) -> str:
        """Return the details of the run as HTML, for display in a notebook."""
        from harness.report.html_table import run_details

        return run_details(self.record, self.path)

    def predictions(self) -> pd.DataFrame:
        """Return the predictions for the test split.

        Returns
        -------
        pandas.DataFrame
            One row per example, with the columns of ``harness predictions``.

        Raises
        ------
        UsageError
            If the run failed, or its predictions were not saved.
        """
        from harness.deploy.predictions import stored_predictions

        return stored_predictions(StoredRun(self.path, self.record))

    def groups(self, classes: str | Sequence[str] = (), *, min_examples: int = 20) -> pd.DataFrame:
        """Return the rates of each group of test examples.

        Parameters
        ----------
        classes : str or sequence of str, optional
            Classes for which rates are computed. By default, rates are computed for the second class if there are two
            classes, and for all classes otherwise.
        min_examples : int, default=20
            Minimum number of examples. A rate computed from fewer examples than this minimum has no interval and is
            excluded from the gaps.

        Returns
        -------
        pandas.DataFrame
            One row per group value and class. The first columns are ``group``, ``value``, ``label``, ``examples`` and
            ``small``. Each of the rates ``accuracy``, ``selection_rate``, ``true_positive_rate`` and
            ``false_positive_rate`` has four columns: the rate, the ends of its 95% interval (``<rate>_low``,
            ``<rate>_high``) and the number of examples from which the rate is computed (``<rate>_of``).
            ``attrs["gaps"]`` is a DataFrame with the largest difference and ratio of each rate between groups.

        Raises
        ------
        UsageError
            If the run has no groups, or if it is not a successful classification run.

        Examples
        --------
        ::

            table = harness.load("results/").runs[0].groups()
            table.attrs["gaps"]
        """
        from harness.analysis.groups import groups
        from harness.report.groups import gaps_frame, rates_frame

        found = groups(self.record, (classes,) if isinstance(classes, str) else classes, min_examples)
        table = rates_frame(found)
        table.attrs["gaps"] = gaps_frame(found)
        return table

    def predict(
        self,
        data: Any,
        *,
        backend: str | None = None,
        device: str = "auto",
        on_bad_row: Literal["error", "skip"] | None = None,
        encoding: str | None = None,
        separator: str | None = None,
        keep: str | Sequence[str] = (),
        timeout_s: float = 3600.0,
    ) -> pd.DataFrame:
        """Compute predictions for new data with the run's weights and preprocessing.

        Parameters
        ----------
        data : pandas.DataFrame, datasets.Dataset, mapping or path-like
            New data with the same columns as the training data, in any form that `harness.save_data` accepts, or the
            path of a file or folder, as in ``harness predict``. Labels are not required.
        backend : str, optional
            Name of the backend that computes the predictions. By default, the run's backend is used.
        device : str, default="auto"
            Device. ``"auto"`` selects the run's device or, if `backend` is specified, the first device of this backend.
        on_bad_row : {"error", "skip"}, optional
            Handling of bad rows. By default, the setting used in training is kept.
        encoding : str, optional
            Encoding of the text file. By default, the encoding of the training data is used.
        separator : str, optional
            Character that separates the cells of the CSV file. By default, as in training.
        keep : str or sequence of str, optional
            Columns of the data to include in the table, such as identifiers.
        timeout_s : float, default=3600.0
            Maximum duration of the computation, in seconds.

        Returns
        -------
        pandas.DataFrame
            One row per example, with the columns of ``harness predict``. If `data` is a DataFrame, its index is
            preserved. If the data have labels, ``attrs["scores"]`` contains the values of the task's metrics by name.

        Raises
        ------
        UsageError
            If the run failed, or if its weights and preprocessing were not saved.
        DataError
            If the data are invalid.
        HarnessError
            If the backend fails.

        Examples
        --------
        ::

            run = harness.load("results/").runs[0]
            run.predict(pd.DataFrame({"text": ["a great film"]}))
        """
        from harness.deploy.predict import predict
        from harness.execute.runner import check_limit
        from harness.execute.trial import crashing
        from harness.plugins import discover
        from harness.records.printing import note

        check_limit(timeout_s)
        with readable(data) as (source, warnings):
            found = predict(
                StoredRun(self.path, self.record),
                source,
                discover((), crashing),
                backend=backend,
                device=device,
                on_bad_row=on_bad_row,
                encoding=encoding,
                separator=separator,
                keep=(keep,) if isinstance(keep, str) else keep,
                timeout_s=timeout_s,
            )
        for warning in dict.fromkeys((*warnings, *found.warnings)):
            note(f"warning: {warning}")
        index, table = getattr(data, "index", None), found.table
        if index is not None and not callable(index):  # a method of str, for example
            table = table.set_index(index[found.positions])
        if found.scores is not None:
            table.attrs["scores"] = found.scores.values
        return table

    def explain(
        self,
        method: Literal["permutation", "integrated-gradients"] | None = None,
        *,
        split: Literal["test", "validation"] = "test",
        metric: str | None = None,
        repeats: int = 10,
        seed: int = 0,
        together: Sequence[Sequence[str]] = (),
        examples: int | str | Sequence[int | str] = (),
        target: str | None = None,
        steps: int = 50,
        backend: str | None = None,
        device: str = "auto",
        timeout_s: float = 3600.0,
    ) -> pd.DataFrame:
        """Explain the predictions of the run's model, and store the explanation next to the run.

        Parameters
        ----------
        method : {"permutation", "integrated-gradients"}, optional
            ``"permutation"`` computes the permutation importance of the columns of a table, and
            ``"integrated-gradients"`` attributes an output to the tokens or pixels of examples. The default is
            ``"permutation"`` for tables and ``"integrated-gradients"`` for other data.
        split : {"test", "validation"}, default="test"
            For permutation importance: split whose examples are permuted.
        metric : str, optional
            For permutation importance: name of the metric whose decrease is measured. By default, the primary metric of
            the run is used.
        repeats : int, default=10
            For permutation importance: number of permutations of each column.
        seed : int, default=0
            For permutation importance: seed of the permutations.
        together : sequence of sequence of str, optional
            For permutation importance: columns that are permuted together, such as correlated columns.
        examples : int, str or sequence of int or str, optional
            For integrated gradients: test examples, identified as in the first column of `predictions`.
        target : str, optional
            For integrated gradients: class whose output is attributed. By default, the predicted class is used.
        steps : int, default=50
            For integrated gradients: number of steps in the numerical integration.
        backend : str, optional
            Name of the backend that computes the predictions. By default, the run's backend is used.
        device : str, default="auto"
            Device, as in `predict`.
        timeout_s : float, default=3600.0
            Maximum duration of the computation, in seconds.

        Returns
        -------
        pandas.DataFrame
            For permutation importance, one row per column of the table, with the columns ``column``, ``importance``
            (mean over the repeats), ``low`` and ``high`` (95% interval of the mean) and ``std``. ``attrs["values"]``
            contains the importance in each repeat, float64 ``[columns, repeats]``. For integrated gradients, one row
            per attributed output, with the columns ``example``, ``position``, ``label``, ``predicted``, ``target``,
            ``output``, ``baseline_output``, ``delta``, ``tokens`` and ``scores``. ``attrs["arrays"]`` contains the
            attributions and the inputs by name.

        Raises
        ------
        UsageError
            If the run has no saved weights or its data are not suitable for the method, or if a method, metric,
            column, example or class does not exist.
        HarnessError
            If the data differ from those of the run or the backend fails.

        Examples
        --------
        ::

            harness.load("results/").runs[0].explain(repeats=30, together=[["latitude", "longitude"]])
        """
        from harness.deploy.attributions import attributions
        from harness.deploy.explanations import save_attributions, save_importance
        from harness.deploy.importance import permutation_importance
        from harness.errors import UnknownNameError, UsageError
        from harness.execute.runner import check_limit
        from harness.execute.trial import crashing
        from harness.plugins import discover
        from harness.report.explanations import attributions_frame, importance_frame

        check_limit(timeout_s)
        stored, catalog = StoredRun(self.path, self.record), discover((), crashing)
        computed_by: dict[str, Any] = {"backend": backend, "device": device, "timeout_s": timeout_s}
        if method is None:
            is_table = catalog.task(self.record.spec.task).kind == "table"
            method = "permutation" if is_table else "integrated-gradients"
        if method not in ("permutation", "integrated-gradients"):
            raise UnknownNameError("method", method, ("permutation", "integrated-gradients"))
        if any(isinstance(names, str) for names in together):
            raise UsageError("`together` contains a string; pass lists of columns, such as [['latitude', 'longitude']]")
        if method == "permutation":
            settings: dict[str, Any] = {"split": split, "metric": metric, "repeats": repeats, "seed": seed}
            importance = permutation_importance(stored, catalog, together=together, **settings, **computed_by)
            save_importance(stored, importance)
            return importance_frame(importance)
        names: Sequence[int | str] = [examples] if isinstance(examples, int | str) else examples
        found, arrays = attributions(
            stored, catalog, [str(name) for name in names], target=target, steps=steps, **computed_by
        )
        save_attributions(stored, found, arrays)
        return attributions_frame(found, arrays)


@contextmanager
def readable(data: Any) -> Iterator[tuple[Path | Table, Sequence[str]]]:
    """Yield the path of the new data or, for data in memory, a table. Images and recordings in memory are written to a
    temporary folder.

    Also yield the warnings issued while converting data in memory.
    """
    import tempfile

    from harness.data.user_files.memory import from_memory
    from harness.data.user_files.memory_files import write_data
    from harness.data.user_files.tables import Table

    if isinstance(data, str | os.PathLike):
        yield Path(data), ()
        return
    found = from_memory(data, keeps_index=True)
    if found.media is None:
        where = [f"row {number}" for number in range(1, found.rows + 1)]
        yield Table(f"the {found.origin}", found.columns, where), found.warnings
        return
    with tempfile.TemporaryDirectory(prefix="harness-predict-") as folder:
        yield write_data(found, Path(folder)), found.all_warnings()
