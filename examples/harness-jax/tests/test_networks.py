"""Tests of the sessions and gradients of each network. ``test_parity.py`` compares the networks with torch."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CASES, MODELS

import harness
from harness.testing import SessionSuite

SLOW_TO_COMPILE = ("lstm-two-layers", "resnet", "resnet-bottleneck", "wav2vec2", "wav2vec2-pre-norm")
CASES_BY_SPEED = [pytest.param(case, marks=pytest.mark.slow) if case in SLOW_TO_COMPILE else case for case in MODELS]


class TestSessions(SessionSuite):
    cases = CASES
    slow = (*SLOW_TO_COMPILE, "bert", "lstm-max-mean")


def test_the_cases_cover_every_network() -> None:
    from harness_jax import harness_networks

    assert {network.model for network in harness_networks()} == {CASES.model(case)[0].name for case in MODELS}


@pytest.mark.parametrize("case", CASES_BY_SPEED)
def test_gradients_equal_central_differences(case: str) -> None:
    """Compare derivatives along a random direction in float64. These derivatives depend on every element of the
    gradients."""
    session = CASES.open(case, precision="fp64")
    batch = CASES.batch(case)
    weights = session.get_weights()
    loss, gradients = session.gradients(batch)
    assert np.isfinite(loss)
    assert gradients.keys() == {p.name for p in CASES.request(case).parameters if p.trainable}
    rng = np.random.default_rng(1)
    direction = {name: rng.standard_normal(array.shape) for name, array in gradients.items()}
    size = 1e-6 / np.sqrt(sum((array**2).sum() for array in direction.values()))

    def loss_at(distance: float) -> float:
        moved = {n: w + distance * direction[n] if n in direction else w for n, w in weights.items()}
        session.set_weights(moved)
        return float(session.gradients(batch)[0])

    slope = (loss_at(size) - loss_at(-size)) / (2 * size)
    assert slope == pytest.approx(sum((gradients[name] * direction[name]).sum() for name in direction), rel=1e-4)


def test_weights_with_wrong_names_or_shapes_raise() -> None:
    session = CASES.open("mlp")
    weights = session.get_weights()
    with pytest.raises(harness.PluginError, match=r"missing layers\.0\.bias.*unexpected extra"):
        session.set_weights({n: w for n, w in weights.items() if n != "layers.0.bias"} | {"extra": np.zeros(1)})
    with pytest.raises(harness.PluginError, match=r"layers\.0\.bias has shape"):
        session.set_weights(weights | {"layers.0.bias": np.zeros(1, np.float32)})
