"""`Run`, a stored run with methods that read its predictions and predict new data."""

from __future__ import annotations

import os
from collections.abc import Mapping
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

    `harness.Results.runs` contains one such object for each record.
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

    def predict(
        self,
        data: pd.DataFrame | str | os.PathLike[str],
        *,
        backend: str | None = None,
        device: str = "auto",
        on_bad_row: Literal["error", "skip"] | None = None,
        timeout_s: float = 3600.0,
    ) -> pd.DataFrame:
        """Predict new data with the run's weights and preprocessing.

        Parameters
        ----------
        data : pandas.DataFrame or path-like
            New data with the same columns as the training data, or the path of a file or folder. See ``harness
            predict``. Labels are not required.
        backend : str, optional
            Name of the backend that computes the predictions. By default, the run's backend.
        device : str, default="auto"
            Device. ``"auto"`` selects the run's device or, if `backend` is specified, the first device of this backend.
        on_bad_row : {"error", "skip"}, optional
            Handling of bad rows. By default, the setting used in training.
        timeout_s : float, default=3600.0
            Maximum duration of the computation, in seconds.

        Returns
        -------
        pandas.DataFrame
            One row per example, with the columns of ``harness predict``. If `data` is a DataFrame, its index is kept.

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
        from harness.execute.trial import crashing
        from harness.plugins import discover
        from harness.records.printing import note

        frame = None if isinstance(data, str | os.PathLike) else data
        found = predict(
            StoredRun(self.path, self.record),
            Path(data) if isinstance(data, str | os.PathLike) else table_of(data),
            discover((), crashing),
            backend=backend,
            device=device,
            on_bad_row=on_bad_row,
            timeout_s=timeout_s,
        )
        for warning in found.warnings:
            note(f"warning: {warning}")
        if frame is not None and found.rows.dtype.kind == "i":
            return found.table.set_index(frame.index[found.rows - 1])
        return found.table


def table_of(frame: pd.DataFrame) -> Table:
    """Return the rows of a DataFrame. Raises `harness.DataError` if the DataFrame has no rows or if several columns
    have the same name."""
    from harness.data.user_files.delimited import check_once
    from harness.data.user_files.tables import Table
    from harness.errors import DataError

    names = [str(name) for name in frame.columns]
    check_once("the DataFrame", names)
    if not len(frame) or not names:
        raise DataError(f"the DataFrame has {len(frame)} rows and {len(names)} columns; pass at least one of each")
    columns = {
        name: [None if missing else cell for cell, missing in zip(column.tolist(), column.isna(), strict=True)]
        for name, (_, column) in zip(names, frame.items(), strict=True)
    }
    return Table("the DataFrame", columns, [f"row {number}" for number in range(1, len(frame) + 1)])
