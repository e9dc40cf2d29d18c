"""A scikit-learn estimator as a session: a step fits it anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import clone
from sklearn.metrics import log_loss

import harness
from harness import Batch, SessionRequest, UnsupportedError

Array = NDArray[Any]

LEAST = 1e-7
"""Probabilities below it count as it, so that their logarithm is finite."""


class BaselineSession(harness.Session):
    """One estimator. It has no canonical weights: `set_weights` makes it as new, `get_weights` gives nothing."""

    def __init__(self, request: SessionRequest) -> None:
        if request.device != "cpu" or request.precision != "fp32":
            raise UnsupportedError(f"baseline computes on cpu in fp32, not on {request.device} in {request.precision}")
        if request.compile:
            raise UnsupportedError("baseline has no compiler; leave --compile out")
        self._info = request.info
        baseline = request.build(request.config, request.info, request.recipe.dropout).module
        self._features, self._new = baseline.features, baseline.estimator
        seeded = {name: request.seed for name in self._new.get_params() if name.endswith("random_state")}
        self._new.set_params(**seeded)
        self._fitted: Any = None

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        self._fitted = None

    def get_weights(self) -> dict[str, Array]:
        return {}

    def train_step(self, batch: Batch, learning_rate: float) -> Callable[[], Array]:
        """Fit on the batch alone. The handle's loss is computed when it is fetched, outside of what is timed."""
        features = self._features(batch.inputs)
        fitted = self._fitted = clone(self._new).fit(features, batch.targets)
        return lambda: self._loss(self._outputs(fitted, features), batch.targets)

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        raise UnsupportedError("baseline fits by scikit-learn: it has no gradients to compare")

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        if self._fitted is None:
            raise UnsupportedError("this baseline has seen no training split: it starts from no weights")
        return self._outputs(self._fitted, self._features(inputs))

    def _outputs(self, fitted: Any, features: Any) -> Array:
        """float32 ``[B, outputs]``: log-probabilities, or the decision values of what has none, or standardized
        targets."""
        if self._info.objective == "regression":
            return np.asarray(fitted.predict(features), np.float32).reshape(-1, self._info.outputs)
        if hasattr(fitted, "predict_proba"):
            scores = np.log(np.maximum(fitted.predict_proba(features), LEAST))
        else:
            scores = fitted.decision_function(features)
            if scores.ndim == 1:  # of two classes: in favor of the second
                scores = np.stack([-scores, scores], axis=1) / 2
        outputs = np.full((len(scores), self._info.outputs), min(np.log(LEAST), scores.min()), np.float32)
        outputs[:, fitted.classes_] = scores  # a class that the training split lacks is never predicted
        return outputs

    def _loss(self, outputs: Array, targets: Array) -> Array:
        """The mean over the examples that it was fitted on."""
        if self._info.objective == "regression":
            return np.asarray(np.mean((outputs - targets) ** 2, dtype=np.float32))
        loss = log_loss(targets, softmax(outputs, axis=1), labels=np.arange(outputs.shape[1]))
        return np.asarray(loss, np.float32)

    def fetch(self, handle: Any) -> Array:
        return np.asarray(handle() if callable(handle) else handle)

    def synchronize(self) -> None:
        """scikit-learn returns when it has finished."""

    def notes(self) -> dict[str, str]:
        return {"training": "fitted at once on the training split; the recipe's optimizer and rate have no part in it"}
