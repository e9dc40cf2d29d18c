"""Tests for the recipe options that a backend lists in `Backend.recipe_options`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np
import pytest

from harness.execute.training_options import rate_factors, with_frozen
from harness.interfaces import Batch, BuildNetwork, Parameter, Session
from harness.records import IGNORED, DataInfo, InputSpec, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.testing.session_cases import SessionCases

POSITIONS = DataInfo(
    kind="positions",
    inputs={"features": InputSpec(shape=(3, 2), dtype="float32")},
    objective="token_classification",
    outputs=4,
)
"""Data for the network built by `SessionSuite.positions`."""
WEIGHTS = (0.5, 2.0, 1.0, 3.0, 0.25)
DECAYED = {"weight_decay": 0.1, "decoupled_decay": True}
IGNORED_OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "adagrad": ({"optimizer": "adagrad", "epsilon": 1e-3}, {"optimizer": "rmsprop"}),
    "lion": ({"optimizer": "lion", "beta2": 0.99}, {"beta2": 0.9}),
    "lamb": ({"optimizer": "lamb", "epsilon": 1e-3, "weight_decay": 0.1}, {"optimizer": "adamw"}),
    "l1": ({"optimizer": "sgd", "l1": 0.01}, {"l1": 0.0}),
    "decoupled_decay": ({"optimizer": "sgd", "momentum": 0.9, **DECAYED}, {"decoupled_decay": False}),
    "class_weights": ({"optimizer": "sgd"}, {}),
    "layer_decay": ({"optimizer": "adam", "epsilon": 1e-3, "layer_decay": 0.5}, {}),
    "distillation_alpha": (
        {"optimizer": "sgd", "distillation_alpha": 0.5, "distillation_temperature": 3.0},
        {"distillation_alpha": 0.0},
    ),
}
"""For each option, a recipe that uses the option, and changes to the recipe. With these changes, the recipe behaves as
if the option were ignored."""


class OptionTests:
    """Tests for recipe options, inherited by `SessionSuite`."""

    cases: ClassVar[SessionCases]
    plain: ClassVar[str]
    positions: ClassVar[BuildNetwork | None]

    def implements(self, option: str) -> None:
        """Skip the test if the backend does not list the option."""
        if option not in self.cases.backend.recipe_options:
            pytest.skip(f"the backend does not implement {option}")

    def test_accumulated_gradients_are_those_of_the_batch(self) -> None:
        """With six examples in four parts, the parts have unequal sizes, so the mean of the parts' means would be
        incorrect."""
        self.implements("accumulation_steps")
        batch = self.cases.batch(self.plain)
        whole, accumulated = (
            self.cases.open(self.plain, recipe=Recipe(optimizer="sgd", accumulation_steps=count)).gradients(batch)
            for count in (1, 4)
        )
        assert accumulated[0] == pytest.approx(whole[0], rel=1e-6)
        for name, gradient in whole[1].items():
            np.testing.assert_allclose(accumulated[1][name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)

    def test_accumulated_gradients_of_positions_are_those_of_the_batch(self) -> None:
        self.implements("accumulation_steps")
        whole, accumulated = (
            self.open_positions(recipe=Recipe(optimizer="sgd", accumulation_steps=count)).gradients(POSITIONS_BATCH)
            for count in (1, 2)
        )
        assert accumulated[0] == pytest.approx(whole[0], rel=1e-6)
        np.testing.assert_allclose(accumulated[1]["bias"], whole[1]["bias"], atol=1e-6)

    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_losses_are_multiplied_by_the_weights_of_their_classes(self, smoothing: float) -> None:
        self.implements("class_weights")
        batch, recipe = self.cases.batch(self.plain), Recipe(optimizer="sgd", label_smoothing=smoothing)
        single = self.cases.open(self.plain, recipe=recipe)
        losses = [
            single.gradients(Batch({name: a[i : i + 1] for name, a in batch.inputs.items()}, batch.targets[i : i + 1]))
            for i in range(len(batch.targets))
        ]
        weights = np.array(WEIGHTS)[batch.targets]
        session = self.cases.open(self.plain, recipe=recipe, class_weights=WEIGHTS)
        loss, gradients = session.gradients(batch)
        assert loss == pytest.approx(float(np.mean(weights * [each for each, _ in losses])), rel=1e-5)
        for name, gradient in gradients.items():
            expected = np.mean([w * each[name] for w, (_, each) in zip(weights, losses, strict=True)], axis=0)
            np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6, err_msg=name)

    @pytest.mark.parametrize("option", ["plain", "class_weights", "accumulation_steps"])
    def test_losses_are_multiplied_by_the_weights_of_their_examples(self, option: str) -> None:
        if not self.cases.backend.example_weights:
            pytest.skip("the backend does not support example weights")
        recipe, changes = Recipe(optimizer="sgd"), {}
        if option != "plain":
            self.implements(option)
            recipe = Recipe(optimizer="sgd", accumulation_steps=4 if option == "accumulation_steps" else 1)
            changes = {"class_weights": WEIGHTS} if option == "class_weights" else {}
        batch = self.cases.batch(self.plain)
        weights = np.linspace(0, 2, len(batch.targets)).astype(np.float32)
        single = self.cases.open(self.plain, recipe=Recipe(optimizer="sgd"), **changes)
        losses = [
            single.gradients(Batch({name: a[i : i + 1] for name, a in batch.inputs.items()}, batch.targets[i : i + 1]))
            for i in range(len(batch.targets))
        ]
        session = self.cases.open(self.plain, recipe=recipe, **changes)
        loss, gradients = session.gradients(batch._replace(example_weights=weights))
        assert loss == pytest.approx(float(np.mean(weights * [each for each, _ in losses])), rel=1e-5)
        for name, gradient in gradients.items():
            expected = np.mean([w * each[name] for w, (_, each) in zip(weights, losses, strict=True)], axis=0)
            np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6, err_msg=name)
        assert session.gradients(batch)[0] == pytest.approx(float(np.mean([each for each, _ in losses])), rel=1e-5)

    def test_losses_of_positions_are_multiplied_by_the_weights_of_their_examples(self) -> None:
        if not self.cases.backend.example_weights:
            pytest.skip("the backend does not support example weights")
        session = self.open_positions()
        alone = [
            session.gradients(Batch({"features": POSITIONS_BATCH.inputs["features"][i : i + 1]}, rows))[0]
            for i, rows in enumerate(POSITIONS_BATCH.targets[:, None])
        ]
        weighted = session.gradients(POSITIONS_BATCH._replace(example_weights=np.array([0.5, 3.0], np.float32)))
        assert weighted[0] == pytest.approx((3 * 0.5 * alone[0] + 1 * 3.0 * alone[1]) / 4, rel=1e-5)

    def test_losses_of_positions_are_multiplied_by_the_weights_of_their_classes(self) -> None:
        self.implements("class_weights")
        plain, weighted = self.open_positions(), self.open_positions(class_weights=WEIGHTS[:4])
        targets = POSITIONS_BATCH.targets
        counted = targets != IGNORED
        losses = []
        for row, column in zip(*np.nonzero(counted), strict=True):
            alone = np.full_like(targets, IGNORED)
            alone[row, column] = targets[row, column]
            losses.append(WEIGHTS[targets[row, column]] * plain.gradients(Batch(POSITIONS_BATCH.inputs, alone))[0])
        assert weighted.gradients(POSITIONS_BATCH)[0] == pytest.approx(float(np.mean(losses)), rel=1e-5)

    @pytest.mark.parametrize(("alpha", "parts"), [(1.0, 1), (0.3, 1), (0.3, 4)])
    def test_soft_targets_are_added_to_the_true_classes(self, alpha: float, parts: int) -> None:
        """Without the factor T^2, the gradients from the soft targets would vanish at a high temperature T."""
        self.implements("distillation_alpha")
        options = {"class_weights": WEIGHTS, "label_smoothing": 0.2} if alpha < 1 else {}
        weights = {name: options.pop(name) for name in ("class_weights",) if name in options}
        recipe = Recipe(optimizer="sgd", accumulation_steps=parts, **options)  # type: ignore[arg-type]
        changes = {"distillation_alpha": alpha, "distillation_temperature": 4.0}
        taught = msgspec.structs.replace(recipe, **changes)
        batch = self.cases.batch(self.plain)
        hard_loss, hard = self.cases.open(self.plain, recipe=recipe, **weights).gradients(batch)
        session = self.cases.open(self.plain, recipe=taught, **weights)
        loss, gradients = session.gradients(batch)
        outputs = session.fetch(session.predict(batch.inputs))
        assert batch.teacher_logits is not None
        soft_loss = 16 * _divergence(batch.teacher_logits / 4, outputs / 4).mean()
        assert loss == pytest.approx((1 - alpha) * hard_loss + alpha * float(soft_loss), rel=1e-5)
        only = self.cases.open(self.plain, recipe=Recipe(optimizer="sgd", **(changes | {"distillation_alpha": 1.0})))  # type: ignore[arg-type]
        _, soft = only.gradients(batch)
        for name, gradient in gradients.items():
            expected = (1 - alpha) * hard[name] + alpha * soft[name]
            np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6, err_msg=name)

    def test_soft_targets_of_ignored_positions_are_excluded(self) -> None:
        self.implements("distillation_alpha")
        rng, batch = np.random.default_rng(1), POSITIONS_BATCH
        logits = rng.standard_normal((*batch.targets.shape, POSITIONS.outputs)).astype(np.float32)
        recipe = Recipe(optimizer="sgd", distillation_alpha=1.0, distillation_temperature=2.0)
        session = self.open_positions(recipe=recipe)
        loss, _ = session.gradients(batch._replace(teacher_logits=logits))
        outputs = session.fetch(session.predict(batch.inputs))
        expected = 4 * _divergence(logits / 2, outputs / 2)[batch.targets != IGNORED].mean()
        assert loss == pytest.approx(float(expected), rel=1e-5)

    def test_moving_average_is_used_in_its_context_only(self) -> None:
        """The decay is 0.5. After three updates, the averaging weights are 1/7, 2/7 and 4/7."""
        self.implements("ema_decay")
        session = self.cases.open(self.plain, recipe=Recipe(optimizer="adam", ema_decay=0.5))
        other = self.cases.open(self.plain, recipe=Recipe(optimizer="adam"))
        batch, history = self.cases.batch(self.plain), []
        for number, weight in enumerate((1.0, 2 / 3, 4 / 7, None)):
            for each in (session, other):
                each.train_step(batch, 0.05)
            if weight is not None:
                session.update_average(weight)
                history.append(session.get_weights())
            if number == 2:
                with session.averaged():
                    average = session.get_weights()
                    outputs = session.fetch(session.predict(batch.inputs)).copy()
        for name, array in other.get_weights().items():
            np.testing.assert_array_equal(session.get_weights()[name], array, err_msg=name)
            expected = sum(w * each[name] for w, each in zip((1 / 7, 2 / 7, 4 / 7), history, strict=True))
            np.testing.assert_allclose(average[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
        other.set_weights(average)
        np.testing.assert_allclose(outputs, other.fetch(other.predict(batch.inputs)), rtol=1e-5, atol=1e-6)
        session.set_weights(average)
        session.train_step(batch, 0.05)
        session.update_average(1.0)
        with session.averaged():
            restarted = session.get_weights()
        for name, array in session.get_weights().items():
            np.testing.assert_allclose(restarted[name], array, rtol=1e-6, err_msg=name)

    def test_frozen_parameters_do_not_change(self) -> None:
        self.implements("frozen")
        declared = self.cases.request(self.plain).parameters
        frozen = frozenset(each.name for each in declared[:2])
        recipe, batch = Recipe(optimizer="adamw", weight_decay=0.1), self.cases.batch(self.plain)
        session = self.cases.open(self.plain, recipe=recipe, parameters=with_frozen(declared, frozen), frozen=frozen)
        start = session.get_weights()
        _, gradients = session.gradients(batch)
        _, expected = self.cases.open(self.plain, recipe=recipe).gradients(batch)
        assert set(gradients) == set(expected) - frozen
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
        session.train_step(batch, 0.1)
        for name, array in session.get_weights().items():
            assert np.array_equal(array, start[name]) == (name in frozen), name

    @pytest.mark.parametrize("option", IGNORED_OPTIONS)
    def test_replay_finds_a_session_that_ignores_the_option(self, option: str) -> None:
        """The parity check detects a backend that trains without the option."""
        from harness.checks.parity.replay import Replay

        self.implements(option)
        values, changes = IGNORED_OPTIONS[option]
        recipe, parameters = Recipe(**values), self.cases.request(self.plain).parameters
        factors = rate_factors(recipe, parameters)
        right = {"recipe": recipe, "rate_factors": factors}
        if option == "class_weights":
            right["class_weights"] = WEIGHTS
        probe = self.cases.open(self.plain, **right)
        wrong = self.cases.open(self.plain, recipe=Recipe(**{**values, **changes}))
        batch = self.cases.batch(self.plain)

        def error(trained: Session) -> float:
            replay = Replay(trained, probe, probe.get_weights(), recipe, parameters, "fp32", factors)
            for rate in (0.1, 0.05, 0.08):
                replay.step(batch, rate)
            arrays = replay.arrays()
            return float((arrays["error"] / (arrays["size"] + 1e4 * arrays["rounding"])).max())

        assert error(wrong) > 1e-3
        assert error(self.cases.open(self.plain, **right)) < 1e-4

    def open_positions(self, **changes: Any) -> Session:
        """Open a session with the token-classification network. Skip the test if the suite does not define this
        network."""
        if self.positions is None:
            pytest.skip("the suite does not define a network for token classification")
        parameters = (Parameter(name="weight", shape=(4, 2), init="normal"), Parameter(name="bias", shape=(4,)))
        values = {"recipe": Recipe(optimizer="sgd"), "info": POSITIONS, "parameters": parameters, **changes}
        return self.cases.open(self.plain, build=self.positions, **values)


def _divergence(teacher: NDArray[Any], student: NDArray[Any]) -> NDArray[Any]:
    """Return the Kullback-Leibler divergence KL(softmax(teacher) || softmax(student)) over the last axis."""
    wanted, own = (
        logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        for logits in (teacher.astype(np.float64), student.astype(np.float64))
    )
    divergence: NDArray[Any] = (np.exp(wanted) * (wanted - own)).sum(axis=-1)
    return divergence


POSITIONS_BATCH = Batch(
    {"features": np.random.default_rng(0).standard_normal((2, 3, 2)).astype(np.float32)},
    np.array([[3, 0, 1], [2, IGNORED, IGNORED]]),
)
