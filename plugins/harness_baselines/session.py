"""The session for the ``baseline`` backend: each training step fits a new scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

import harness
from harness import Batch, SessionRequest, UnsupportedError
from harness_baselines.fitted import arrays_of, restored

Array = NDArray[Any]

MIN_PROBABILITY = 1e-7
"""Lower bound applied to probabilities to keep their logarithms finite."""


class BaselineSession(harness.Session):
    """Session for one estimator.

    Baselines have no canonical weights. `get_weights` returns the arrays of the fitted estimator, or an empty
    dictionary if the estimator is not fitted or cannot be stored as arrays; see `harness_baselines.fitted`.
    `set_weights` restores an estimator from these arrays, or discards the fitted estimator if the dictionary is empty.
    """

    def __init__(self, request: SessionRequest) -> None:
        if request.device != "cpu" or request.precision != "fp32":
            raise UnsupportedError(
                f"the baseline backend supports only device cpu with precision fp32, not {request.device} with "
                f"{request.precision}"
            )
        if request.compile:
            raise UnsupportedError("the baseline backend cannot compile models; run without --compile")
        self._info = request.info
        baseline = request.build(request.config, request.info, request.recipe.dropout).module
        self._features, self._new = baseline.features, baseline.estimator
        seeded = {name: request.seed for name in self._new.get_params() if name.endswith("random_state")}
        self._new.set_params(**seeded)
        self._fitted: Any = None

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        self._fitted = restored(self._new, weights) if weights else None

    def get_weights(self) -> dict[str, Array]:
        return {} if self._fitted is None else arrays_of(self._fitted)

    def train_step(self, batch: Batch, learning_rate: float) -> Callable[[], Array]:
        """Fit a new estimator on `batch`. The loss is computed when the handle is fetched, outside the timed
        section."""
        features = self._features(batch.inputs)
        weights = batch.example_weights
        options = {} if weights is None else {self._weights_option(): weights}
        fitted = self._fitted = clone(self._new).fit(features, batch.targets, **options)
        return lambda: self._loss(self._outputs(fitted, features), batch.targets, weights)

    def _weights_option(self) -> str:
        """Return the name of the argument of ``fit`` that takes the weights of the examples. In a pipeline, the
        argument belongs to the last step."""
        name, last = self._new.steps[-1] if isinstance(self._new, Pipeline) else ("", self._new)
        if not has_fit_parameter(last, "sample_weight"):
            raise UnsupportedError(
                f"{type(last).__name__} does not support example weights; remove the weights, or use another model"
            )
        return f"{name}__sample_weight" if name else "sample_weight"

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        raise UnsupportedError(
            "the baseline backend has no gradients to compare, because its models are fitted by scikit-learn"
        )

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        if self._fitted is None:
            raise UnsupportedError("this baseline is not fitted, so it cannot predict; train it first")
        return self._outputs(self._fitted, self._features(inputs))

    def _outputs(self, fitted: Any, features: Any) -> Array:
        """Return the outputs, float32 ``[B, outputs]``.

        For classification, the outputs are log-probabilities, or decision values if the estimator does not compute
        probabilities. For regression, the outputs are standardized targets.
        """
        if self._info.objective == "regression":
            return np.asarray(fitted.predict(features), np.float32).reshape(-1, self._info.outputs)
        if hasattr(fitted, "predict_proba"):
            scores = np.log(np.maximum(fitted.predict_proba(features), MIN_PROBABILITY))
        else:
            scores = fitted.decision_function(features)
            if scores.ndim == 1:  # for two classes, there is one score, which is positive for the second class
                scores = np.stack([-scores, scores], axis=1) / 2
        # A class that is missing from the training split is assigned a score that never exceeds those of other classes.
        outputs = np.full((len(scores), self._info.outputs), min(np.log(MIN_PROBABILITY), scores.min()), np.float32)
        outputs[:, fitted.classes_] = scores
        return outputs

    def _loss(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        """Return the mean loss over the examples to which the estimator was fitted. If the examples have weights, the
        mean is weighted."""
        if self._info.objective == "regression":
            return np.asarray(np.average(((outputs - targets) ** 2).mean(axis=1), weights=weights), np.float32)
        loss = log_loss(targets, softmax(outputs, axis=1), labels=np.arange(outputs.shape[1]), sample_weight=weights)
        return np.asarray(loss, np.float32)

    def fetch(self, handle: Any) -> Array:
        return np.asarray(handle() if callable(handle) else handle)

    def synchronize(self) -> None:
        """Do nothing, because scikit-learn computes synchronously."""

    def notes(self) -> dict[str, str]:
        return {
            "training": "fitted in one step on the training split; the recipe's optimizer and learning rate are unused"
        }
