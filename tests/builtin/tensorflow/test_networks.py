"""Tests of the TensorFlow networks: bindings, shapes, dropout and running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from framework_cases import BATCH, CASES, CLASSES, config_of, example, models, request, trainable_start

import harness
from harness.records.arrays import digest

pytestmark = pytest.mark.tensorflow

SMALL = [case for case in CASES if case not in ("resnet-18", "wav2vec2-base-layer")]
WITH_DROPOUT = ["mlp", "lstm-two-layers", "bert-tiny", "wav2vec2-tiny"]


def open_case(case: str, recipe: harness.Recipe | None = None, **changes: Any) -> tuple[Any, dict[str, Any], Any]:
    """Return a session with initial weights, its inputs, and these weights."""
    from harness_tensorflow import TensorFlowBackend

    family, variant, sizes = CASES[case]
    model = models()[family]
    info, inputs = example(model.accepts[0])
    config = config_of(model, variant, sizes)
    session = TensorFlowBackend().open(
        request("tensorflow", model, config, info, recipe or harness.Recipe(), **changes)
    )
    start = trainable_start(model, config, info)
    session.set_weights(start)
    return session, inputs, start


@pytest.mark.parametrize("case", SMALL)
def test_weights_set_are_the_weights_read_back(case: str) -> None:
    session, _, start = open_case(case)
    found = session.get_weights()
    assert digest(found) == digest(start)
    assert list(found) == list(start)


@pytest.mark.parametrize("case", SMALL)
def test_one_step_on_a_batch_lowers_its_loss(case: str) -> None:
    session, inputs, _ = open_case(case, harness.Recipe(optimizer="sgd"))
    batch = harness.Batch(inputs, np.arange(BATCH) % CLASSES)
    losses = [float(session.fetch(session.train_step(batch, 1e-3))) for _ in range(2)]
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]
    outputs = session.fetch(session.predict(inputs))
    assert outputs.shape == (BATCH, CLASSES)
    assert outputs.dtype == np.float32
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize(
    "case",
    ["mlp", "bert-tiny"]
    + [pytest.param(case, marks=pytest.mark.slow) for case in ("lstm", "resnet-20", "wav2vec2-tiny")],
)
def test_xla_computes_the_same(case: str) -> None:
    recipe = harness.Recipe(optimizer="sgd")
    results = []
    for compiled in (False, True):
        session, inputs, _ = open_case(case, recipe, compile=compiled)
        batch = harness.Batch(inputs, np.arange(BATCH) % CLASSES)
        before = session.fetch(session.predict(inputs))
        loss = session.fetch(session.train_step(batch, 0.01))
        results.append((before, loss, session.fetch(session.predict(inputs))))
        assert session.notes()["xla"] == str(compiled).lower()
    for plain, compiled in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["mlp", "lstm", "bert-tiny", "resnet-20", "wav2vec2-tiny"])
def test_bfloat16_stays_near_float32(case: str) -> None:
    outputs = []
    for precision in ("fp32", "bf16"):
        session, inputs, _ = open_case(case, precision=precision)
        outputs.append(session.fetch(session.predict(inputs)))
        assert outputs[-1].dtype == np.float32
        loss = session.fetch(session.train_step(harness.Batch(inputs, np.arange(BATCH) % CLASSES), 1e-3))
        assert np.isfinite(loss)
        assert all(value.dtype == np.float32 for value in session.get_weights().values())
    assert 0 < np.abs(outputs[1] - outputs[0]).max() < 0.1 * np.abs(outputs[0]).max()


@pytest.mark.parametrize("case", WITH_DROPOUT)
def test_dropout_acts_in_training_only(case: str) -> None:
    recipe = harness.Recipe(optimizer="sgd", dropout=0.5)
    session, inputs, _ = open_case(case, recipe)
    plain, _, _ = open_case(case)
    predicted = session.fetch(session.predict(inputs))
    np.testing.assert_array_equal(predicted, session.fetch(session.predict(inputs)))
    np.testing.assert_allclose(predicted, plain.fetch(plain.predict(inputs)), rtol=1e-6, atol=1e-6)
    batch = harness.Batch(inputs, np.arange(BATCH) % CLASSES)
    losses = {float(session.fetch(session.train_step(batch, 0.0))) for _ in range(4)}
    assert len(losses) == 4


@pytest.mark.parametrize("case", ["bert-tiny", "lstm"])
def test_padding_does_not_change_the_outputs(case: str) -> None:
    session, inputs, _ = open_case(case)
    other = dict(inputs)
    noise = np.random.default_rng(1).integers(1, 500, inputs["input_ids"].shape).astype(np.int32)
    other["input_ids"] = np.where(inputs["attention_mask"] == 1, inputs["input_ids"], noise)
    assert (other["input_ids"] != inputs["input_ids"]).any()
    np.testing.assert_allclose(
        session.fetch(session.predict(other)), session.fetch(session.predict(inputs)), rtol=1e-5, atol=1e-6
    )


def test_running_statistics_use_the_unbiased_variance_and_change_in_training_only() -> None:
    session, inputs, start = open_case("resnet-20")
    session.predict(inputs)
    name = "resnet.embedder.embedder.normalization"
    np.testing.assert_array_equal(session.get_weights()[f"{name}.running_var"], start[f"{name}.running_var"])

    session.train_step(harness.Batch(inputs, np.arange(BATCH) % CLASSES), 0.0)
    found = session.get_weights()
    kernel = start["resnet.embedder.embedder.convolution.weight"]
    x = np.pad(inputs["pixel_values"], [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    y = np.einsum("nhwcij,ocij->nhwo", windows, kernel).reshape(-1, kernel.shape[0]).astype(np.float64)
    expected = {
        "running_mean": 0.9 * start[f"{name}.running_mean"] + 0.1 * y.mean(0),
        "running_var": 0.9 * start[f"{name}.running_var"] + 0.1 * y.var(0, ddof=1),
    }
    for statistic, value in expected.items():
        np.testing.assert_allclose(found[f"{name}.{statistic}"], value, rtol=1e-5, atol=1e-6)
