"""The ``regression`` task: regression on the columns of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from harness import DataError, DataInfo, InputSpec, PreparedData, RawData, Recipe, Split, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray


class RegressionOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for the ``regression`` task."""

    missing: Literal["impute", "error"] = "impute"
    """Treatment of missing numbers. ``impute``: replace missing numbers with the column's mean in the training split
    and, for each column with missing numbers in that split, add an indicator column that is 1 where the number is
    missing and 0 elsewhere. ``error``: raise an error."""


class RegressionTask(Task[RegressionOptions]):
    """Regression on the columns of a table.

    Raw inputs: ``features``, float ``[N, F]``, NaN where a number is missing, and optionally ``categories``, object
    array of str or None ``[N, C]``; F may be 0 if there are categories. Targets: float ``[N, T]``.

    Features and targets are converted to float32, and each column is standardized to mean 0 and standard deviation 1 on
    the training split. A feature that is constant on the training split is 0 in every split. Categories are one-hot
    encoded with the categories of the training split; an unknown category is 0 in all columns. The prepared columns are
    the features, the indicators of missing numbers, and the categories, in this order.
    """

    name = "regression"
    kind = "table"
    produces = "features"
    objective = "regression"
    summary = "regression on tables"
    default_dataset = "diabetes"
    default_model = "linear"
    metric = "rmse"
    metrics = ("rmse", "mae", "r2")
    recipe = Recipe(
        epochs=40,
        batch_size=32,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        schedule="cosine",
        dropout=0.2,
    )
    Options = RegressionOptions

    def check_data(self, data: RawData, options: RegressionOptions) -> None:
        """Raise `harness.DataError` if an array has the wrong dtype or shape, or contains an invalid value."""
        gaps_allowed = options.missing == "impute"
        for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
            features = split.inputs["features"]
            if features.shape[1:] != (0,) or "categories" not in split.inputs:
                shape = data.train.inputs["features"].shape[1:]
                check_columns(f"{name} features", features, shape, gaps=gaps_allowed, columns=data.feature_names)

    def prepare(self, data: RawData, options: RegressionOptions) -> PreparedData:
        """Impute, standardize and encode using statistics from the training split.

        ``info.target_mean`` and ``info.target_scale`` can be used to undo the standardization of the targets.
        ``info.details`` contains the dataset's details, the number of ``constant_features`` and, if numbers are missing
        in the training split, their fraction ``missing_share``. Raises `harness.DataError` if an array has the wrong
        dtype or shape, or contains a value that is not finite.
        """
        import numpy as np

        self.check_data(data, options)
        gaps = np.isnan(data.train.inputs["features"])
        fillers = column_means(data.train.inputs["features"], data.feature_names)
        train_features = filled(data.train.inputs["features"], fillers)
        mean, scale = column_statistics(train_features)
        target_mean, target_scale = column_statistics(data.train.targets)
        constant = constant_columns(train_features) & ~gaps.any(axis=0)
        fitted: dict[str, Any] = {
            "fillers": fillers.tolist(),
            "mean": mean.tolist(),
            "scale": scale.tolist(),
            "constant": np.flatnonzero(constant).tolist(),
            "indicators": np.flatnonzero(gaps.any(axis=0)).tolist(),
            "categories": categories_of(data.train.inputs.get("categories")),
        }

        def prepared(split: Split) -> Split:
            return Split(
                inputs={"features": encoded(split.inputs, fitted)},
                targets=standardize(split.targets, target_mean, target_scale),
                groups=split.groups,
            )

        train = prepared(data.train)
        missing = {"missing_share": float(gaps.mean())} if gaps.any() else {}
        return PreparedData(
            train=train,
            validation=prepared(data.validation),
            test=prepared(data.test),
            info=DataInfo(
                kind=self.produces,
                inputs={"features": InputSpec(shape=train.inputs["features"].shape[1:], dtype="float32")},
                objective=self.objective,
                outputs=train.targets.shape[1],
                label_names=data.label_names,
                target_mean=tuple(target_mean.tolist()),
                target_scale=tuple(target_scale.tolist()),
                details={**data.details, "constant_features": int(constant.sum()), **missing},
            ),
            fitted=fitted,
        )

    def transform(
        self,
        inputs: Mapping[str, NDArray[Any]],
        details: Mapping[str, Any],
        fitted: Mapping[str, Any],
        info: DataInfo,
        options: RegressionOptions,
    ) -> dict[str, NDArray[Any]]:
        """Prepare new rows using the statistics of the training split.

        ``fitted`` contains, for each feature, the ``fillers`` of missing numbers, the ``mean`` and the ``scale``; the
        positions of the features that are ``constant`` and of those with ``indicators`` of missing numbers; and the
        ``categories`` of each categorical column, in the order of the prepared columns.
        """
        features = inputs["features"]
        if features.shape[1]:
            columns = (len(fitted["mean"]),)
            check_columns("new features", features, columns, gaps=options.missing == "impute")
        return {"features": encoded(inputs, fitted)}


def check_columns(
    name: str, values: NDArray[Any], shape: tuple[int, ...], *, gaps: bool = False, columns: Sequence[str] = ()
) -> None:
    """Raise `harness.DataError` unless `values` is a finite float array ``[N, *shape]`` with N at least 1.

    NaN is accepted if `gaps` is true. `columns` contains the column names, if known.
    """
    import numpy as np

    if values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise DataError(f"{name} are {values.dtype} of shape {values.shape}; expected float [N, columns], not empty")
    if values.shape[1:] != shape:
        raise DataError(f"{name} have {values.shape[1]} columns, but the training split has {shape[0]}")
    bad = np.isinf(values) if gaps else ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        raise DataError(
            f"{name}: {int(bad.sum()):,} missing or infinite numbers, the first in row {row} of the split, "
            f"{_column(column, columns)}; remove these rows or fill in the values"
        )


def column_means(values: NDArray[Any], columns: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return the mean of each column, ``[F]``, ignoring NaN.

    Raises `harness.DataError` if a column contains no numbers.
    """
    import numpy as np

    known = ~np.isnan(values)
    if values.shape[1] and not known.any(axis=0).all():
        column = int(np.flatnonzero(~known.any(axis=0))[0])
        raise DataError(f"training features have no number in {_column(column, columns)}; remove this column")
    means: NDArray[np.float64] = np.where(known, values, 0).sum(axis=0, dtype=np.float64) / known.sum(axis=0)
    return means


def _column(number: int, names: Sequence[str]) -> str:
    return f"column {names[number]!r}" if names else f"column {number} (counted from 0)"


def filled(columns: NDArray[Any], fillers: NDArray[np.float64]) -> NDArray[Any]:
    """Return `columns` with NaN replaced by `fillers` ``[F]``, or the array itself if it does not contain NaN."""
    import numpy as np

    gaps = np.isnan(columns)
    return np.where(gaps, fillers, columns) if gaps.any() else columns


def encoded(inputs: Mapping[str, NDArray[Any]], fitted: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the prepared columns ``[N, F]``: features, indicators of missing numbers, and one-hot categories."""
    import numpy as np

    raw = inputs["features"]
    fillers, mean, scale = (np.array(fitted[name], np.float64) for name in ("fillers", "mean", "scale"))
    constant, indicators = (np.array(fitted[name], np.int64) for name in ("constant", "indicators"))
    features = standardize(filled(raw, fillers), mean, scale)
    features[:, constant] = 0  # other splits may have other values, for which no weight can be learned
    columns = [features, np.isnan(raw[:, indicators]).astype(np.float32)]
    if fitted["categories"]:
        cells = named(inputs["categories"])
        columns += [one_hot(cells[:, column], names) for column, names in enumerate(fitted["categories"])]
    return np.concatenate(columns, axis=1)


def categories_of(categories: NDArray[Any] | None) -> list[list[str]]:
    """Return the sorted categories of each column of `categories` ``[N, C]``, or an empty list if there are none."""
    return [] if categories is None else [sorted(set(column)) for column in named(categories).T]


def one_hot(cells: NDArray[Any], names: Sequence[str]) -> NDArray[np.float32]:
    """Return a column for each of the categories `names`. A cell with any other value is 0 in all columns."""
    import numpy as np

    numbers = {name: number for number, name in enumerate(names)}
    found = np.array([numbers.get(cell, -1) for cell in cells], np.int64)
    columns = np.zeros((len(cells), len(names)), np.float32)
    (known,) = np.nonzero(found >= 0)
    columns[known, found[known]] = 1
    return columns


def named(categories: NDArray[Any]) -> NDArray[Any]:
    """Return `categories` with None replaced by an empty string, which counts as a category."""
    import numpy as np

    return np.where(np.equal(categories, np.array(None)), "", categories)


def constant_columns(columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a mask of the columns that contain a single distinct value, ``[F]``."""
    constant: NDArray[np.bool_] = columns.min(axis=0) == columns.max(axis=0)
    return constant


def column_statistics(columns: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and standard deviation of each column.

    The standard deviation of a constant column is set to 1.
    """
    import numpy as np

    mean = columns.mean(axis=0, dtype=np.float64)
    scale = columns.std(axis=0, dtype=np.float64)
    return mean, np.where(constant_columns(columns), 1.0, scale)


def standardize(columns: NDArray[Any], mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return ``(columns - mean) / scale`` in float32, computed in float64."""
    import numpy as np

    return ((columns - mean) / scale).astype(np.float32)
