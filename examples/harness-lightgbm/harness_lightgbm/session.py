"""The session of the ``lightgbm`` backend: each call to `train_step` fits new trees to the whole training split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

import harness
from harness import Batch, SessionRequest, UnsupportedError

Array = NDArray[Any]


class LightgbmSession(harness.Session):
    """Session for one model. A classifier uses one LightGBM booster; a regressor uses one booster per target.

    The session has no canonical weights: `set_weights` discards the boosters, and `get_weights` returns an empty dict.
    """

    def __init__(self, request: SessionRequest) -> None:
        if (request.device, request.precision, request.compile) != ("cpu", "fp32", False):
            raise UnsupportedError(
                "the lightgbm backend supports only device cpu with precision fp32 and without --compile, not "
                f"{request.device} with {request.precision}{' and --compile' if request.compile else ''}"
            )
        self._info = request.info
        self._config = request.build(request.config, request.info, 0.0).module
        # With these settings, the same seed produces the same trees for any number of threads.
        self._fixed = {"deterministic": True, "force_row_wise": True}
        self._settings = {"num_threads": request.threads, "seed": request.seed, "verbosity": -1, **self._fixed}
        self._boosters: list[lightgbm.Booster] = []

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        self._boosters = []

    def get_weights(self) -> dict[str, Array]:
        return {}

    def train_step(self, batch: Batch, learning_rate: float) -> Callable[[], Array]:
        """Fit new boosters to `batch`. The loss is computed when the handle is fetched, outside the timed section."""
        features = flat(batch.inputs)
        targets = _columns(batch.targets)
        validation = None if batch.validation is None else flat(batch.validation.inputs)
        checks = targets if batch.validation is None else _columns(batch.validation.targets)
        self._boosters = [
            self._fit(
                lightgbm.Dataset(features, column, weight=batch.example_weights),
                None if validation is None else (validation, check),
            )
            for column, check in zip(targets, checks, strict=True)
        ]
        boosters = self._boosters
        return lambda: self._loss(self._outputs(boosters, features), batch)

    def _fit(self, train: lightgbm.Dataset, validation: tuple[Array, Array] | None) -> lightgbm.Booster:
        """Fit one booster, with early stopping on the validation inputs and targets if they are given."""
        config = self._config
        parameters = {
            **self._settings,
            **self._objective(),
            "learning_rate": config.learning_rate,
            "num_leaves": config.num_leaves,
            "min_data_in_leaf": config.min_data_in_leaf,
            "feature_fraction": config.feature_fraction,
        }
        if validation is None or not config.early_stopping_round:
            return lightgbm.train(parameters, train, config.num_iterations)
        stopping = lightgbm.early_stopping(config.early_stopping_round, verbose=False)
        held_out = lightgbm.Dataset(validation[0], validation[1], reference=train)
        return lightgbm.train(
            parameters, train, config.num_iterations, valid_sets=[held_out], callbacks=[stopping]
        )  # the booster predicts with its best iteration

    def _objective(self) -> dict[str, Any]:
        if self._info.objective == "regression":
            return {"objective": "regression"}
        if self._info.outputs == 2:
            return {"objective": "binary"}
        return {"objective": "multiclass", "num_class": self._info.outputs}

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        raise UnsupportedError(
            "the lightgbm backend has no gradients to compare, because decision trees have no weights"
        )

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        if not self._boosters:
            raise UnsupportedError("this model has not been fitted; train it before predicting")
        return self._outputs(self._boosters, flat(inputs))

    def _outputs(self, boosters: list[lightgbm.Booster], features: Array) -> Array:
        """Return logits or standardized targets, float32 ``[N, outputs]``."""
        threads = self._settings["num_threads"]
        scores = [booster.predict(features, raw_score=True, num_threads=threads) for booster in boosters]
        if self._info.objective == "classification" and self._info.outputs == 2:
            scores = [np.zeros_like(scores[0]), scores[0]]  # the only score is the log-odds of the second class
        return np.column_stack(scores).astype(np.float32)

    def _loss(self, outputs: Array, batch: Batch) -> Array:
        """Return the mean loss over the batch, weighted if the examples have weights."""
        if self._info.objective == "regression":
            losses = ((outputs - batch.targets) ** 2).mean(axis=1)
        else:
            losses = -np.take_along_axis(log_softmax(outputs, axis=1), batch.targets[:, None], axis=1)[:, 0]
        return np.asarray(np.average(losses, weights=batch.example_weights), np.float32)

    def fetch(self, handle: Any) -> Array:
        return np.asarray(handle() if callable(handle) else handle)

    def synchronize(self) -> None:
        """Do nothing, because LightGBM computes synchronously."""

    def notes(self) -> dict[str, str]:
        return {
            "training": "fitted in one call; the recipe's optimizer and learning rate are unused",
            **{name: str(value).lower() for name, value in self._fixed.items()},
        }


def flat(inputs: Mapping[str, Array]) -> Array:
    """Return the prepared inputs ``[N, ...]`` as one matrix ``[N, F]``."""
    return np.concatenate([array.reshape(len(array), -1) for array in inputs.values()], axis=1)


def _columns(targets: Array) -> list[Array]:
    """Return the targets of each booster ``[N]``: one array for classification, one per target for regression."""
    return [targets] if targets.ndim == 1 else list(targets.T)
