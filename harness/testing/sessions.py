"""Tests for a backend's sessions with small models and random data. Results are compared with numpy.

Unlike the other suites, `SessionSuite` opens its sessions in the pytest process, which therefore imports the framework.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np
import pytest

from harness.errors import PluginError, UnsupportedError
from harness.interfaces import Batch, BuildNetwork, Network, Parameter
from harness.records import IGNORED, DataInfo, Recipe
from harness.testing.recipe_options import POSITIONS_BATCH, OptionTests
from harness.testing.session_cases import BATCH, CLASSES, SessionCases, example, losses, weights_for
from harness.testing.state_tests import StateTests

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def cross_entropy(logits: Array, targets: Array, smoothing: float) -> tuple[float, Array]:
    """Return the softmax cross-entropy with label smoothing and its gradient. Logits have the shape ``[N, C]``, and
    targets have the shape ``[N]``."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    classes = logits.shape[1]
    smoothed = (1 - smoothing) * np.eye(classes)[targets] + smoothing / classes
    return float(-(smoothed * logs).sum(1).mean()), (np.exp(logs) - smoothed) / len(logits)


class RecipeReference:
    """Float64 reference implementation of the update rules in `harness.Recipe`."""

    def __init__(self, recipe: Recipe, parameters: Sequence[Parameter]) -> None:
        self.recipe, self.t = recipe, 0
        self.decays = {p.name: recipe.weight_decay * p.decay for p in parameters}
        self.penalized = {p.name for p in parameters if p.decay}
        self.first: dict[str, Any] = dict.fromkeys(self.decays, 0.0)
        self.second: dict[str, Any] = dict.fromkeys(self.decays, 0.0)

    def step(self, weights: Mapping[str, Array], gradients: Mapping[str, Array], rate: float) -> dict[str, Array]:
        """Return the weights after one optimizer step, starting from `weights`."""
        self.t += 1
        scale = 1.0
        if self.recipe.clip_norm is not None:
            norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
            scale = min(1.0, self.recipe.clip_norm / norm)
        return {
            name: self._moved(name, weights[name].astype(np.float64), scale * gradient.astype(np.float64), rate)
            for name, gradient in gradients.items()
        }

    def _moved(self, name: str, p: Array, g: Array, rate: float) -> Any:
        recipe, decay = self.recipe, self.decays[name]
        if name in self.penalized:
            g = g + recipe.l1 * np.sign(p)
        if recipe.optimizer in ("adamw", "lion") or recipe.decoupled_decay:
            p = p - rate * decay * p
        elif recipe.optimizer != "lamb":
            g = g + decay * p
        if recipe.optimizer == "sgd":
            m = self.first[name] = recipe.momentum * self.first[name] + g
            return p - rate * (g + recipe.momentum * m if recipe.nesterov else m)
        if recipe.optimizer == "rmsprop":
            s = self.second[name] = 0.99 * self.second[name] + 0.01 * g**2
            return p - rate * g / (np.sqrt(s) + recipe.epsilon)
        if recipe.optimizer == "adagrad":
            s = self.second[name] = self.second[name] + g**2
            return p - rate * g / (np.sqrt(s) + recipe.epsilon)
        if recipe.optimizer == "lion":
            mixed = recipe.beta1 * self.first[name] + (1 - recipe.beta1) * g
            self.first[name] = recipe.beta2 * self.first[name] + (1 - recipe.beta2) * g
            return p - rate * np.sign(mixed)
        m = self.first[name] = recipe.beta1 * self.first[name] + (1 - recipe.beta1) * g
        s = self.second[name] = recipe.beta2 * self.second[name] + (1 - recipe.beta2) * g**2
        m_hat, s_hat = m / (1 - recipe.beta1**self.t), s / (1 - recipe.beta2**self.t)
        direction = m_hat / (np.sqrt(s_hat) + recipe.epsilon)
        if recipe.optimizer == "lamb":
            direction = direction + decay * p
            direction = direction * np.linalg.norm(p) / np.linalg.norm(direction)
        return p - rate * direction


RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "sgd-decay": {"optimizer": "sgd", "weight_decay": 0.1},
    "sgd-momentum": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "sgd-nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "sgd-clipped": {"optimizer": "sgd", "clip_norm": 0.5, "weight_decay": 0.1},
    "sgd-clipped-by-nothing": {"optimizer": "sgd", "clip_norm": 1e6},
    "sgd-smoothed": {"optimizer": "sgd", "label_smoothing": 0.2},
    "rmsprop": {"optimizer": "rmsprop", "epsilon": 1e-3, "weight_decay": 0.1},
    "rmsprop-large-epsilon": {"optimizer": "rmsprop", "epsilon": 0.1},
    "adam": {"optimizer": "adam"},
    "adam-decay": {"optimizer": "adam", "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.99},
    "adam-no-beta1": {"optimizer": "adam", "beta1": 0.0},
    "adam-large-epsilon": {"optimizer": "adam", "epsilon": 0.1},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "adamw-large-epsilon": {"optimizer": "adamw", "weight_decay": 0.1, "epsilon": 0.1},
    "adamw-clipped": {"optimizer": "adamw", "clip_norm": 0.5, "epsilon": 0.1, "weight_decay": 0.1},
    "sgd-accumulated": {"optimizer": "sgd", "momentum": 0.9, "accumulation_steps": 4, "label_smoothing": 0.1},
    "adagrad": {"optimizer": "adagrad", "weight_decay": 0.1, "epsilon": 1e-3},
    "lion": {"optimizer": "lion", "weight_decay": 0.1, "beta2": 0.99},
    "lamb": {"optimizer": "lamb", "weight_decay": 0.1, "epsilon": 1e-3},
    "sgd-l1": {"optimizer": "sgd", "l1": 0.1, "clip_norm": 0.5},
    "adamw-l1": {"optimizer": "adamw", "l1": 0.1, "weight_decay": 0.1, "epsilon": 0.1},
    "sgd-decoupled": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1, "decoupled_decay": True},
    "adagrad-decoupled": {"optimizer": "adagrad", "weight_decay": 0.1, "decoupled_decay": True, "epsilon": 1e-3},
}
RATES = (0.0, 0.1, 0.05, 0.03, 0.02, 0.04)


class SessionSuite(OptionTests, StateTests):
    """Tests for a backend's sessions: losses, optimizer steps, modes, seeds and unsupported requests.

    Examples
    --------
    >>> class TestSessions(harness.testing.SessionSuite):
    ...     cases = harness.testing.SessionCases("mine", {"mlp": ("mlp", {}), "lstm": ("lstm", {"hidden_size": 16})})
    """

    cases: ClassVar[SessionCases]
    plain: ClassVar[str] = "mlp"
    """Case for testing losses, optimizers and seeds. The model of this case must accept ``features`` and have dropout
    layers. Weight decay must not apply to the model's biases."""
    slow: ClassVar[Collection[str]] = ()
    """Cases whose tests are marked ``slow``. Tests that neither train nor predict are never marked as slow."""
    positions: ClassVar[BuildNetwork | None] = None
    """Static method that builds a network for token classification. The network is a dense layer that maps ``features``
    ``[B, L, 2]`` to outputs ``[B, L, 4]``. The layer has the parameters ``weight`` ``[4, 2]`` and ``bias`` ``[4]``. If
    None, the token-classification tests are skipped."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        model, parameters = self.cases.model, self.cases._parameters
        chosen = {
            "any_case": list(self.cases.models),
            "case": list(self.cases.models),
            "token_case": [case for case in self.cases.models if self.cases.kind(case) == "tokens"],
            "dropout_case": [case for case in self.cases.models if model(case)[0].has_dropout],
            "statistics_case": [
                case for case in self.cases.models if any("running" in p.name for p in parameters(case))
            ],
        }
        for argument in chosen.keys() & set(metafunc.fixturenames):
            slow = () if argument == "any_case" else self.slow
            marked = [pytest.param(c, marks=[pytest.mark.slow] if c in slow else []) for c in chosen[argument]]
            metafunc.parametrize(argument, marked)

    def test_weights_round_trip_exactly(self, any_case: str) -> None:
        session = self.cases.open(any_case)
        expected = weights_for(self.cases.request(any_case).parameters)
        actual = session.get_weights()
        assert list(actual) == list(expected)
        for name, array in expected.items():
            assert actual[name].dtype == np.float32
            assert actual[name].flags.c_contiguous
            np.testing.assert_array_equal(actual[name], array, err_msg=name)

    def test_predictions_follow_from_each_example_in_order(self, case: str) -> None:
        session = self.cases.open(case)
        inputs = self.cases.batch(case).inputs
        outputs = session.fetch(session.predict(inputs))
        assert outputs.shape == (BATCH, CLASSES)
        assert outputs.dtype == np.float32
        assert np.ptp(outputs, axis=0).min() > 1e-3  # The outputs must differ between examples.
        order = np.random.default_rng(0).permutation(BATCH)
        others = session.fetch(session.predict({name: array[order].copy() for name, array in inputs.items()}))
        np.testing.assert_allclose(others, outputs[order], rtol=1e-4, atol=1e-5)

    def test_training_on_one_batch_lowers_its_loss_and_changes_every_parameter(self, case: str) -> None:
        session = self.cases.open(case, recipe=Recipe(optimizer="adam"))
        before = session.get_weights()
        curve = losses(session, self.cases.batch(case), [1e-3] * 5)
        assert np.isfinite(curve).all()
        assert curve[-1] < curve[0]
        after = session.get_weights()
        assert [name for name in before if np.array_equal(before[name], after[name])] == []

    def test_bfloat16_is_near_float32_and_trains_float32_weights(self, case: str) -> None:
        if not any("bf16" in device.precisions for device in self.cases.backend.devices() if device.name == "cpu"):
            pytest.skip("the backend does not support bf16 on this CPU")
        batch, outputs = self.cases.batch(case), {}
        for precision in ("fp32", "bf16"):
            session = self.cases.open(case, precision=precision, recipe=Recipe(optimizer="adam"))
            outputs[precision] = session.fetch(session.predict(batch.inputs))
            assert outputs[precision].dtype == np.float32
        distance = np.linalg.norm(outputs["bf16"] - outputs["fp32"]) / np.linalg.norm(outputs["fp32"])
        assert 1e-4 < distance < 5e-2
        # In bf16, which has eight significant bits, steps of this size would be rounded to zero.
        before = session.get_weights()
        losses(session, batch, [1e-6])
        for name, array in session.get_weights().items():
            assert array.dtype == np.float32
            if array.ndim > 1:
                assert 0 < np.abs(array - before[name]).max() < 1e-5, name

    def test_dropout_acts_in_training_only(self, dropout_case: str) -> None:
        session = self.cases.open(dropout_case, recipe=Recipe(optimizer="sgd", dropout=0.5))
        without = self.cases.open(dropout_case)
        batch = self.cases.batch(dropout_case)
        np.testing.assert_array_equal(
            session.fetch(session.predict(batch.inputs)), without.fetch(without.predict(batch.inputs))
        )
        curve = losses(session, batch, [0.0] * 3)
        assert len(set(curve)) == 3  # The weights are the same, but the dropout masks differ.
        assert losses(without, batch, [0.0])[0] not in curve

    def test_padding_does_not_change_predictions(self, token_case: str) -> None:
        session = self.cases.open(token_case)
        inputs = self.cases.batch(token_case).inputs
        ids = np.where(inputs["attention_mask"] == 1, inputs["input_ids"], 7).astype(np.int32)
        assert not np.array_equal(ids, inputs["input_ids"])
        one, other = (session.fetch(session.predict(each)) for each in (inputs, {**inputs, "input_ids": ids}))
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)

    def test_running_statistics_move_in_training_only(self, statistics_case: str) -> None:
        session = self.cases.open(statistics_case)
        batch = self.cases.batch(statistics_case)
        start = session.get_weights()
        session.predict(batch.inputs)
        for name, array in session.get_weights().items():
            np.testing.assert_array_equal(array, start[name], err_msg=name)
        session.train_step(batch, 0.0)
        for name, array in session.get_weights().items():
            assert np.array_equal(array, start[name]) != ("running" in name), name

    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_classification_loss_is_smoothed_cross_entropy(self, smoothing: float) -> None:
        session = self.cases.open(self.plain, recipe=Recipe(optimizer="sgd", label_smoothing=smoothing))
        batch = self.cases.batch(self.plain)
        expected, _ = cross_entropy(session.fetch(session.predict(batch.inputs)), batch.targets, smoothing)
        loss = session.fetch(session.train_step(batch, 0.1))
        assert loss.dtype == np.float32
        assert float(loss) == pytest.approx(expected, rel=1e-5)

    def test_regression_loss_is_the_mean_over_all_elements(self) -> None:
        info, inputs = example("features")
        info = DataInfo(kind=info.kind, inputs=info.inputs, objective="regression", outputs=2)
        session = self.cases.open(self.plain, info=info)
        outputs = session.fetch(session.predict(inputs))
        targets = np.random.default_rng(0).standard_normal((BATCH, 2)).astype(np.float32)
        (loss,) = losses(session, Batch(inputs, targets), [0.1])
        assert loss == pytest.approx(float(np.mean((outputs - targets) ** 2)), rel=1e-5)

    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_token_classification_loss_is_the_mean_over_the_positions_that_count(self, smoothing: float) -> None:
        """Check that the loss weights each example by its number of positions with a target."""
        session, batch = self.open_positions(recipe=Recipe(optimizer="sgd", label_smoothing=smoothing)), POSITIONS_BATCH
        counted = batch.targets != IGNORED
        logits = session.fetch(session.predict(batch.inputs))
        assert logits.shape == (2, 3, 4)
        expected, slopes = cross_entropy(logits[counted], batch.targets[counted], smoothing)
        loss, gradients = session.gradients(batch)
        assert loss == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(gradients["bias"], slopes.sum(0), atol=1e-6)
        assert losses(session, batch, [0.1]) == [pytest.approx(expected, rel=1e-6)]

    @pytest.mark.parametrize("recipe", RECIPES)
    def test_steps_are_those_of_the_recipe(self, recipe: str) -> None:
        chosen = Recipe(**RECIPES[recipe])
        request = self.cases.request(self.plain, recipe=chosen)
        assert {parameter.decay for parameter in request.parameters} == {True, False}
        session = self.cases.open(self.plain, recipe=chosen)
        reference = RecipeReference(chosen, request.parameters)
        batch = self.cases.batch(self.plain)
        for number, rate in enumerate(RATES):
            weights = session.get_weights()
            _, gradients = session.gradients(batch)
            expected = reference.step(weights, gradients, rate)
            session.train_step(batch, rate)
            for name, array in session.get_weights().items():
                np.testing.assert_allclose(array, expected[name], rtol=2e-5, atol=2e-6, err_msg=f"{name} at {number}")

    @pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw", "adagrad", "lion", "lamb"])
    def test_set_weights_resets_the_optimizer(self, optimizer: str) -> None:
        recipe = msgspec.convert({"optimizer": optimizer, "momentum": 0.9}, Recipe)
        session = self.cases.open(self.plain, recipe=recipe)
        start, batch = session.get_weights(), self.cases.batch(self.plain)

        def three_steps() -> dict[str, Any]:
            session.set_weights(start)
            losses(session, batch, [1e-2] * 3)
            return session.get_weights()

        first, second = three_steps(), three_steps()
        for name, array in first.items():
            assert not np.array_equal(array, start[name])
            np.testing.assert_array_equal(second[name], array, err_msg=name)

    def test_training_depends_on_the_seed_only(self) -> None:
        recipe = Recipe(optimizer="adamw", dropout=0.5)

        def curve(seed: int) -> list[float]:
            return losses(
                self.cases.open(self.plain, recipe=recipe, seed=seed), self.cases.batch(self.plain), [1e-2] * 4
            )

        assert curve(0) == curve(0) != curve(1)

    def test_arrays_of_the_caller_are_copied(self) -> None:
        request = self.cases.request(self.plain)
        weights = weights_for(request.parameters)
        session = self.cases.backend.open(request)
        session.set_weights(weights)
        batch, copy = self.cases.batch(self.plain), self.cases.batch(self.plain)
        handle = session.predict(batch.inputs)
        outputs = session.fetch(handle).copy()
        kept = session.get_weights()
        losses(session, batch, [0.5] * 2)
        np.testing.assert_array_equal(batch.inputs["features"], copy.inputs["features"])
        np.testing.assert_array_equal(batch.targets, copy.targets)
        batch.inputs["features"][:] = 0
        losses(session, copy, [0.5])
        np.testing.assert_array_equal(session.fetch(handle), outputs)
        for name, array in weights_for(request.parameters).items():
            np.testing.assert_array_equal(weights[name], array)
            np.testing.assert_array_equal(kept[name], array)

    @pytest.mark.parametrize(
        "changes",
        [{"precision": "fp16"}, {"precision": "tf32"}, {"device": "cuda:99"}, {"device": "tpu"}],
        ids=["fp16", "tf32", "cuda:99", "tpu"],
    )
    def test_unsupported_requests_raise(self, changes: dict[str, Any]) -> None:
        with pytest.raises(UnsupportedError, match=changes.get("precision", changes.get("device"))):
            self.cases.open(self.plain, **changes)

    def test_network_that_does_not_match_its_model_raises(self) -> None:
        request = self.cases.request(self.plain)
        name = request.parameters[-1].name

        def without(*arguments: Any) -> Network:
            network = request.build(*arguments)
            bindings = {each: binding for each, binding in network.bindings.items() if each != name}
            return dataclasses.replace(network, bindings=bindings)

        with pytest.raises(PluginError, match=f"{name}"):
            self.cases.backend.open(dataclasses.replace(request, build=without))
        with pytest.raises(PluginError, match=f"{name} is"):
            self.cases.backend.open(dataclasses.replace(request, parameters=request.parameters[:-1]))
