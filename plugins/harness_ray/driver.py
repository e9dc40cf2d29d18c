"""The client of a supervisor. The client starts or finds the supervisor, and passes the supervisor's reports to the
coordinator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import ray

import harness
from harness import Attempt, Coordinator, Event, Failure, PlannedRun, PluginRef, RunRecord, SubmissionState, TrialPruned
from harness_ray import cluster
from harness_ray.attempts import News, Update
from harness_ray.node import CHUNK_BYTES, RESULT
from harness_ray.placement import Node
from harness_ray.supervisor import Supervisor

WAIT_S = 1.0
"""Maximum duration of one request for new reports, in seconds."""
ANSWER_S = 120.0
"""Time limit for a response from the supervisor, in seconds. The limit includes the time that Ray takes to start or
restart the supervisor's process."""
HEAD = "node:__internal_head__"
"""Ray resource that identifies the head node. The supervisor runs on the head node, because the cluster cannot continue
if that node fails.
"""


def start(
    name: str,
    runs: Sequence[PlannedRun],
    describe: Callable[[Sequence[PluginRef], Sequence[str]], list[Node]],
    *,
    detached: bool,
    lost_after_s: float,
    node_timeout_s: float,
) -> Any:
    """Start a supervisor for the runs, and return the actor's handle.

    `describe` returns the nodes that can execute runs with the given plugins and packages. Raises `harness.UsageError`
    if one of the runs cannot be executed on any of these nodes.
    """
    plugins = list({ref for run in runs for ref in run.plugins})
    packages = sorted({package for run in runs for package in run.packages})
    nodes = describe(plugins, packages)
    for run in runs:
        spec = run.spec
        if spec.device.startswith("cuda:"):
            raise harness.UsageError(
                f"{spec.title}: Ray assigns a GPU to each run; replace --device {spec.device} with --device cuda"
            )
        if not any(node.fits(spec) for node in nodes):
            most = max((node.cpus for node in nodes if node.gpus or not spec.device.startswith("cuda")), default=0)
            advice = f"pass at most --threads {most:g}" if most >= 1 else "add nodes with GPUs to the cluster"
            raise harness.UsageError(f"{spec.title}: no node of the Ray cluster can execute this run; {advice}")
    here = harness.describe_machine((*plugins, cluster.OWN), packages)
    actor = ray.remote(Supervisor).options(
        name=name,
        namespace=cluster.NAMESPACE,
        lifetime="detached" if detached else None,
        num_cpus=0,
        resources={HEAD: 0.001},
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=32,
    )
    supervisor = actor.remote(name, list(runs), here, nodes, lost_after_s, node_timeout_s)
    _call(supervisor.news.remote({}, 0, [], 0.0))
    return supervisor


def find(address: str, name: str) -> Any | None:
    """Return the handle of a supervisor, or None if it does not exist."""
    cluster.connect(address)
    try:
        return ray.get_actor(name, namespace=cluster.NAMESPACE)
    except ValueError:
        return None


def end(supervisor: Any) -> None:
    """Stop a supervisor and its runs, and discard results that have not been collected."""
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(supervisor.close.remote(), timeout=10.0)
    ray.kill(supervisor, no_restart=True)


def follow(
    supervisor: Any, runs: Sequence[PlannedRun], coordinator: Coordinator, *, wait: bool, detached: bool = False
) -> SubmissionState:
    """Report attempts, events and results to the coordinator until all runs are finished. If `wait` is false, stop as
    soon as all available results have been collected."""
    by_index = {run.index: run for run in runs}
    attempts: dict[str, Attempt] = {}
    seen: dict[str, int] = {}
    messages = 0
    collected: list[str] = []
    stopped: Exception | None = None
    while True:
        news: News = _call(supervisor.news.remote(seen, messages, collected, WAIT_S if wait else 0.0))
        collected, lost = [], False
        messages += len(news.messages)
        for text in news.messages:
            coordinator.message(text)
        for update in news.updates:
            if not wait and update.files is None:
                continue
            if update.attempt not in attempts:
                try:
                    if stopped is not None:
                        raise stopped
                    attempts[update.attempt] = coordinator.start(by_index[update.index])
                except Exception as error:  # for example, the time budget is used up
                    if detached:  # the runs continue, and their results can be collected later
                        raise
                    stopped = error
                    _call(supervisor.withdraw.remote(list(attempts)))
                    continue
                seen[update.attempt] = 0
            attempt = attempts[update.attempt]
            for event in update.events:
                try:
                    coordinator.event(attempt.id, msgspec.json.decode(event, type=Event))
                except TrialPruned:
                    _call(supervisor.prune.remote(update.attempt))
            seen[update.attempt] += len(update.events)
            if update.files is not None:
                try:
                    result = _fetch(supervisor, update, attempt.directory)
                except _LostError:
                    lost = True
                    continue
                coordinator.finish(attempt.id, result)
                collected.append(update.attempt)
        state = SubmissionState(running=tuple(news.running), waiting=tuple(news.waiting))
        if not collected and not lost and (state.finished or not wait):
            if stopped is not None:
                raise stopped
            return state


def _fetch(supervisor: Any, update: Update, directory: Path) -> RunRecord | Failure:
    """Copy the files of a finished attempt to the coordinator's directory, and return the result."""
    content = b""
    for name, size in (update.files or {}).items():
        if name == RESULT:
            content = b"".join(_chunks(supervisor, update.attempt, name, size))
            continue
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in _chunks(supervisor, update.attempt, name, size):
                file.write(chunk)
    kind: Mapping[str, Any] = msgspec.json.decode(content)
    if kind.get("type") == "failure":
        return msgspec.json.decode(content, type=Failure)
    return msgspec.json.decode(content, type=RunRecord)


class _LostError(Exception):
    """Exception raised if the supervisor no longer has the files of an attempt."""


def _chunks(supervisor: Any, attempt: str, name: str, size: int) -> Iterator[bytes]:
    for offset in range(0, size, CHUNK_BYTES):
        chunk = _call(supervisor.read.remote(attempt, name, offset, CHUNK_BYTES))
        if chunk is None:
            raise _LostError
        yield chunk


def _call(answer: Any) -> Any:
    """Return the supervisor's response. Raises `harness.UsageError` if the supervisor cannot be reached."""
    try:
        return ray.get(answer, timeout=ANSWER_S)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = lines[-1] if any(line.startswith("File ") for line in lines) else lines[0]  # skip the traceback
        raise harness.UsageError(f"the supervisor in the Ray cluster does not respond: {reason}") from None
