"""Speech classification from the raw waveform."""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

from harness import DataError, DataInfo, InputSpec, PreparedData, RawData, Recipe, Split, Task


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seconds: float | None = None
    """Length of every prepared waveform; by default the length that 99% of the training examples fit in."""

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError("seconds must be positive")


class Speech(Task):
    """``input_values``: float32 ``[samples]``, cut to a fixed length, normalised, zero-padded at the end, no mask.

    Each clip is normalised to zero mean and unit variance before it is padded, as wav2vec 2.0's feature extractor
    does. `DataInfo.details` has ``sample_rate_hz`` and ``truncated_share``, the share of the training examples that
    were cut.
    """

    name = "speech"
    kind = "audio"
    produces = "waveform"
    objective = "classification"
    summary = "spoken-digit classification from the raw waveform"
    default_dataset = "espeak-digits"
    default_model = "wav2vec2-tiny"
    metric = "accuracy"
    metrics = ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro", "roc_auc")
    recipe = Recipe(
        epochs=10, batch_size=32, learning_rate=1e-3, weight_decay=0.01, schedule="linear", warmup_fraction=0.1
    )
    Options = Options

    def prepare(self, data: RawData, options: Any) -> PreparedData:
        """Raises `harness.DataError` where the dataset does not tell its sample rate."""
        import numpy as np

        from .waveforms import fixed_length

        rate_hz = data.details.get("sample_rate_hz")
        if not rate_hz:
            raise DataError("the dataset does not tell its sample rate: details need a 'sample_rate_hz'")
        lengths = np.array([len(waveform) for waveform in data.train.inputs["waveform"]])
        if options.seconds is None:
            samples = max(1, int(np.percentile(lengths, 99, method="higher")))
        else:
            samples = max(1, round(options.seconds * rate_hz))

        def prepared(split: Split) -> Split:
            values = fixed_length(list(split.inputs["waveform"]), samples)
            return Split(inputs={"input_values": values}, targets=split.targets, groups=split.groups)

        info = DataInfo(
            kind=self.produces,
            inputs={"input_values": InputSpec(shape=(samples,), dtype="float32")},
            objective=self.objective,
            outputs=len(data.label_names),
            label_names=data.label_names,
            details={"sample_rate_hz": rate_hz, "truncated_share": float(np.mean(lengths > samples))},
        )
        return PreparedData(
            train=prepared(data.train), validation=prepared(data.validation), test=prepared(data.test), info=info
        )
