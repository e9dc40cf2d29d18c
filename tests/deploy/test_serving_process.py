"""Tests of the start and the end of the model's process, with processes that cannot be started."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from harness.deploy.serving import process, server
from harness.deploy.serving.process import ModelEndedError, ModelProcess


class Job(msgspec.Struct):
    """The part of a job that is used before the process starts."""

    model: Any
    connection: int = -1


def test_process_that_cannot_be_started_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    async def main() -> list[str]:
        changes: list[str] = []
        made = ModelProcess(Job(SimpleNamespace(spec=SimpleNamespace(env=None))), lambda: changes.append("changed"))  # type: ignore[arg-type]
        with pytest.raises(ModelEndedError, match="the model process ended: no space left on device"):
            await asyncio.wait_for(made.start(), 10)
        await made.stop()
        return changes

    monkeypatch.setattr(process, "call_in_child", failing)
    monkeypatch.setattr(process, "child_environment", lambda spec: {})
    monkeypatch.setattr(process, "interpreter", lambda env: None)
    assert asyncio.run(main()) == ["changed"]


def test_signal_while_the_model_loads_stops_the_loading() -> None:
    class Slow:
        """A service whose model never loads."""

        cancelled = False

        async def start(self) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled = True
                raise

    async def main() -> tuple[bool, bool]:
        service, stopping = Slow(), SimpleNamespace(should_exit=False)
        asyncio.get_running_loop().call_later(0.05, setattr, stopping, "should_exit", True)
        return await server._loaded(service, stopping), service.cancelled  # type: ignore[arg-type]

    assert asyncio.run(main()) == (False, True)
