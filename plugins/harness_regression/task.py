"""The ``regression`` task: regression on the columns of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness import (
    DataInfo,
    InputSpec,
    PreparedData,
    RawData,
    Recipe,
    Split,
    TableEncoder,
    TableEncoderOptions,
    Task,
    column_statistics,
    standardize,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class RegressionTask(Task[TableEncoderOptions]):
    """Regression on the columns of a table. `harness.TableEncoder` converts the columns to features.

    Targets: float ``[N, T]``, converted to float32 and standardized to mean 0 and standard deviation 1 on the training
    split.
    """

    name = "regression"
    kind = "table"
    produces = "features"
    objective = "regression"
    summary = "regression on tables"
    default_dataset = "diabetes"
    default_model = "linear"
    models_by_size = {0: "mlp"}  # see docs/explanation/defaults.md
    min_steps = 1000
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
    Options = TableEncoderOptions

    def check_data(self, data: RawData, options: TableEncoderOptions) -> None:
        TableEncoder.check(data, options)

    def prepare(self, data: RawData, options: TableEncoderOptions) -> PreparedData:
        """Encode the columns and standardize the targets using statistics from the training split.

        ``info.target_mean`` and ``info.target_scale`` can be used to undo the standardization of the targets. Raises
        `harness.DataError` if the data cannot be encoded.
        """
        encoder = TableEncoder.fit(data, options)
        target_mean, target_scale = column_statistics(data.train.targets)

        def prepared(split: Split) -> Split:
            return Split(
                inputs=encoder.encode(split.inputs),
                targets=standardize(split.targets, target_mean, target_scale),
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
                details={**data.details, **encoder.details(data.train.inputs)},
                columns=encoder.columns,
            ),
            fitted=encoder.to_json(),
        )

    def transform(
        self,
        inputs: Mapping[str, NDArray[Any]],
        details: Mapping[str, Any],
        fitted: Mapping[str, Any],
        info: DataInfo,
        options: TableEncoderOptions,
    ) -> dict[str, NDArray[Any]]:
        """Encode new rows using the statistics of the training split, which are stored in ``fitted``."""
        return TableEncoder.from_json(fitted).encode(inputs, options)
