"""Tests of the float64 optimizers and of the replay of training steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checks.parity.optimizer import Change, ReferenceOptimizer, clipping
from harness.checks.parity.replay import Replay
from harness.interfaces import Batch, Parameter
from harness.records import Recipe

Array = np.ndarray[Any, Any]


def trained(recipe: Recipe, steps: int = 5) -> list[dict[str, Change]]:
    """Return the changes of a decayed and another parameter over some steps with random gradients."""
    rng = np.random.default_rng(0)
    optimizer = ReferenceOptimizer(recipe, {"w"})
    weights = {"w": rng.normal(size=3), "b": rng.normal(size=2)}
    changes = []
    for step in range(steps):
        gradients = {name: rng.normal(size=array.shape) for name, array in weights.items()}
        noise = {name: np.full(array.shape, 1e-6) for name, array in weights.items()}
        factor = clipping(gradients, recipe.clip_norm)
        changes.append(optimizer.step(weights, gradients, noise, recipe.learning_rate / (step + 1), factor))
        weights = {name: array + changes[-1][name].value for name, array in weights.items()}
    return changes


recipes = st.builds(
    Recipe,
    optimizer=st.sampled_from(["sgd", "rmsprop", "adam", "adamw", "adagrad", "lion", "lamb"]),
    learning_rate=st.floats(1e-3, 1),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    nesterov=st.booleans(),
    beta1=st.sampled_from([0.5, 0.9]),
    beta2=st.sampled_from([0.9, 0.999]),
    epsilon=st.sampled_from([1e-8, 1e-3]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    clip_norm=st.sampled_from([None, 0.5, 2.0]),
    l1=st.sampled_from([0.0, 0.1]),
) | st.builds(
    Recipe,
    optimizer=st.sampled_from(["sgd", "rmsprop", "adagrad"]),
    momentum=st.sampled_from([0.0, 0.9]),
    weight_decay=st.just(0.1),
    decoupled_decay=st.just(True),
)


@pytest.mark.torch
@pytest.mark.plugins("torch")
@given(recipes)
@settings(max_examples=60)
def test_float64_optimizers_agree_with_those_of_torch(recipe: Recipe) -> None:
    torch = pytest.importorskip("torch")
    from harness_torch.optimizers import build_optimizer

    rng = np.random.default_rng(0)
    parameters = {name: torch.nn.Parameter(torch.tensor(rng.normal(size=size))) for name, size in (("w", 3), ("b", 2))}
    optimizer = build_optimizer(recipe, [parameters["w"]], [parameters["b"]])
    for step, changes in enumerate(trained(recipe)):
        before = {name: parameter.detach().numpy().copy() for name, parameter in parameters.items()}
        for parameter in parameters.values():
            parameter.grad = torch.tensor(rng.normal(size=parameter.shape))
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(parameters.values()), recipe.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate / (step + 1)
        optimizer.step()
        for name, parameter in parameters.items():
            np.testing.assert_allclose(changes[name].value, parameter.detach().numpy() - before[name], 1e-9, 1e-12)


def test_adam_of_two_steps_equals_the_formulas() -> None:
    """Kingma and Ba 2015, algorithm 1, by hand."""
    optimizer = ReferenceOptimizer(Recipe(optimizer="adam"), ())
    zero = {"p": np.zeros(1)}
    (first,) = optimizer.step({"p": np.array([1.0])}, {"p": np.array([2.0])}, zero, 0.1)["p"].value
    (second,) = optimizer.step({"p": np.array([0.9])}, {"p": np.array([-1.0])}, zero, 0.1)["p"].value
    assert first == pytest.approx(-0.1)
    mean = (0.9 * 0.1 * 2 + 0.1 * -1) / (1 - 0.9**2)
    square = (0.999 * 0.001 * 4 + 0.001 * 1) / (1 - 0.999**2)
    assert second == pytest.approx(-0.1 * mean / np.sqrt(square))


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw", "adagrad", "lion", "lamb"])
def test_doubt_bounds_the_effect_of_noise(optimizer: str) -> None:
    rng = np.random.default_rng(1)
    recipe = Recipe(optimizer=optimizer, momentum=0.9)  # type: ignore[arg-type]
    one, other = ReferenceOptimizer(recipe, ()), ReferenceOptimizer(recipe, ())
    weights = {"p": rng.normal(size=200)}
    for _ in range(20):
        gradient = rng.normal(size=200) * 10.0 ** rng.integers(-6, 1, 200)
        noise = np.full(200, 1e-7)
        moved = gradient + noise * rng.uniform(-1, 1, 200)
        change, doubt = one.step(weights, {"p": gradient}, {"p": noise}, 0.1)["p"]
        again, _ = other.step(weights, {"p": moved}, {"p": noise}, 0.1)["p"]
        assert (np.abs(again - change) <= 1.5 * doubt + 1e-12).all()


class Quadratic:
    """Session whose loss is half the squared distance of the weights from the batch, trained with momentum in numpy.

    `overflows` is the number of times that the loss scale has to be halved before the gradients are finite, and
    `skipped` the number of other steps that are skipped.
    """

    def __init__(self, recipe: Recipe, overflows: int = 0, skipped: int = 0) -> None:
        self.recipe, self.overflows, self.skipped = recipe, overflows, skipped

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        self.weights = {name: array.copy() for name, array in weights.items()}
        self.velocity = np.zeros_like(self.weights["w"])
        self.halvings = 0

    def get_weights(self) -> dict[str, Array]:
        return {name: array.copy() for name, array in self.weights.items()}

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        distance = self.weights["w"] - batch.inputs["x"]
        overflowed = np.full_like(distance, np.inf) if self.halvings < self.overflows else distance
        return float((distance**2).sum() / 2), {"w": overflowed}

    def train_step(self, batch: Batch, learning_rate: float) -> float:
        loss, gradients = self.gradients(batch)
        if self.halvings < self.overflows:
            self.halvings += 1
            return loss
        if self.skipped:
            self.skipped -= 1
            return loss
        self.velocity = self.recipe.momentum * self.velocity + gradients["w"]
        self.weights["w"] -= (learning_rate * self.velocity).astype(np.float32)
        return loss

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        return self.weights["w"]

    def fetch(self, handle: Any) -> Any:
        return handle


def replayed(
    precision: Any, *, overflows: int = 0, skipped: int = 0, steps: int = 8, scale: float = 1.0
) -> dict[str, Array]:
    recipe = Recipe(optimizer="sgd", momentum=0.9)
    start = {"w": np.linspace(1, 2, 50, dtype=np.float32)}
    sessions: Any = Quadratic(recipe, overflows, skipped), Quadratic(recipe, overflows)
    replay = Replay(*sessions, start, recipe, [Parameter(name="w", shape=(50,))], precision)
    for step in range(steps):
        x = np.full(50, step * scale, np.float32)
        replay.step(Batch({"x": x}, x), 0.1 / (step + 1))
    return replay.arrays()


def test_replay_of_correct_steps_has_rounding_errors_only() -> None:
    arrays = replayed("fp32")
    assert len(arrays["loss"]) == 8
    assert (arrays["error"] <= arrays["rounding"] + 1e-6 * arrays["size"]).all()
    assert (arrays["kept"] == 50).all()
    np.testing.assert_array_equal(arrays["loss"][:, 0], arrays["loss"][:, 1])


@pytest.mark.parametrize(
    ("overflows", "skipped", "compared", "correct"), [(2, 0, 6, True), (2, 1, 6, False), (0, 1, 8, False)]
)
def test_steps_are_skipped_at_fp16_only_while_gradients_overflow(
    overflows: int, skipped: int, compared: int, *, correct: bool
) -> None:
    arrays = replayed("fp16", overflows=overflows, skipped=skipped)
    wrong = arrays["error"] > 1e-2 * arrays["size"] + arrays["rounding"]
    assert (len(arrays["loss"]), arrays["skipped"][0], not wrong.any()) == (compared, overflows, correct)


def test_skipped_step_is_wrong_at_fp32() -> None:
    arrays = replayed("fp32", skipped=1)
    assert (arrays["error"] > arrays["size"] / 2).any()


def test_replay_ends_before_weights_that_are_not_finite() -> None:
    with np.errstate(all="ignore"):
        arrays = replayed("fp32", scale=1e38)
    assert 0 < len(arrays["loss"]) < 8
    assert np.isfinite(arrays["error"]).all()


def test_undefined_weights_after_finite_gradients_are_an_error() -> None:
    recipe = Recipe(optimizer="sgd", momentum=0.9)
    start = {"w": np.linspace(1, 2, 50, dtype=np.float32)}
    sessions: Any = Quadratic(recipe), Quadratic(recipe)
    replay = Replay(*sessions, start, recipe, [Parameter(name="w", shape=(50,))], "fp32")
    x = np.zeros(50, np.float32)
    for rate in (0.1, float("nan"), 0.1):
        replay.step(Batch({"x": x}, x), rate)
    assert np.isfinite(replay.arrays()["error"]).tolist() == [[True], [False]]
    assert np.isfinite(replay.weights["w"]).all()
