"""Tests of the start and the end of the model's process, with processes that cannot be started or do not answer."""

from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from harness.deploy.serving import process, server
from harness.deploy.serving.frames import Answer, Done, Part, Ready, Work, framed, received
from harness.deploy.serving.limits import Limits
from harness.deploy.serving.model import Stopped
from harness.deploy.serving.process import ModelEndedError, ModelProcess
from harness.deploy.serving.service import Description, Service
from harness.records import Failure


class Job(msgspec.Struct):
    """The part of a job that is used before the process starts."""

    model: Any
    connection: int = -1
    limits: Limits = Limits()


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


def service(limits: Limits) -> Service:
    job = Job(SimpleNamespace(spec=SimpleNamespace(env=None)), limits=limits)
    described = Description(
        run="a", task="", kind="text", objective="", outputs=(), backend="", model="", device="", threads=1,
        batch_size=1, max_examples=1,
    )  # fmt: skip
    return Service(job, described)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ends", "problem"), [(False, "the model was not loaded within 0.2 s"), (True, "ended: killed by SIGKILL")]
)
def test_model_that_does_not_load_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch, ends: bool, problem: str
) -> None:
    started = []

    def loading(function: Any, job: Any, **_: Any) -> Stopped | Failure:
        started.append(job)
        with socket.socket(fileno=os.dup(job.connection)) as connection:
            if not ends:
                connection.recv(1)  # wait until the other end is closed
        return Failure(kind="crash", phase="", message="killed by SIGKILL")

    async def main() -> None:
        running = service(Limits(load_s=60 if ends else 0.2))
        with pytest.raises(ModelEndedError, match=problem):
            await running.start()
        await asyncio.sleep(0.1)
        await running.stop()

    monkeypatch.setattr(process, "call_in_child", loading)
    monkeypatch.setattr(process, "child_environment", lambda spec: {})
    monkeypatch.setattr(process, "interpreter", lambda env: None)
    asyncio.run(asyncio.wait_for(main(), 20))
    assert len(started) == 1


class Models:
    """Replacement for `call_in_child`. The first model receives batches, but never answers them. If it `ends`, it ends
    with a failure instead of waiting.
    """

    def __init__(self, *, ends: bool) -> None:
        self.ends, self.started = ends, 0

    def __call__(self, function: Any, job: Any, **_: Any) -> Stopped | Failure:
        self.started += 1
        hangs = self.started == 1
        with socket.socket(fileno=os.dup(job.connection)) as connection:
            connection.sendall(framed(Ready("cpu", os.getpid())))
            for content in received(connection):
                work = msgspec.msgpack.decode(content, type=Work)
                if hangs and self.ends:
                    return Failure(kind="crash", phase="", message="killed by SIGKILL")
                if not hangs:
                    connection.sendall(framed(Done([Answer(200, b"{}", 1) for _ in work.parts], 0.0, 0.0)))
        return Stopped(answers=0)


@pytest.mark.parametrize(("ends", "problem"), [(False, "did not answer for 0.5 s"), (True, "ended: killed by SIGKILL")])
def test_process_that_does_not_answer_is_started_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ends: bool, problem: str
) -> None:
    models = Models(ends=ends)

    async def main() -> list[Any]:
        running = service(Limits(batch_s=60 if ends else 0.5))
        await running.start()
        try:
            part = msgspec.Raw(msgspec.msgpack.encode(Part(instances=["a"])))
            first = await asyncio.gather(running.batches.answer(part, 1), return_exceptions=True)
            second = await running.batches.answer(part, 1)
            await asyncio.sleep(0.7)  # an idle process is not stopped
            return [*map(type, first), second.answer.status, running.is_ready]
        finally:
            await running.stop()

    monkeypatch.setattr(process, "call_in_child", models)
    monkeypatch.setattr(process, "child_environment", lambda spec: {})
    monkeypatch.setattr(process, "interpreter", lambda env: None)
    assert asyncio.run(asyncio.wait_for(main(), 20)) == [ModelEndedError, 200, True]
    assert models.started == 2
    assert capsys.readouterr().err.count(f"the model process {problem}; it will be restarted") == 1
