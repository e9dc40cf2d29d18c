"""Each network: what its sessions compute, and its gradients. Whether it computes what torch does is in
``test_parity.py``."""

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


def test_there_is_a_network_for_every_case_that_is_tested() -> None:
    from harness_jax import harness_networks

    assert {network.model for network in harness_networks()} == {CASES.model(case)[0].name for case in MODELS}


@pytest.mark.parametrize("case", CASES_BY_SPEED)
def test_gradients_are_the_slope_of_the_loss(case: str) -> None:
    """In float64, along a random direction, by central differences; then no part of a gradient can be wrong or lost."""
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


def test_weights_that_do_not_fit_are_named() -> None:
    session = CASES.open("mlp")
    weights = session.get_weights()
    with pytest.raises(harness.PluginError, match=r"missing layers\.0\.bias.*unexpected extra"):
        session.set_weights({n: w for n, w in weights.items() if n != "layers.0.bias"} | {"extra": np.zeros(1)})
    with pytest.raises(harness.PluginError, match=r"layers\.0\.bias has shape"):
        session.set_weights(weights | {"layers.0.bias": np.zeros(1, np.float32)})
