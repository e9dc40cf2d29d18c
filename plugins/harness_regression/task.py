"""The task `regression`: numbers from the columns of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from harness import DataError, DataInfo, InputSpec, PreparedData, RawData, Recipe, Split, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RegressionOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    missing: Literal["impute", "error"] = "impute"
    """``impute``: a missing number becomes the mean of its column in the training split, and each column that has gaps
    there gets a companion that is 1 where the number is missing and 0 elsewhere. ``error``: refuse the data."""


class RegressionTask(Task[RegressionOptions]):
    """Regression on the columns of a table.

    Takes ``features`` float ``[N, F]``, NaN where a number is missing, and targets float ``[N, T]``; gives both in
    float32, each column shifted and scaled to mean 0 and std 1 on the training split. A feature that is constant there
    is 0 in every split. ``categories``, an object array of str or None ``[N, C]``, may come with the features or in
    their place: a column of 0 and 1 for each category of the training split; one that is not there has 0 in all of
    them. The prepared columns are the features, then the companions of those with gaps, then the categories.
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

    def prepare(self, data: RawData, options: RegressionOptions) -> PreparedData:
        """Fill in, standardize and encode by the training split.

        ``info.target_mean`` and ``info.target_scale`` undo it for the targets; ``info.details`` holds the dataset's
        own, ``constant_features``, the number of columns that carry nothing, and, where numbers are missing in the
        training split, ``missing_share``. Raises `harness.DataError` for arrays of another form and for values that are
        not finite.
        """
        import numpy as np

        gaps_allowed = options.missing == "impute"
        for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
            features = split.inputs["features"]
            if features.shape[1:] != (0,) or "categories" not in split.inputs:
                check_columns(f"{name} features", features, data.train.inputs["features"].shape[1:], gaps=gaps_allowed)
        gaps = np.isnan(data.train.inputs["features"])
        fillers = column_means(data.train.inputs["features"])
        train_features = filled(data.train.inputs["features"], fillers)
        mean, scale = column_statistics(train_features)
        target_mean, target_scale = column_statistics(data.train.targets)
        constant = constant_columns(train_features) & ~gaps.any(axis=0)
        encoder = category_encoder(data.train.inputs.get("categories"))

        def prepared(split: Split) -> Split:
            raw = split.inputs["features"]
            features = standardize(filled(raw, fillers), mean, scale)
            features[:, constant] = 0  # no weight was learned for a value that differs outside the training split
            columns = [features, np.isnan(raw[:, gaps.any(axis=0)]).astype(np.float32)]
            if encoder is not None:
                columns.append(encoder.transform(named(split.inputs["categories"])))
            return Split(
                inputs={"features": np.concatenate(columns, axis=1)},
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
        )


def check_columns(name: str, columns: NDArray[Any], shape: tuple[int, ...], *, gaps: bool = False) -> None:
    """Raise `harness.DataError` unless `columns` is a finite float array ``[N, *shape]`` with N at least 1; NaN is let
    through where `gaps` are allowed."""
    import numpy as np

    if columns.ndim != 2 or columns.dtype.kind != "f" or not columns.size:
        raise DataError(f"{name} are {columns.dtype} of shape {columns.shape}; needed: float [N, columns], not empty")
    if columns.shape[1:] != shape:
        raise DataError(f"{name} have {columns.shape[1]} columns, those of the training split {shape[0]}")
    bad = np.isinf(columns) if gaps else ~np.isfinite(columns)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        raise DataError(
            f"{name} have {int(bad.sum())} values that are not finite, the first in row {row}, column {column} "
            "(counted from 0); remove those rows or fill the values in"
        )


def column_means(columns: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of each column's numbers ``[F]``; raises `harness.DataError` for a column without any."""
    import numpy as np

    known = ~np.isnan(columns)
    if columns.shape[1] and not known.any(axis=0).all():
        column = int(np.flatnonzero(~known.any(axis=0))[0])
        raise DataError(f"training features have no number in column {column} (counted from 0); leave that column out")
    means: NDArray[np.float64] = np.where(known, columns, 0).sum(axis=0, dtype=np.float64) / known.sum(axis=0)
    return means


def filled(columns: NDArray[Any], fillers: NDArray[np.float64]) -> NDArray[Any]:
    """`columns` with `fillers` ``[F]`` in place of NaN; the array itself where it has none."""
    import numpy as np

    gaps = np.isnan(columns)
    return np.where(gaps, fillers, columns) if gaps.any() else columns


def category_encoder(categories: NDArray[Any] | None) -> Any:
    """scikit-learn's one-hot encoder of ``[N, C]``, fitted; None where there are no categories."""
    if categories is None:
        return None
    import numpy as np
    from sklearn.preprocessing import OneHotEncoder

    return OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32).fit(named(categories))


def named(categories: NDArray[Any]) -> NDArray[Any]:
    """`categories` with an empty text, a category of its own, in place of None."""
    import numpy as np

    return np.where(np.equal(categories, np.array(None)), "", categories)


def constant_columns(columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Which columns hold one value only."""
    constant: NDArray[np.bool_] = columns.min(axis=0) == columns.max(axis=0)
    return constant


def column_statistics(columns: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column; the scale of a constant column is 1."""
    import numpy as np

    mean = columns.mean(axis=0, dtype=np.float64)
    scale = columns.std(axis=0, dtype=np.float64)
    return mean, np.where(constant_columns(columns), 1.0, scale)


def standardize(columns: NDArray[Any], mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """(value - mean) / scale by column, computed in float64."""
    import numpy as np

    return ((columns - mean) / scale).astype(np.float32)
