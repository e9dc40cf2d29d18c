"""Tests of the loss scale at half precision. The optimizers are compared with numpy in ``test_networks.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from framework_cases import MODELS

import harness
from harness.testing import SessionCases

pytestmark = pytest.mark.tensorflow

CASES = SessionCases("tensorflow", MODELS, threads=2)


@pytest.fixture(autouse=True, scope="module")
def _threads() -> None:
    """Open a session first, because TensorFlow sets the number of threads once per process."""
    CASES.open("linear").close()


def test_loss_scale_skips_a_step_that_overflowed_and_halves() -> None:
    import tensorflow as tf
    from harness_tensorflow.optimizers import LossScale, Optimizer

    variable = tf.Variable([1.0, 2.0])
    optimizer = Optimizer(harness.Recipe(optimizer="sgd"), [variable], [False])
    scale = LossScale()

    @tf.function(autograph=False)
    def step(gradient: Any) -> Any:
        loss = scale.scale(tf.constant(1.0))
        scale.apply(optimizer, [gradient * loss], tf.constant(1.0))
        return loss

    assert step(tf.constant([float("inf"), 0.0])).numpy() == 65536
    np.testing.assert_array_equal(variable.numpy(), [1, 2])
    assert step(tf.constant([0.5, 1.0])).numpy() == 32768
    np.testing.assert_array_equal(variable.numpy(), [0.5, 1])
    for _ in range(1999):
        step(tf.constant([0.0, 0.0]))
    assert step(tf.constant([0.0, 0.0])).numpy() == 65536


def test_fixed_loss_scale_never_changes() -> None:
    import tensorflow as tf
    from harness_tensorflow.optimizers import LossScale, Optimizer

    variable = tf.Variable([1.0, 2.0])
    optimizer, scale = Optimizer(harness.Recipe(optimizer="sgd"), [variable], [False]), LossScale(8.0)
    assert scale.description == "fixed, 8"
    for gradient, expected in (([float("inf"), 0.0], [1, 2]), ([8.0, 16.0], [0, 0])):
        scale.apply(optimizer, [tf.constant(gradient)], tf.constant(1.0))
        np.testing.assert_array_equal(variable.numpy(), expected)
        assert scale.scale(tf.constant(1.0)).numpy() == 8


RECIPES = [
    harness.Recipe(optimizer="sgd"),
    harness.Recipe(optimizer="sgd", weight_decay=0.1, clip_norm=0.5),
    harness.Recipe(optimizer="sgd", momentum=0.9, weight_decay=0.1),
    harness.Recipe(optimizer="sgd", momentum=0.9, nesterov=True),
    harness.Recipe(optimizer="rmsprop", weight_decay=0.1, clip_norm=0.5),
    harness.Recipe(optimizer="adam", weight_decay=0.1),
    harness.Recipe(optimizer="adamw", weight_decay=0.1, clip_norm=0.5),
    harness.Recipe(optimizer="adagrad", weight_decay=0.1, decoupled_decay=True),
    harness.Recipe(optimizer="lion", weight_decay=0.1, l1=0.01),
    harness.Recipe(optimizer="lamb", weight_decay=0.1),
]
NO_EPSILON = [harness.Recipe(optimizer=name, epsilon=0.0) for name in ("rmsprop", "adam", "adamw")]


def trained(recipe: harness.Recipe, gradients: list[Any], xla: bool, scaled: bool) -> list[list[Any]]:
    """Return the variable, the moments and the step count after each step."""
    import tensorflow as tf
    from harness_tensorflow.optimizers import LossScale, Optimizer

    variable = tf.Variable([1.0, -2.0, 3.0])
    optimizer, scale = Optimizer(recipe, [variable], [True]), LossScale()

    @tf.function(autograph=False, jit_compile=xla)
    def step(gradient: Any) -> None:
        if scaled:
            scale.apply(optimizer, [scale.scale(gradient)], tf.constant(0.1))
        else:
            optimizer.apply([gradient], tf.constant(0.1))

    states = []
    for gradient in gradients:
        step(tf.constant(gradient, tf.float32))
        states.append([each.numpy() for each in optimizer.variables])
    return states


@pytest.mark.parametrize(
    ("recipe", "xla"),
    [(recipe, False) for recipe in RECIPES + NO_EPSILON] + [(RECIPES[2], True), (RECIPES[4], True)],
    ids=lambda value: {True: "XLA", False: "graph"}[value] if isinstance(value, bool) else value.optimizer,
)
def test_scaled_steps_equal_plain_steps_and_those_that_overflow_change_nothing(
    recipe: harness.Recipe, xla: bool
) -> None:
    rng = np.random.default_rng(0)
    gradients = [rng.standard_normal(3) for _ in range(20)]
    overflows = {0: [np.inf, 1, 1], 5: [np.nan, 1, 1], 6: [1, 1, -np.inf]}
    mixed = [overflows.get(number, gradient) for number, gradient in enumerate(gradients)]
    finite = [gradient for number, gradient in enumerate(gradients) if number not in overflows]
    scaled = trained(recipe, mixed, xla, scaled=True)
    plain = trained(recipe, finite, xla, scaled=False)
    kept = [state for number, state in enumerate(scaled) if number not in overflows]
    for got, expected in zip(kept, plain, strict=True):
        for mine, reference in zip(got, expected, strict=True):
            # XLA rounds differently, because it folds the constants of plain steps.
            np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-6 if xla else 0)
    for number in (5, 6):
        for mine, before in zip(scaled[number], scaled[number - 1], strict=True):
            np.testing.assert_array_equal(mine, before)


CONTROL_FLOW = {"If", "StatelessIf", "Switch", "RefSwitch", "Merge", "While", "StatelessWhile", "Case"}
"""Operators that read a condition on the host."""


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adamw"])
def test_every_step_at_fp16_follows_the_recipe_or_is_skipped_because_gradients_overflow(
    optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parity check replays steps from weights so large that the first gradients overflow."""
    import keras
    from harness_tensorflow import runtime

    from harness.checks.parity.replay import Replay
    from harness.testing.session_cases import weights_for

    cpu = harness.DeviceInfo(name="cpu", description="", precisions=("fp16",))
    monkeypatch.setattr(runtime, "devices", lambda: [cpu])
    recipe = harness.Recipe(optimizer=optimizer, momentum=0.9, weight_decay=0.1, clip_norm=1.0)
    sessions = [CASES.open("mlp", recipe=recipe, precision="fp16") for _ in range(2)]
    parameters = CASES.request("mlp").parameters
    start = {name: np.float32(16 if array.ndim > 1 else 1) * array for name, array in weights_for(parameters).items()}
    replay = Replay(sessions[0], sessions[1], start, recipe, parameters, "fp16")
    for _ in range(15):
        replay.step(CASES.batch("mlp"), 1e-3)
    keras.mixed_precision.set_global_policy("float32")
    arrays = replay.arrays()
    assert 1 <= arrays["skipped"][0] <= 10
    assert len(arrays["loss"]) + arrays["skipped"][0] == 15
    assert (arrays["error"] <= 1e-2 * arrays["size"] + arrays["rounding"]).all()


@pytest.fixture
def fp16_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[harness.Recipe], Any]:
    """Return a function that returns the graph of a training step in fp16, which the CPU reports as supported here."""
    import keras
    from harness_tensorflow import runtime

    cpu = harness.DeviceInfo(name="cpu", description="", precisions=("fp16",))
    monkeypatch.setattr(runtime, "devices", lambda: [cpu])

    def graph(recipe: harness.Recipe) -> Any:
        session = CASES.open("mlp", recipe=recipe, precision="fp16")
        losses = [session.fetch(session.train_step(CASES.batch("mlp"), 1e-2)) for _ in range(3)]
        assert losses[-1] < losses[0]
        (step,) = session._train_functions.values()
        keras.mixed_precision.set_global_policy("float32")
        return step.graph

    return graph


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.optimizer)
def test_fp16_steps_run_on_the_gpu_without_waiting_for_a_condition(
    recipe: harness.Recipe, fp16_step: Callable[[harness.Recipe], Any]
) -> None:
    """TensorFlow runs an operator without a GPU kernel on the CPU, which makes the host wait for its inputs."""
    import tensorflow as tf
    from tensorflow.python.framework import kernels

    operations = fp16_step(recipe).get_operations()
    assert not {operation.type for operation in operations} & CONTROL_FLOW
    if not tf.sysconfig.get_build_info()["is_cuda_build"]:
        return  # this TensorFlow has no GPU kernels
    missing = []
    for operation in operations:
        types = {
            name: operation.get_attr(name).as_datatype_enum
            for name in ("T", "dtype", "SrcT", "DstT")
            if name in operation.node_def.attr and operation.node_def.attr[name].type
        }
        registered = kernels.get_registered_kernels_for_op(operation.type).kernel
        fitting = [
            kernel
            for kernel in registered
            if kernel.device_type in ("GPU", "DEFAULT")
            and all(
                types.get(constraint.name) in (None, *constraint.allowed_values.list.type)
                for constraint in kernel.constraint
            )
        ]
        if not fitting:
            missing.append((operation.type, types))
    assert missing == []
