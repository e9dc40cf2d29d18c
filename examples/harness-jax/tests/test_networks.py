"""Each network: its weights, its gradients, its modes. Whether it computes what torch does is in ``test_parity.py``."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import BATCH, CASES, CLASSES, batch_of, example, kind_of, open_session, request, weights_for
from harness_jax import JaxBackend

import harness

SLOW_TO_COMPILE = ("lstm-two-layers", "resnet", "resnet-bottleneck", "wav2vec2", "wav2vec2-pre-norm")
CASES_BY_SPEED = [pytest.param(case, marks=pytest.mark.slow) if case in SLOW_TO_COMPILE else case for case in CASES]


def test_there_is_a_network_for_every_case_that_is_tested() -> None:
    from harness_jax import harness_networks

    assert {network.model for network in harness_networks()} == {family for family, _, _ in CASES.values()}


@pytest.mark.parametrize("case", CASES)
def test_weights_come_back_bit_by_bit(case: str) -> None:
    session = open_session(case)
    wanted = weights_for(request(case).parameters)
    found = session.get_weights()
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == np.float32
        assert found[name].flags.c_contiguous
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("case", CASES_BY_SPEED)
def test_gradients_are_the_slope_of_the_loss(case: str) -> None:
    """In float64, along a random direction, by central differences; then no part of a gradient can be wrong or lost."""
    session = open_session(case, precision="fp64")
    batch = batch_of(kind_of(case))
    weights = session.get_weights()
    loss, gradients = session.gradients(batch)
    assert np.isfinite(loss)
    assert gradients.keys() == {p.name for p in request(case).parameters if p.trainable}
    rng = np.random.default_rng(1)
    direction = {name: rng.standard_normal(array.shape) for name, array in gradients.items()}
    size = 1e-6 / np.sqrt(sum((array**2).sum() for array in direction.values()))

    def loss_at(distance: float) -> float:
        moved = {n: w + distance * direction[n] if n in direction else w for n, w in weights.items()}
        session.set_weights(moved)
        return float(session.gradients(batch)[0])

    slope = (loss_at(size) - loss_at(-size)) / (2 * size)
    assert slope == pytest.approx(sum((gradients[name] * direction[name]).sum() for name in direction), rel=1e-4)


@pytest.mark.parametrize("case", CASES_BY_SPEED)
def test_predictions_are_those_of_each_example_in_the_order_that_they_came(case: str) -> None:
    session = open_session(case)
    _, inputs = example(kind_of(case))
    outputs = session.fetch(session.predict(inputs))
    assert outputs.shape == (BATCH, CLASSES)
    assert outputs.dtype == np.float32
    assert np.ptp(outputs, axis=0).min() > 1e-3  # examples differ, so that their order shows
    order = np.random.default_rng(0).permutation(BATCH)
    others = session.fetch(session.predict({name: array[order].copy() for name, array in inputs.items()}))
    np.testing.assert_allclose(others, outputs[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if kind_of(case) == "tokens"])
def test_padding_changes_no_prediction(case: str) -> None:
    session = open_session(case)
    _, inputs = example("tokens")
    other = {**inputs, "input_ids": np.where(inputs["attention_mask"] == 1, inputs["input_ids"], 7).astype(np.int32)}
    assert not np.array_equal(other["input_ids"], inputs["input_ids"])
    one, another = (session.fetch(session.predict(each)) for each in (inputs, other))
    np.testing.assert_allclose(another, one, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "case", ["mlp", *(pytest.param(case, marks=pytest.mark.slow) for case in ("lstm-two-layers", "bert", "wav2vec2"))]
)
def test_dropout_acts_in_training_only(case: str) -> None:
    recipe = harness.Recipe(optimizer="sgd", dropout=0.5)
    session, without = open_session(case, recipe=recipe), open_session(case)
    batch = batch_of(kind_of(case))
    np.testing.assert_array_equal(
        session.fetch(session.predict(batch.inputs)), without.fetch(without.predict(batch.inputs))
    )
    losses = [float(session.fetch(session.train_step(batch, 0.0))) for _ in range(3)]
    assert len(set(losses)) == 3  # another mask at each step, at the same weights
    assert float(without.fetch(without.train_step(batch, 0.0))) not in losses


def test_running_statistics_move_in_training_and_only_there() -> None:
    session = open_session("resnet")
    batch = batch_of("image")
    start = session.get_weights()
    session.predict(batch.inputs)
    session.gradients(batch)
    session.train_step(batch, 0.0)
    trained = session.get_weights()
    session.predict(batch.inputs)
    for name, array in session.get_weights().items():
        np.testing.assert_array_equal(array, trained[name], err_msg=name)
        assert np.array_equal(array, start[name]) != ("running" in name), name


@pytest.mark.parametrize("case", CASES_BY_SPEED)
def test_bf16_is_near_fp32_and_not_the_same(case: str) -> None:
    _, inputs = example(kind_of(case))
    outputs = {}
    for precision in ("fp32", "bf16", "fp64"):
        session = open_session(case, precision=precision)
        outputs[precision] = session.fetch(session.predict(inputs)).astype(np.float64)
        session.close()
    size = np.linalg.norm(outputs["fp64"])
    assert 1e-9 < np.linalg.norm(outputs["fp32"] - outputs["fp64"]) / size < 1e-5
    assert 1e-4 < np.linalg.norm(outputs["bf16"] - outputs["fp64"]) / size < 5e-2


def test_a_network_that_does_not_fit_its_model_is_named() -> None:
    wanted = request("mlp")

    def without(name: str) -> Any:
        def build(config: Any, info: Any, dropout: float) -> harness.Network:
            network = wanted.build(config, info, dropout)
            bindings = {key: value for key, value in network.bindings.items() if key != name}
            return harness.Network(module=network.module, bindings=bindings)

        return build

    with pytest.raises(harness.PluginError, match=r"no binding for layers\.1\.bias"):
        JaxBackend().open(replace(wanted, build=without("layers.1.bias")))
    fewer = [parameter for parameter in wanted.parameters if parameter.name != "layers.0.weight"]
    with pytest.raises(harness.PluginError, match=r"layers\.0\.weight is bound but no parameter"):
        JaxBackend().open(replace(wanted, parameters=fewer))


def test_weights_that_do_not_fit_are_named() -> None:
    session = open_session("mlp")
    weights = session.get_weights()
    with pytest.raises(harness.PluginError, match=r"missing layers\.0\.bias.*unexpected extra"):
        session.set_weights({n: w for n, w in weights.items() if n != "layers.0.bias"} | {"extra": np.zeros(1)})
    with pytest.raises(harness.PluginError, match=r"layers\.0\.bias has shape"):
        session.set_weights(weights | {"layers.0.bias": np.zeros(1, np.float32)})


def test_the_plugin_imports_without_jax() -> None:
    code = "import sys, harness_jax; assert not {'jax', 'optax', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
