"""A session that computes nothing, for tests that override the methods they call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import Batch, Session


class IdleSession(Session):
    def set_weights(self, weights: Mapping[str, Any]) -> None: ...

    def get_weights(self) -> dict[str, Any]:
        return {}

    def train_step(self, batch: Batch, learning_rate: float) -> Any: ...

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Any]]:
        return 0.0, {}

    def predict(self, inputs: Mapping[str, Any]) -> Any: ...

    def fetch(self, handle: Any) -> Any:
        return handle

    def synchronize(self) -> None: ...
