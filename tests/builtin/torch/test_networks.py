"""Tests that the networks implement the models: names, shapes and functions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from framework_cases import MODELS, check_running_statistics
from torch_cases import FAMILIES, batch_of, info_of, losses, model_of, open_session, request_of

import harness
from harness.execute.weights import initial_weights
from harness.testing import SessionCases, SessionSuite

pytestmark = pytest.mark.torch

CASES = SessionCases("torch", MODELS)

BIG = ("bert-small", "bert-base", "wav2vec2-base", "resnet-50")
VARIANTS = [
    pytest.param(family, variant, marks=[pytest.mark.slow] if variant in BIG else [], id=variant)
    for family in FAMILIES
    for variant in model_of(family).variants
]


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_weights_go_in_and_come_out_unchanged(family: str, variant: str) -> None:
    request = request_of(family, variant)
    session = open_session(request, seed=3)
    weights = initial_weights(request.parameters, 3)
    found = session.get_weights()
    assert found.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == np.float32
        assert found[name].flags.c_contiguous


def positions(config: object, info: harness.DataInfo, dropout: float) -> harness.Network:
    import torch

    class Positions(torch.nn.Linear):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return super().forward(features)

    module = Positions(2, 4)
    bindings = {name: harness.Binding(parameter) for name, parameter in module.named_parameters()}
    return harness.Network(module=module, bindings=bindings)


class TestSessions(SessionSuite):
    cases = CASES
    positions = staticmethod(positions)


def test_running_statistics_take_the_unbiased_variance() -> None:
    check_running_statistics(CASES)


def _published(family: str, config: Any, info: harness.DataInfo) -> Any:
    """The architecture as ``transformers`` builds it from its own configuration class."""
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
def test_outputs_and_names_are_those_of_transformers(family: str, variant: str) -> None:
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
    """`build` of the linear network with its `harness.Network` changed."""
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
        (_add_alias, "alias is bound but is not a parameter of the model"),
        (_bind_elsewhere, "linear.bias is not bound to a parameter or buffer of the module"),
        (_transpose, r"linear.weight is converted to shape \(7, 5\), but its tensor has shape \(5, 7\)"),
        (_freeze, "linear.bias is trainable, but its tensor does not require a gradient"),
    ],
)
def test_a_network_that_does_not_fit_its_model_is_refused(change: Any, complaint: str) -> None:
    with pytest.raises(harness.PluginError, match=complaint):
        open_session(request_of("linear", build=_broken(change)))
