"""Tests of the session: early stopping, losses, example weights, several targets, and settings that are rejected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness_lightgbm import Boosting, BoostingConfig, LightgbmBackend, build
from harness_lightgbm.session import LightgbmSession

from harness import Batch, DataInfo, InputSpec, Recipe, SessionRequest, Split, UnsupportedError

ROWS, FEATURES = 300, 4


def request(objective: str = "classification", outputs: int = 3, device: str = "cpu", **config: Any) -> SessionRequest:
    return SessionRequest(
        build=build,
        config=BoostingConfig(**config),
        info=DataInfo(
            kind="features",
            inputs={"features": InputSpec(shape=(FEATURES,), dtype="float32")},
            objective=objective,
            outputs=outputs,
        ),
        parameters=Boosting().parameters(BoostingConfig(), None),  # type: ignore[arg-type]
        recipe=Recipe(),
        device=device,
        precision="fp32",
        compile=False,
        seed=0,
        threads=1,
    )


def session(objective: str = "classification", outputs: int = 3, **config: Any) -> LightgbmSession:
    opened = LightgbmBackend().open(request(objective, outputs, **config))
    assert isinstance(opened, LightgbmSession)
    return opened


def features(seed: int = 0) -> dict[str, Any]:
    return {"features": np.random.default_rng(seed).normal(size=(ROWS, FEATURES)).astype(np.float32)}


def noise(classes: int, seed: int) -> Any:
    """Return classes that do not depend on the features."""
    return np.random.default_rng(seed).integers(0, classes, ROWS)


def loss(session: LightgbmSession, batch: Batch) -> float:
    return float(session.fetch(session.train_step(batch, 0.0)))


def test_training_stops_when_the_validation_loss_no_longer_improves() -> None:
    """The targets are noise, so every tree after the first few increases the validation loss."""
    batch = Batch(features(), noise(3, 1), validation=Split(inputs=features(2), targets=noise(3, 3)))
    limits = {"num_iterations": 50, "early_stopping_round": 5}
    stopped, continued, without = session(**limits), session(**limits), session(**limits | {"early_stopping_round": 0})
    with_validation = loss(stopped, batch)
    assert with_validation > loss(continued, batch._replace(validation=None))
    assert loss(without, batch) == loss(continued, batch._replace(validation=None))


@pytest.mark.parametrize("classes", [2, 3])
def test_loss_is_the_cross_entropy_of_the_outputs(classes: int) -> None:
    one = session(outputs=classes, num_iterations=5)
    targets = (features()["features"][:, 0] > 0).astype(np.int64)
    value = loss(one, Batch(features(), targets))
    outputs = one.fetch(one.predict(features()))
    assert (outputs.shape, outputs.dtype) == ((ROWS, classes), np.float32)
    probabilities = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert value == pytest.approx(-np.log(probabilities[np.arange(ROWS), targets]).mean(), rel=1e-5)
    assert (outputs.argmax(axis=1) == targets).mean() > 0.95


def test_regression_fits_each_target() -> None:
    one = session("regression", outputs=2, num_iterations=50)
    inputs = features()
    targets = np.stack([inputs["features"][:, 0], -inputs["features"][:, 1]], axis=1)
    value = loss(one, Batch(inputs, targets))
    outputs = one.fetch(one.predict(inputs))
    assert outputs.shape == (ROWS, 2)
    assert value == pytest.approx(((outputs - targets) ** 2).mean(), rel=1e-5)
    assert value < 0.1


def test_examples_with_weight_zero_are_ignored() -> None:
    inputs, targets = features(), noise(2, 1)
    weights = (np.arange(ROWS) < ROWS // 2).astype(np.float32)
    changed = np.where(weights > 0, targets, 1 - targets)
    outputs = []
    for each in (targets, changed):
        one = session(outputs=2, num_iterations=5)
        loss(one, Batch(inputs, each, example_weights=weights))
        outputs.append(one.fetch(one.predict(inputs)))
    assert np.array_equal(*outputs)


def test_set_weights_discards_the_fitted_model() -> None:
    one = session(outputs=2, num_iterations=2)
    loss(one, Batch(features(), noise(2, 1)))
    one.set_weights({})
    with pytest.raises(UnsupportedError, match="has not been fitted"):
        one.predict(features())


def test_other_devices_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="not cuda:0 with fp32"):
        LightgbmBackend().open(request(device="cuda:0"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_iterations", 0), ("num_leaves", 1), ("early_stopping_round", -1), ("feature_fraction", 1.5)],
)
def test_config_that_lightgbm_would_refuse_raises(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        BoostingConfig(**{field: value})
