"""Tests of the results of each network's sessions, of XLA, and of running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from framework_cases import MODELS, check_running_statistics

import harness
from harness.testing import SessionCases, SessionSuite

pytestmark = pytest.mark.tensorflow

# TensorFlow sets the number of threads once per process.
CASES = SessionCases("tensorflow", MODELS, threads=2)


def positions(config: object, info: harness.DataInfo, dropout: float) -> harness.Network:
    import tensorflow as tf

    class Positions(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable(tf.zeros((4, 2)))
            self.bias = tf.Variable(tf.zeros(4))

        def __call__(self, inputs: dict[str, Any], training: bool) -> Any:
            return tf.einsum("blf,cf->blc", inputs["features"], self.weight) + self.bias

    module = Positions()
    bindings = {"weight": harness.Binding(module.weight), "bias": harness.Binding(module.bias)}
    return harness.Network(module=module, bindings=bindings)


class TestSessions(SessionSuite):
    cases = CASES
    positions = staticmethod(positions)


@pytest.mark.parametrize(
    "case",
    ["mlp", "bert"] + [pytest.param(case, marks=pytest.mark.slow) for case in ("lstm", "resnet", "wav2vec2")],
)
def test_xla_computes_the_same(case: str) -> None:
    results, batch = [], CASES.batch(case)
    for compiled in (False, True):
        session = CASES.open(case, compile=compiled)
        before = session.fetch(session.predict(batch.inputs))
        loss = session.fetch(session.train_step(batch, 0.01))
        results.append((before, loss, session.fetch(session.predict(batch.inputs))))
        assert session.notes()["xla"] == str(compiled).lower()
    for plain, compiled in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"optimizer": "rmsprop", "weight_decay": 0.1},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"optimizer": "adamw", "clip_norm": 0.5, "weight_decay": 0.1},
    ],
    ids=lambda changes: changes["optimizer"],
)
def test_xla_takes_the_same_steps(changes: dict[str, Any]) -> None:
    recipe = harness.Recipe(epsilon=1e-3, **changes)
    plain, compiled = (CASES.open("mlp", recipe=recipe, compile=compiled) for compiled in (False, True))
    for rate in (0.1, 0.05, 0.02):
        for session in (plain, compiled):
            session.train_step(CASES.batch("mlp"), rate)
    expected = plain.get_weights()
    for name, array in compiled.get_weights().items():
        np.testing.assert_allclose(array, expected[name], rtol=2e-4, atol=1e-5, err_msg=name)


def test_running_statistics_take_the_unbiased_variance() -> None:
    check_running_statistics(CASES)
