"""Weights of the training examples."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.interfaces import PreparedData, RawData, Split


def weighted(data: PreparedData, raw: RawData) -> PreparedData:
    """Return the prepared data with the weights of the raw examples, divided by their mean over the training split.

    If the training examples have weights, ``info.details`` contains the effective number of examples; see
    `effective_number`.
    """
    import msgspec

    if raw.train.weights is None:
        return data
    mean = float(raw.train.weights.mean(dtype=np.float64))

    def with_weights(split: Split, source: Split) -> Split:
        weights = None if source.weights is None else (source.weights / mean).astype(np.float32)
        return dataclasses.replace(split, weights=weights)

    details = {**data.info.details, "effective_train_examples": round(effective_number(raw.train.weights), 1)}
    return dataclasses.replace(
        data,
        train=with_weights(data.train, raw.train),
        validation=with_weights(data.validation, raw.validation),
        test=with_weights(data.test, raw.test),
        info=msgspec.structs.replace(data.info, details=details),
    )


def effective_number(weights: NDArray[Any]) -> float:
    """Return the effective number of examples: the square of the sum of the weights, divided by the sum of their
    squares (Kish 1965, Survey Sampling)."""
    exact = weights.astype(np.float64) / weights.max()
    return float(exact.sum() ** 2 / (exact**2).sum())
