"""The ``tabular`` task: classification of the rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness import (
    CLASSIFICATION_METRICS,
    DataInfo,
    InputSpec,
    PreparedData,
    RawData,
    Recipe,
    Split,
    TableEncoder,
    TableEncoderOptions,
    Task,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class TabularTask(Task[TableEncoderOptions]):
    """Classification of the rows of a table. `harness.TableEncoder` converts the columns to features.

    Targets: class indices, int64 ``[N]``.
    """

    name = "tabular"
    kind = "table"
    produces = "features"
    objective = "classification"
    summary = "classification of table rows"
    default_dataset = "breast-cancer"
    default_model = "mlp"
    min_steps = 1000
    metric = "accuracy"
    metrics = CLASSIFICATION_METRICS
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
        """Encode the columns using statistics from the training split.

        Raises `harness.DataError` if the data cannot be encoded.
        """
        encoder = TableEncoder.fit(data, options)

        def prepared(split: Split) -> Split:
            return Split(inputs=encoder.encode(split.inputs), targets=split.targets, groups=split.groups)

        train = prepared(data.train)
        return PreparedData(
            train=train,
            validation=prepared(data.validation),
            test=prepared(data.test),
            info=DataInfo(
                kind=self.produces,
                inputs={"features": InputSpec(shape=train.inputs["features"].shape[1:], dtype="float32")},
                objective=self.objective,
                outputs=len(data.label_names),
                label_names=data.label_names,
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
