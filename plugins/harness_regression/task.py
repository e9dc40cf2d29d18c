"""The task `regression`: numbers from the columns of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness import DataError, DataInfo, InputSpec, PreparedData, RawData, Recipe, Split, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RegressionTask(Task):
    """Regression on numeric columns.

    Takes ``features`` float ``[N, F]`` and targets float ``[N, T]``; gives both in float32, each column shifted and
    scaled to mean 0 and std 1 on the training split. A feature that is constant there is 0 in every split.
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

    def prepare(self, data: RawData, options: Any) -> PreparedData:
        """Standardise features and targets by the training split.

        ``info.target_mean`` and ``info.target_scale`` undo it for the targets; ``info.details`` holds the dataset's own
        and ``constant_features``, the number of columns that carry nothing. Raises `harness.DataError` for arrays of
        another form and for values that are not finite.
        """
        for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
            check_columns(f"{name} features", split.inputs["features"], data.train.inputs["features"].shape[1:])
            check_columns(f"{name} targets", split.targets, data.train.targets.shape[1:])
        mean, scale = column_statistics(data.train.inputs["features"])
        target_mean, target_scale = column_statistics(data.train.targets)
        constant = constant_columns(data.train.inputs["features"])

        def prepared(split: Split) -> Split:
            features = standardise(split.inputs["features"], mean, scale)
            features[:, constant] = 0  # no weight was learned for a value that differs outside the training split
            return Split(
                inputs={"features": features},
                targets=standardise(split.targets, target_mean, target_scale),
                groups=split.groups,
            )

        train = prepared(data.train)
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
                details={**data.details, "constant_features": int(constant.sum())},
            ),
        )


def check_columns(name: str, columns: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Raise `harness.DataError` unless `columns` is a finite float array ``[N, *shape]`` with N at least 1."""
    import numpy as np

    if columns.ndim != 2 or columns.dtype.kind != "f" or not columns.size:
        raise DataError(f"{name} are {columns.dtype} of shape {columns.shape}; needed: float [N, columns], not empty")
    if columns.shape[1:] != shape:
        raise DataError(f"{name} have {columns.shape[1]} columns, those of the training split {shape[0]}")
    bad = ~np.isfinite(columns)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        raise DataError(
            f"{name} have {int(bad.sum())} values that are not finite, the first in row {row}, column {column} "
            "(counted from 0); remove those rows or fill the values in"
        )


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


def standardise(columns: NDArray[Any], mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """(value - mean) / scale by column, computed in float64."""
    import numpy as np

    return ((columns - mean) / scale).astype(np.float32)
