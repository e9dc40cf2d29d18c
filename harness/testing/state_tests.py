"""Tests for `Session.state` and `Session.set_state`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np
import pytest

from harness.errors import PluginError
from harness.execute.training_options import with_frozen
from harness.interfaces import Session
from harness.records import Recipe
from harness.testing.session_cases import SessionCases, losses, weights_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class StateTests:
    """Tests for checkpoints, inherited by `SessionSuite`. The tests are skipped unless `Backend.checkpoints` is
    True."""

    cases: ClassVar[SessionCases]
    plain: ClassVar[str]

    @pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw", "adagrad", "lion", "lamb"])
    def test_state_restores_the_optimizer_exactly(self, optimizer: str) -> None:
        recipe = msgspec.convert({"optimizer": optimizer, "momentum": 0.9, "weight_decay": 0.1}, Recipe)
        self.check_state(self.plain, {"recipe": recipe})

    def test_state_restores_every_model_with_dropout_and_moving_average(self, case: str) -> None:
        options = self.cases.backend.recipe_options
        changes: dict[str, Any] = {"dropout": 0.5} if self.cases.model(case)[0].has_dropout else {}
        changes |= {"ema_decay": 0.5} if "ema_decay" in options else {}
        changes |= {"accumulation_steps": 2} if "accumulation_steps" in options else {}
        self.check_state(case, {"recipe": Recipe(optimizer="adamw", **changes)}, average="ema_decay" in options)

    def test_state_includes_frozen_parameters(self) -> None:
        if "frozen" not in self.cases.backend.recipe_options:
            pytest.skip("the backend does not implement frozen parameters")
        declared = self.cases.request(self.plain).parameters
        frozen = frozenset(each.name for each in declared[:2])
        parameters = with_frozen(declared, frozen)
        self.check_state(self.plain, {"recipe": Recipe(), "parameters": parameters, "frozen": frozen})

    def test_state_of_another_session_raises(self) -> None:
        self.supports_checkpoints()
        session = self.cases.open(self.plain)
        state = session.state()
        name = next(iter(state))
        for wrong in (
            {key: array for key, array in state.items() if key != name},
            state | {"other": np.zeros(3)},
            state | {name: np.zeros((3, 1, 2), np.float32)},
        ):
            with pytest.raises(PluginError, match=r"other|" + re.escape(name)):
                session.set_state(wrong)

    def supports_checkpoints(self) -> None:
        """Skip the test if the backend does not support checkpoints."""
        if not self.cases.backend.checkpoints:
            pytest.skip("the backend does not support checkpoints")

    def check_state(self, case: str, changes: dict[str, Any], *, average: bool = False) -> None:
        """Check that a session with different weights takes the same further steps as the original session after a call
        to `set_state`."""
        self.supports_checkpoints()
        batch = self.cases.batch(case)

        def steps(session: Session, rates: Sequence[float]) -> list[float]:
            curve = []
            for rate in rates:
                curve += losses(session, batch, [rate])
                if average:
                    session.update_average(0.5)
            return curve

        def weights(session: Session) -> dict[str, Array]:
            with session.averaged() if average else nullcontext():
                averaged = session.get_weights()
            return {f"average of {name}": array for name, array in averaged.items()} | session.get_weights()

        first = self.cases.open(case, **changes)
        steps(first, [1e-2, 2e-2])
        state = first.state()
        expected = steps(first, [1e-2, 3e-2])
        second = self.cases.open(case, **changes)
        second.set_weights(weights_for(self.cases.request(case).parameters, seed=4))
        second.set_state(state)
        assert steps(second, [1e-2, 3e-2]) == expected
        for name, array in weights(first).items():
            np.testing.assert_array_equal(weights(second)[name], array, err_msg=name)
