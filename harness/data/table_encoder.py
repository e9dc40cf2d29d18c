"""`TableEncoder`, which converts the columns of tables to numeric features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from harness.data.names import in_order
from harness.errors import DataError
from harness.interfaces import RawData
from harness.records import TableColumns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TableEncoderOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a task that uses `TableEncoder`."""

    missing: Literal["impute", "error"] = "impute"
    """Treatment of missing numeric values. ``impute``: replace them with the column's mean in the training split. For
    each column with missing numbers in the training split, also add an indicator column that is 1 where the number
    is missing and 0 elsewhere. ``error``: raise an error.
    """


class TableEncoder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conversion of table columns to numeric features, fitted on a training split.

    The raw inputs are ``features``, float ``[N, F]`` with NaN for missing numbers, and optionally ``categories``, an
    object array of str or None with shape ``[N, C]``. F may be 0 if there are categories.

    The encoded columns are the numbers, the indicators of missing numbers, and the categories, in this order. Each
    numeric column is standardized to mean 0 and standard deviation 1 on the training split. Missing numbers are
    replaced with the mean. A column that is constant on the training split is 0 in every split. Categories are one-hot
    encoded with the categories of the training split, sorted numerically if all categories of the column are whole
    numbers and alphabetically otherwise. A missing category (None) is treated as a category. An unknown category is
    encoded as 0 in all columns.

    The attributes contain the fitted values. `to_json` and `from_json` convert the fitted values to and from JSON
    values, such as `PreparedData.fitted`.

    Examples
    --------
    >>> import numpy as np
    >>> import harness
    >>> split = harness.Split(
    ...     inputs={"features": np.array([[1.0], [3.0]]), "categories": np.array([["red"], ["blue"]], object)},
    ...     targets=np.array([0, 1]),
    ... )
    >>> encoder = harness.TableEncoder.fit(harness.RawData(train=split, validation=split, test=split))
    >>> encoder.encode(split.inputs)["features"]
    array([[-1.,  0.,  1.],
           [ 1.,  1.,  0.]], dtype=float32)
    """

    fillers: tuple[float, ...]
    """Mean of each numeric column, ignoring missing numbers. Missing numbers are replaced by these means."""
    mean: tuple[float, ...]
    """Mean of each numeric column after imputation."""
    scale: tuple[float, ...]
    """Standard deviations of the numeric columns after imputation, or 1 for a constant column."""
    constant: tuple[int, ...]
    """Positions of the numeric columns that are constant on the training split."""
    indicators: tuple[int, ...]
    """Positions of the numeric columns that have an indicator column for missing numbers."""
    categories: tuple[tuple[str, ...], ...]
    """Categories of each categorical column, in the order of the encoded columns. The empty string denotes a missing
    category.
    """

    @classmethod
    def fit(cls, data: RawData, options: TableEncoderOptions | None = None) -> TableEncoder:
        """Fit an encoder on the training split.

        Parameters
        ----------
        data : RawData
            Raw splits, which are checked with `check`.
        options : TableEncoderOptions, optional
            Treatment of missing numeric values. By default, missing numeric values are imputed.

        Returns
        -------
        TableEncoder
            The fitted encoder.

        Raises
        ------
        harness.DataError
            If a split cannot be encoded, or if a column of the training split contains no numbers.
        """
        import numpy as np

        cls.check(data, options)
        raw = data.train.inputs["features"]
        gaps = np.isnan(raw)
        fillers = _means(raw, data.feature_names)
        filled = _filled(raw, fillers)
        mean, scale = column_statistics(filled)
        constant = _constant(filled) & ~gaps.any(axis=0)
        return cls(
            fillers=tuple(fillers.tolist()),
            mean=tuple(mean.tolist()),
            scale=tuple(scale.tolist()),
            constant=tuple(np.flatnonzero(constant).tolist()),
            indicators=tuple(np.flatnonzero(gaps.any(axis=0)).tolist()),
            categories=_categories(data.train.inputs.get("categories")),
        )

    @staticmethod
    def check(data: RawData, options: TableEncoderOptions | None = None) -> None:
        """Check that all splits can be encoded, as in `Task.check_data`.

        Parameters
        ----------
        data : RawData
            Raw splits.
        options : TableEncoderOptions, optional
            Treatment of missing numeric values. By default, missing numbers are accepted.

        Raises
        ------
        harness.DataError
            If an array has the wrong dtype or shape, or contains infinite numbers. Missing numbers are also an error,
            unless they are imputed.
        """
        train = data.train.inputs["features"]
        for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
            if train.shape[1:] != (0,) or "categories" not in split.inputs:
                features = split.inputs["features"]
                _check_numbers(f"{name} features", features, train.shape[1:], options, data.feature_names)
            _check_categories(f"{name} categories", split.inputs, _width(data.train.inputs))

    def encode(
        self, inputs: Mapping[str, NDArray[Any]], options: TableEncoderOptions | None = None
    ) -> dict[str, NDArray[Any]]:
        """Encode rows.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Raw inputs ``[N, ...]``, keyed by name.
        options : TableEncoderOptions, optional
            Treatment of missing numeric values. By default, missing numeric values are imputed.

        Returns
        -------
        dict of str to ndarray
            ``features``, float32 ``[N, columns]``.

        Raises
        ------
        harness.DataError
            If the inputs have the wrong dtype or number of columns, or cannot be encoded.
        """
        import numpy as np

        raw = inputs["features"]
        if self.mean or raw.shape[1]:
            _check_numbers("new features", raw, (len(self.mean),), options)
        _check_categories("new categories", inputs, len(self.categories))
        fillers, mean, scale = (np.array(values, np.float64) for values in (self.fillers, self.mean, self.scale))
        constant, indicators = (np.array(values, np.int64) for values in (self.constant, self.indicators))
        numbers = standardize(_filled(raw, fillers), mean, scale)
        numbers[:, constant] = 0  # other splits may have other values, for which no weight can be learned
        columns = [numbers, np.isnan(raw[:, indicators]).astype(np.float32)]
        if self.categories:
            cells = _named(inputs["categories"])
            columns += [_one_hot(cells[:, column], names) for column, names in enumerate(self.categories)]
        return {"features": np.concatenate(columns, axis=1)}

    @property
    def columns(self) -> TableColumns:
        """Layout of the encoded columns, for `DataInfo.columns`."""
        return TableColumns(
            numbers=len(self.mean), indicators=self.indicators, categories=tuple(map(len, self.categories))
        )

    def details(self, train: Mapping[str, NDArray[Any]]) -> dict[str, int | float]:
        """Return details for `DataInfo.details`.

        Parameters
        ----------
        train : mapping of str to ndarray
            Raw inputs of the training split.

        Returns
        -------
        dict of str to int or float
            ``constant_features``, the number of constant features. If the training split has missing numbers,
            ``missing_share``, the fraction of missing numbers, is also included.
        """
        import numpy as np

        missing = {"missing_share": float(np.isnan(train["features"]).mean())} if self.indicators else {}
        return {"constant_features": len(self.constant), **missing}

    def to_json(self) -> dict[str, Any]:
        """Return the fitted values as JSON values."""
        values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TableEncoder:
        """Create an encoder from the given fitted values.

        Parameters
        ----------
        values : mapping of str to Any
            Values returned by `to_json`, which may have been read from a JSON file.

        Returns
        -------
        TableEncoder
            The encoder.

        Raises
        ------
        harness.DataError
            If the values are not the fitted values of an encoder.
        """
        try:
            return msgspec.convert(dict(values), cls)
        except msgspec.ValidationError as error:
            raise DataError(f"the fitted values of the table encoder are damaged: {error}") from None


def _check_numbers(
    name: str,
    values: NDArray[Any],
    shape: tuple[int, ...],
    options: TableEncoderOptions | None,
    columns: Sequence[str] = (),
) -> None:
    """Raise `harness.DataError` unless `values` is a float array ``[N, *shape]`` without infinite numbers.

    NaN is rejected unless missing values are imputed. `columns` contains the column names, if known.
    """
    import numpy as np

    if values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise DataError(f"{name} are {values.dtype} of shape {values.shape}; expected float [N, columns], not empty")
    if values.shape[1:] != shape:
        raise DataError(f"{name} have {values.shape[1]} columns, but the training split has {shape[0]}")
    allowed = options is None or options.missing == "impute"
    bad = np.isinf(values) if allowed else ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        raise DataError(
            f"{name}: {int(bad.sum()):,} missing or infinite numbers, the first in row {row} of the split, "
            f"{_column(column, columns)}; remove these rows or fill in the values"
        )


def _width(inputs: Mapping[str, NDArray[Any]]) -> int:
    """Return the number of categorical columns."""
    return inputs["categories"].shape[1] if "categories" in inputs else 0


def _check_categories(name: str, inputs: Mapping[str, NDArray[Any]], columns: int) -> None:
    """Raise `harness.DataError` unless the number of categorical columns in the inputs is equal to `columns`."""
    if _width(inputs) != columns:
        raise DataError(f"{name} have {_width(inputs)} columns, but the training split has {columns}")


def _means(values: NDArray[Any], columns: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean of each column, ``[F]``, ignoring NaN.

    Raises `harness.DataError` if a column contains no numbers.
    """
    import numpy as np

    known = ~np.isnan(values)
    if values.shape[1] and not known.any(axis=0).all():
        column = int(np.flatnonzero(~known.any(axis=0))[0])
        raise DataError(f"the training features contain no numbers in {_column(column, columns)}; remove this column")
    means: NDArray[np.float64] = np.where(known, values, 0).sum(axis=0, dtype=np.float64) / known.sum(axis=0)
    return means


def _column(number: int, names: Sequence[str]) -> str:
    return f"column {names[number]!r}" if names else f"column {number} (counted from 0)"


def _filled(columns: NDArray[Any], fillers: NDArray[np.float64]) -> NDArray[Any]:
    """Return `columns` with NaN replaced by `fillers` ``[F]``. If there is no NaN, return the array itself."""
    import numpy as np

    gaps = np.isnan(columns)
    return np.where(gaps, fillers, columns) if gaps.any() else columns


def _categories(cells: NDArray[Any] | None) -> tuple[tuple[str, ...], ...]:
    """Return the categories of each column of `cells` ``[N, C]``, ordered by `in_order`. Return an empty tuple if there
    are no columns.
    """
    return () if cells is None else tuple(in_order(column) for column in _named(cells).T)


def _named(cells: NDArray[Any]) -> NDArray[Any]:
    """Return `cells` with None replaced by the empty string, which is treated as a separate category."""
    import numpy as np

    return np.where(np.equal(cells, np.array(None)), "", cells)


def _one_hot(cells: NDArray[Any], names: Sequence[str]) -> NDArray[np.float32]:
    """Return an indicator column for each category in `names`. A cell with any other value is encoded as 0 in all
    columns.
    """
    import numpy as np

    numbers = {name: number for number, name in enumerate(names)}
    found = np.array([numbers.get(cell, -1) for cell in cells], np.int64)
    columns = np.zeros((len(cells), len(names)), np.float32)
    (known,) = np.nonzero(found >= 0)
    columns[known, found[known]] = 1
    return columns


def _constant(columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a mask ``[F]`` that is True for columns with a single distinct value."""
    constant: NDArray[np.bool_] = columns.min(axis=0) == columns.max(axis=0)
    return constant


def column_statistics(columns: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and standard deviation of each column.

    Parameters
    ----------
    columns : ndarray of shape (N, F)
        Finite numbers.

    Returns
    -------
    mean : ndarray of shape (F,), float64
        Mean of each column.
    scale : ndarray of shape (F,), float64
        Standard deviation of each column, or 1 for a constant column.
    """
    import numpy as np

    mean = columns.mean(axis=0, dtype=np.float64)
    scale = columns.std(axis=0, dtype=np.float64)
    return mean, np.where(_constant(columns), 1.0, scale)


def standardize(columns: NDArray[Any], mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return ``(columns - mean) / scale`` in float32, computed in float64.

    Parameters
    ----------
    columns : ndarray of shape (N, F)
        Finite numbers.
    mean : ndarray of shape (F,)
        Means, as returned by `column_statistics`.
    scale : ndarray of shape (F,)
        Standard deviations, as returned by `column_statistics`.

    Returns
    -------
    ndarray of shape (N, F), float32
        The standardized columns.
    """
    import numpy as np

    return ((columns - mean) / scale).astype(np.float32)
