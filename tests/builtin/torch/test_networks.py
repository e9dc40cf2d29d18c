"""Tests that the PyTorch networks implement the models: names, shapes and outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from torch_cases import FAMILIES, WITH_DROPOUT, batch_of, info_of, losses, model_of, open_session, request_of

import harness
from harness.execute.weights import initial_weights

pytestmark = pytest.mark.torch

BIG = ("bert-small", "bert-base", "wav2vec2-base", "resnet-50")
VARIANTS = [
    pytest.param(family, variant, marks=[pytest.mark.slow] if variant in BIG else [], id=variant)
    for family in FAMILIES
    for variant in model_of(family).variants
]


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_weights_set_are_the_weights_read_back(family: str, variant: str) -> None:
    request = request_of(family, variant)
    session = open_session(request, seed=3)
    weights = initial_weights(request.parameters, 3)
    found = session.get_weights()
    assert found.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == np.float32
        assert found[name].flags.c_contiguous


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_finite_float32_of_the_expected_shape(family: str) -> None:
    request = request_of(family)
    session = open_session(request)
    outputs = session.fetch(session.predict(batch_of(request.info, 3).inputs))
    assert outputs.shape == (3, request.info.outputs)
    assert outputs.dtype == np.float32
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_training_on_one_batch_lowers_its_loss_and_changes_every_parameter(family: str) -> None:
    request = request_of(family, recipe={"optimizer": "adam"})
    session = open_session(request)
    before = session.get_weights()
    curve = losses(session, batch_of(request.info, 16), [1e-3] * 6)
    assert curve[-1] < curve[0]
    after = session.get_weights()
    assert [name for name in before if np.array_equal(before[name], after[name])] == []


@pytest.mark.parametrize("family", ["lstm", "bert"])
def test_right_padding_does_not_change_the_outputs(family: str) -> None:
    request = request_of(family)
    session = open_session(request)
    inputs = batch_of(request.info).inputs
    expected = session.fetch(session.predict(inputs))
    pads = np.full((len(expected), 5), 9, np.int32)
    longer = {
        "input_ids": np.ascontiguousarray(np.hstack([inputs["input_ids"], pads])),
        "attention_mask": np.ascontiguousarray(np.hstack([inputs["attention_mask"], 0 * pads])),
    }
    np.testing.assert_allclose(session.fetch(session.predict(longer)), expected, atol=1e-6)


@pytest.mark.parametrize("family", WITH_DROPOUT)
def test_dropout_acts_in_training_only(family: str) -> None:
    request = request_of(family, recipe={"dropout": 0.5, "optimizer": "sgd", "learning_rate": 1e-12})
    session = open_session(request)
    batch = batch_of(request.info)
    first, second = (session.fetch(session.predict(batch.inputs)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    without = open_session(request_of(family, recipe={"optimizer": "sgd"}))
    np.testing.assert_array_equal(first, without.fetch(without.predict(batch.inputs)))
    noisy = losses(session, batch, [1e-12] * 4)
    assert len(set(noisy)) == 4
    np.testing.assert_allclose(session.fetch(session.predict(batch.inputs)), first, atol=1e-5)


def test_batch_norm_statistics_change_in_training_only() -> None:
    """Check the statistics of the stem after one step: 0.9 old + 0.1 new, with the unbiased variance as in torch."""
    from torch.nn import functional as F

    request = request_of("resnet", recipe={"optimizer": "sgd", "learning_rate": 1e-12})
    session = open_session(request)
    batch = batch_of(request.info, 16)
    start = session.get_weights()
    session.fetch(session.predict(batch.inputs))
    unchanged = session.get_weights()
    for name, array in start.items():
        np.testing.assert_array_equal(unchanged[name], array, err_msg=name)
    losses(session, batch, [1e-12])
    stem = "resnet.embedder.embedder"
    import torch

    images = torch.from_numpy(batch.inputs["pixel_values"]).permute(0, 3, 1, 2)
    kernel = torch.from_numpy(start[f"{stem}.convolution.weight"])
    outputs = F.conv2d(images, kernel, padding=1).numpy().transpose(1, 0, 2, 3).reshape(16, -1)
    found = session.get_weights()
    norm = f"{stem}.normalization"
    np.testing.assert_allclose(found[f"{norm}.running_mean"], 0.1 * outputs.mean(1), atol=1e-6)
    np.testing.assert_allclose(found[f"{norm}.running_var"], 0.9 + 0.1 * outputs.var(1, ddof=1), rtol=1e-5)


def _published(family: str, config: Any, info: harness.DataInfo) -> Any:
    """Return the network that ``transformers`` builds from its configuration class."""
    import msgspec
    import transformers

    sizes = msgspec.structs.asdict(config) | {"num_labels": info.outputs}
    if family == "bert":
        sizes["vocab_size"] = info.details["vocab_size"]
        return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes))
    if family == "resnet":
        del sizes["stem"]
        return transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes))
    return transformers.Wav2Vec2ForSequenceClassification(
        transformers.Wav2Vec2Config(**sizes, mask_time_prob=0.0, layerdrop=0.0)
    )


@pytest.mark.parametrize(
    ("family", "variant"), [("bert", "bert-tiny"), ("resnet", "resnet-18"), ("wav2vec2", "wav2vec2-tiny")]
)
def test_outputs_and_names_agree_with_transformers(family: str, variant: str) -> None:
    import torch

    request = request_of(family, variant)
    weights = {name: torch.from_numpy(array) for name, array in initial_weights(request.parameters, 1).items()}
    published = _published(family, request.config, request.info)
    missing, unexpected = published.load_state_dict(weights, strict=False)
    assert [name for name in missing if not name.endswith("num_batches_tracked")] == []
    assert unexpected == []
    inputs = batch_of(request.info).inputs
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    if family == "resnet":
        tensors["pixel_values"] = tensors["pixel_values"].permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = published.eval()(**tensors).logits.numpy()
    session = open_session(request, seed=1)
    np.testing.assert_allclose(session.fetch(session.predict(inputs)), expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["max", "max-mean"])
def test_lstm_is_the_textbook_recurrence_with_one_bias(pooling: str) -> None:
    model, info = model_of("lstm"), info_of("lstm", outputs=3)
    config = model.Config(embedding_size=7, hidden_size=9, pooling=pooling)  # type: ignore[call-arg]
    request = request_of("lstm", info=info, config=config, parameters=tuple(model.parameters(config, info)))
    session = open_session(request)
    batch = batch_of(request.info, 4)
    losses(session, batch, [0.05] * 3)
    w = {name: array.astype(np.float64) for name, array in session.get_weights().items()}
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    state = cell = np.zeros((len(ids), request.config.hidden_size))
    pooled, total = np.full_like(state, -np.inf), np.zeros_like(state)
    for step in range(ids.shape[1]):
        gates = (
            w["embedding.weight"][ids[:, step]] @ w["lstm.weight_ih_l0"].T
            + state @ w["lstm.weight_hh_l0"].T
            + w["lstm.bias_l0"]
        )
        i, f, g, o = np.split(gates, 4, axis=1)
        cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(g)
        state = _sigmoid(o) * np.tanh(cell)
        pooled = np.where(mask[:, [step]] == 1, np.maximum(pooled, state), pooled)
        total += mask[:, [step]] * state
    if pooling == "max-mean":
        pooled = np.concatenate([pooled, total / mask.sum(axis=1, keepdims=True)], axis=1)
    expected = pooled @ w["classifier.weight"].T + w["classifier.bias"]
    np.testing.assert_allclose(session.fetch(session.predict(batch.inputs)), expected, atol=1e-5)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _broken(change: Any) -> Any:
    """Return a ``build`` function that applies `change` to the linear network."""
    from harness_torch.networks.linear import build

    return lambda *arguments: change(build(*arguments))


def _drop_bias(network: harness.Network) -> harness.Network:
    return dataclasses.replace(network, bindings={"linear.weight": network.bindings["linear.weight"]})


def _add_alias(network: harness.Network) -> harness.Network:
    return dataclasses.replace(network, bindings={**network.bindings, "alias": network.bindings["linear.bias"]})


def _bind_elsewhere(network: harness.Network) -> harness.Network:
    import torch

    bindings = {**network.bindings, "linear.bias": harness.Binding(torch.nn.Parameter(torch.zeros(5)))}
    return dataclasses.replace(network, bindings=bindings)


def _transpose(network: harness.Network) -> harness.Network:
    weight = harness.Binding(network.bindings["linear.weight"].variable, axes=(1, 0))
    return dataclasses.replace(network, bindings={**network.bindings, "linear.weight": weight})


def _freeze(network: harness.Network) -> harness.Network:
    network.bindings["linear.bias"].variable.requires_grad_(False)
    return network


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_drop_bias, "linear.bias has no binding; the module's linear.bias is trainable but has no binding"),
        (_add_alias, "alias is bound but not a parameter of the model"),
        (_bind_elsewhere, "linear.bias is not bound to a parameter or buffer of the module"),
        (_transpose, r"linear.weight is converted to shape \(7, 5\), but its tensor has shape \(5, 7\)"),
        (_freeze, "linear.bias is trainable, but its tensor does not require a gradient"),
    ],
)
def test_bindings_that_do_not_match_the_model_are_listed(change: Any, complaint: str) -> None:
    with pytest.raises(harness.PluginError, match=complaint):
        open_session(request_of("linear", build=_broken(change)))
