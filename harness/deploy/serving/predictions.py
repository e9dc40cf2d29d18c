"""The operation ``POST /predict``."""

from __future__ import annotations

from typing import Any

import msgspec

from harness.deploy.serving.batches import OverloadedError, Timed
from harness.deploy.serving.bodies import Bodies
from harness.deploy.serving.guard import Receive, Send, send_json
from harness.deploy.serving.process import ModelEndedError
from harness.deploy.serving.requests import RefusedError
from harness.deploy.serving.service import Service


class Predictions:
    """ASGI application that answers a request with a prediction for each example, in the same order.

    Starlette's request and response classes are not used, because they would double the processing time of a request
    with a single text.
    """

    def __init__(self, service: Service) -> None:
        self._batches = service.batches
        self._bodies = Bodies(service.description.kind, service.limits)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            async with self._bodies.part(scope, receive) as (part, examples):
                found = await self._batches.answer(part, examples)
        except RefusedError as error:
            problem = error
        except OverloadedError as error:
            problem = RefusedError(503, str(error), retry_after_s=error.retry_after_s)
        except ModelEndedError:
            detail = "the model failed while processing this request or another one; try again"
            problem = RefusedError(503, detail, retry_after_s=1)
        except TimeoutError:
            detail = "there was no answer within the time limit; send fewer examples, or try again later"
            problem = RefusedError(504, detail)
        else:
            await send_json(send, found.answer.status, found.answer.body, [(b"server-timing", _timing(found))])
            return
        await _send_problem(send, problem)


def _timing(found: Timed) -> bytes:
    """Return the durations, in milliseconds, in the format of the header ``Server-Timing`` (W3C)."""
    times = 1e3 * found.queue_s, 1e3 * found.prepare_s, 1e3 * found.compute_s
    return b"queue;dur=%.3f, prepare;dur=%.3f, model;dur=%.3f" % times


async def _send_problem(send: Send, problem: RefusedError) -> None:
    headers = []
    if problem.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % problem.retry_after_s))
    if problem.status in (408, 413, 503):
        headers.append((b"connection", b"close"))  # the body may not have been read
    body = {"detail": problem.detail, **({"errors": problem.errors} if problem.errors else {})}
    await send_json(send, problem.status, msgspec.json.encode(body), headers)
