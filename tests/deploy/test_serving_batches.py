"""Tests of the collection of requests into batches, with a model that answers when it is asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from harness.deploy.serving.batches import MAX_IN_FLIGHT, Batches, OverloadedError
from harness.deploy.serving.frames import Answer, Done, Part, Work
from harness.deploy.serving.limits import Limits


def encoded(*instances: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(Part(instances=[*instances])))


def instances(part: msgspec.Raw) -> list[Any]:
    return msgspec.msgpack.decode(part, type=Part).instances


class Model:
    """A channel whose batches are answered by `answer_next`."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []
        self.is_open = True
        self._open: list[tuple[Work, asyncio.Future[Done]]] = []

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def send(self, work: Work) -> asyncio.Future[Done]:
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._open.append((work, future))
        self.sent.append([instances(part) for part in work.parts])
        return future

    def answer_next(self) -> None:
        work, future = self._open.pop(0)
        answers = [Answer(200, repr(instances(part)).encode(), len(instances(part))) for part in work.parts]
        future.set_result(Done(answers, 0.001, 0.002))

    def refuse_next(self) -> None:
        work, future = self._open.pop(0)
        future.set_result(Done([Answer(422, b"") for _ in work.parts], 0.001, 0.002))

    def fail_next(self, error: Exception) -> None:
        self._open.pop(0)[1].set_exception(error)


Scenario = Callable[[Model, Batches], Awaitable[None]]


def run(scenario: Scenario, **limits: Any) -> None:
    async def main() -> None:
        model = Model()
        await scenario(model, Batches(model, Limits(**{"batch_size": 4, "waiting_examples": 6} | limits)))

    asyncio.run(main())


def ask(batches: Batches, *instances: str) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(batches.answer(encoded(*instances), len(instances)))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_requests_wait_only_while_the_model_is_busy() -> None:
    async def scenario(model: Model, batches: Batches) -> None:
        tasks = [ask(batches, name) for name in "abcdefg"]
        await settle()
        assert model.sent == [[["a"]], [["b"], ["c"], ["d"], ["e"]]]  # the second batch is full
        model.answer_next()
        batches.pump()
        assert len(model.sent) == MAX_IN_FLIGHT  # the next batch is not full, and the model is busy
        model.answer_next()
        batches.pump()
        assert model.sent[2:] == [[["f"], ["g"]]]
        model.answer_next()
        answers = [(await task).answer.body for task in tasks]
        assert answers == [repr([name]).encode() for name in "abcdefg"]
        assert batches.waiting_examples == 0

    run(scenario)


def test_batches_do_not_exceed_the_limit_unless_one_request_does() -> None:
    async def scenario(model: Model, batches: Batches) -> None:
        tasks = [ask(batches, "a"), ask(batches, "b"), ask(batches, *"12345"), ask(batches, "c")]
        await settle()
        model.answer_next()
        batches.pump()
        assert model.sent[2] == [[*"12345"]]
        for _ in range(2):
            model.answer_next()
            batches.pump()
        model.answer_next()
        assert model.sent[3] == [["c"]]
        await asyncio.gather(*tasks)

    run(scenario)


def test_request_beyond_the_limit_of_waiting_examples_is_refused() -> None:
    async def scenario(model: Model, batches: Batches) -> None:
        tasks = [ask(batches, "a"), ask(batches, *"1234"), ask(batches, *"123456")]
        await settle()
        with pytest.raises(OverloadedError) as raised:
            await batches.answer(encoded("c"), 1)
        assert raised.value.retry_after_s >= 1
        model.answer_next()
        batches.pump()  # the waiting request is sent, so others can wait
        tasks.append(ask(batches, "d"))
        await settle()
        assert batches.waiting_examples == 1
        for _ in range(3):
            model.answer_next()
            batches.pump()
        await asyncio.gather(*tasks)

    run(scenario)


def test_refused_requests_do_not_change_the_estimated_time() -> None:
    async def scenario(model: Model, batches: Batches) -> None:
        for number in range(300):
            task = ask(batches, "a")
            await settle()
            if number:
                model.refuse_next()
            else:
                model.answer_next()
            await task
        tasks = [ask(batches, *"1234") for _ in range(3)]
        await settle()
        with pytest.raises(OverloadedError) as raised:
            await batches.answer(encoded(*"1234"), 4)
        assert raised.value.retry_after_s < 10
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert batches.waiting_examples == 0

    run(scenario)


def test_request_that_waits_too_long_is_not_computed() -> None:
    async def scenario(model: Model, batches: Batches) -> None:
        tasks = [ask(batches, name) for name in "abc"]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in found] == [TimeoutError] * 3
        assert batches.waiting_examples == 0  # also before the model accepts another batch
        model.answer_next()
        batches.pump()
        assert model.sent == [[["a"]]]

    run(scenario, answer_s=0.01)


def test_failure_of_the_model_reaches_the_requests_of_its_batch_only() -> None:
    async def scenario(model: Model, batches: Batches) -> None:
        tasks = [ask(batches, "a"), ask(batches, *"1234")]
        await settle()
        model.fail_next(ValueError("the model ended"))
        model.answer_next()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[0], ValueError)
        assert found[1].answer.status == 200

    run(scenario)


def test_requests_wait_while_the_model_is_started_again() -> None:
    async def scenario(model: Model, batches: Batches) -> None:
        model.is_open = False
        task = ask(batches, "a")
        await settle()
        assert model.sent == []
        model.is_open = True
        batches.pump()
        model.answer_next()
        assert (await task).answer.status == 200

    run(scenario)
