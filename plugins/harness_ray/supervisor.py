"""The supervisor, a Ray actor on the head node that executes the runs of one command and keeps their results."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any

import msgspec
import ray

from harness import Environment, Failure, Machine, PlannedRun
from harness_ray import cluster, placement
from harness_ray.attempts import News, Running, Update
from harness_ray.node import RESULT, execute
from harness_ray.placement import Group, Node
from harness_ray.spool import Spool

MAX_ATTEMPTS = 5
"""Number of lost attempts after which a run fails."""
NODES_S = 2.0
"""Interval between queries for the list of nodes, in seconds."""
MAX_EVENTS = 20_000
"""Maximum number of events kept per attempt. Later events are dropped."""
REMOVED = "its files were removed from the head node"


class Supervisor:
    """An actor that executes runs on the nodes of the cluster.

    If the actor's process is killed, Ray restarts it on the head node. The new process continues with the unfinished
    runs. The results are not lost, because they are stored on disk in the spool directory. Ray cancels the tasks of the
    killed process.
    """

    def __init__(
        self,
        name: str,
        runs: Sequence[PlannedRun],
        here: Machine,
        nodes: Sequence[Node],
        lost_after_s: float,
        node_timeout_s: float,
        *,
        active: bool = True,
    ):
        """Create a supervisor. If `active` is false, no runs are executed."""
        self._here, self._lost_after_s, self._node_timeout_s = here, lost_after_s, node_timeout_s
        self._plugins = list({ref for run in runs for ref in run.plugins})
        self._packages = sorted({package for run in runs for package in run.packages})
        self._spool = Spool(name, str(ray.get_runtime_context().gcs_address))
        if active:
            self._spool.remove_orphans({name, *cluster.supervisors()})
        self._changed = threading.Condition()
        self._closed = False
        self._all = tuple(runs)
        self._attempts: dict[str, Running] = {}
        self._tasks: dict[Any, str] = {}
        """Attempt executed by each Ray task. The keys are the references to the tasks' results."""
        self._losses: dict[int, list[str]] = {}
        """Nodes on which attempts of a run were lost, by run index."""
        self._nodes = {node.id: node for node in nodes}
        self._refused: set[str] = set()
        self._describing: dict[str, tuple[Mapping[str, Any], Any, float]] = {}
        """Ray's description of each new node, the task that describes the node, and the task's start time."""
        self._checked_at = time.monotonic()
        self._classes = self._spool.classes()
        self._missing_since: dict[Group, float] = {}
        self._messages: list[str] = []
        self._me = ray.get_runtime_context().current_actor
        self._task = ray.remote(execute)
        self._attempts |= self._spool.finished_attempts(runs)
        done = self._spool.collected() | {one.run.index for one in self._attempts.values()}
        self._waiting: deque[PlannedRun] = deque(run for run in runs if run.index not in done)
        self._living: Mapping[str, Mapping[str, Any]] | None = None
        """Ray's descriptions of the live nodes, by node id. The value is None before the first query."""
        if active:
            threading.Thread(target=self._watch_nodes, name="harness-nodes", daemon=True).start()
            threading.Thread(target=self._work, name="harness-supervisor", daemon=True).start()

    # ---- methods that tasks call ---------------------------------------------------------------------------

    def report(self, attempt: str, first: int, events: list[bytes]) -> bool:
        """Store the events that an attempt reports, and return whether the attempt's trial has been pruned.

        `first` is the number of the first event.
        """
        with self._changed:
            one = self._attempts.get(attempt)
            if one is not None and one.files is None:
                new = events[max(0, len(one.events) - first) :]
                one.events += new[: MAX_EVENTS - len(one.events)]
                if new or not one.started:
                    self._changed.notify_all()
                one.started, one.silent_s = True, 0.0
            return one is not None and one.pruned

    def put(self, attempt: str, name: str, offset: int, chunk: bytes) -> bool:
        """Store part of a file, and return whether the attempt's result is still needed."""
        with self._changed:
            one = self._attempts.get(attempt)
            if one is None or one.files is not None:
                return False
            one.started, one.silent_s = True, 0.0
            path = self._spool.folder(attempt) / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("r+b" if offset else "wb") as file:
                    file.seek(offset)
                    file.write(chunk)
            except FileNotFoundError:
                self._lost(attempt, REMOVED)
                return False
            except OSError as error:
                # Another attempt would not help if the disk is full.
                self._forget(attempt)
                message = (
                    f"{self._spool.path} on the head node: the files of the run cannot be stored: {error.strerror}"
                )
                self._fail(one.run, Failure(kind="error", message=message, phase="executor"))
                return False
            return True

    # ---- methods that commands call ------------------------------------------------------------------------

    def news(self, seen: Mapping[str, int], messages: int, collected: Sequence[str], wait_s: float) -> News:
        """Return new events, messages and results, after waiting for at most `wait_s` seconds.

        `seen` contains the number of events received per attempt, and `messages` is the number of messages received.
        The results of attempts in `collected` are removed.
        """
        end = time.monotonic() + wait_s
        with self._changed:
            for attempt in collected:
                if (one := self._attempts.pop(attempt, None)) is not None:
                    self._spool.mark_collected(attempt, one.run.index)
            while True:
                updates = [
                    Update(key, one.run.index, one.events[seen.get(key, 0) :], one.files)
                    for key, one in self._attempts.items()
                    if (one.started and key not in seen) or len(one.events) > seen.get(key, 0) or one.files is not None
                ]
                left = end - time.monotonic()
                if updates or len(self._messages) > messages or left <= 0 or not (self._waiting or self._attempts):
                    unfinished = [one for one in self._attempts.values() if one.files is None]
                    running = [one.run.index for one in unfinished if one.started]
                    waiting = [one.run.index for one in unfinished if not one.started]
                    waiting += [run.index for run in self._waiting]
                    return News(updates, self._messages[messages:], running, waiting)
                self._changed.wait(left)

    def read(self, attempt: str, name: str, offset: int, size: int) -> bytes | None:
        """Return part of a file of a finished attempt, or None if the attempt does not exist. If the file cannot be
        read, for example because another program has removed it, the attempt is marked as lost."""
        one = self._attempts.get(attempt)
        if one is None:
            return None
        if one.failure:
            return one.failure[offset : offset + size]
        try:
            with (self._spool.folder(attempt) / name).open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            with self._changed:
                if attempt in self._attempts:
                    self._lost(attempt, f"its files cannot be read on the head node: {error.strerror}")
            return None

    def prune(self, attempt: str) -> None:
        """Stop the trial that an attempt is executing. The attempt returns the record of a pruned trial."""
        with self._changed:
            if (one := self._attempts.get(attempt)) is not None:
                one.pruned = True

    def withdraw(self, kept: Sequence[str]) -> None:
        """Stop starting new runs, and cancel the attempts that are not in `kept`."""
        with self._changed:
            self._waiting.clear()
            for key in [key for key, one in self._attempts.items() if key not in kept and one.files is None]:
                self._forget(key)
            self._changed.notify_all()

    def close(self) -> None:
        """Cancel all attempts and remove all results."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            for key in list(self._attempts):
                self._forget(key)
            self._spool.remove()
            self._changed.notify_all()

    # ---- the thread that starts runs -----------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closed:
            try:
                self._step()
            except Exception as error:  # such as a full disk; the supervisor must not end
                text = f"an exception occurred in the supervisor, which continues: {type(error).__name__}: {error}"
                with self._changed:
                    if text not in self._messages[-1:]:
                        self._message(text)
                time.sleep(NODES_S)

    def _step(self) -> None:
        self._update_nodes()
        with self._changed:
            self._start_runs()
            self._check_signs_of_life()
            tasks = list(self._tasks)
            if not tasks:
                self._changed.wait(0.2 if self._waiting else NODES_S)
        if tasks:
            for task in ray.wait(tasks, num_returns=len(tasks), timeout=0.05)[0] or ray.wait(tasks, timeout=1.0)[0]:
                self._task_ended(task)

    def _watch_nodes(self) -> None:
        """Query the live nodes repeatedly.

        A query waits if the head node does not answer. This method runs in a separate thread, so that the wait does not
        delay the collection of finished runs.
        """
        while not self._closed:
            with contextlib.suppress(Exception):  # the next query may succeed
                self._living = cluster.living_nodes()
            time.sleep(NODES_S)

    def _update_nodes(self) -> None:
        """Describe new nodes, and remove nodes that are no longer alive."""
        living = self._living
        if living is None:
            return
        with self._changed:
            for node in [node for node in self._nodes if node not in living]:
                self._node_ended(node)
            known = {*self._nodes, *self._refused, *self._describing}
            for node, facts in living.items():
                if node not in known and cluster.offers(facts):
                    task = cluster.begin_description(node, self._plugins, self._packages)
                    self._describing[node] = facts, task, time.monotonic()
            for node, (shown, task, since) in list(self._describing.items()):
                in_time = time.monotonic() - since < cluster.DESCRIBE_S
                if in_time and not ray.wait([task], timeout=0.05)[0]:
                    continue
                del self._describing[node]
                found = cluster.described(shown, task, self._here, timeout_s=0.0)
                if isinstance(found, Node):
                    self._nodes[node] = found
                elif found is not None:
                    self._refused.add(node)
                    self._message(found)

    def _node_ended(self, node: str) -> None:
        if node in self._nodes:
            self._message(f"node {self._nodes.pop(node).address} ended")
        self._refused.add(node)

    def _start_runs(self) -> None:
        for run in list(self._waiting):
            group = placement.group_of(run.spec)
            if group not in self._classes:
                if self._describing and not self._attempts:
                    return  # choose among all nodes
                specs = [one.spec for one in self._all if placement.group_of(one.spec) == group]
                chosen = placement.choose_class(specs, self._nodes.values())
                if chosen is not None:
                    self._choose(group, chosen)
            nodes = placement.of_class(self._nodes.values(), self._classes[group]) if group in self._classes else []
            if not any(node.fits(run.spec) for node in nodes):
                since = self._missing_since.setdefault(group, time.monotonic())
                if time.monotonic() - since > self._node_timeout_s:
                    self._fail(run, self._no_node(run))
                    self._waiting.remove(run)
                continue
            self._missing_since.pop(group, None)
            node = placement.choose_node(run.spec, nodes, self._losses.get(run.index, ()))
            if node is not None:
                self._waiting.remove(run)
                self._start(run, node)

    def _choose(self, group: Group, chosen: Environment) -> None:
        """Set the class of machine for a group. The class is stored on disk, because this process may be killed."""
        self._classes[group] = chosen
        others = Counter(placement.difference(chosen, node.machine.environment) for node in self._nodes.values())
        for found, count in others.items():
            if found:
                nodes = f"{count} {'node does' if count == 1 else 'nodes do'}"
                self._message(
                    f"{nodes} not execute the runs on {group[1]}, because the class of machine differs: {found}"
                )
        self._spool.keep_classes(self._classes)

    def _no_node(self, run: PlannedRun) -> Failure:
        spec = run.spec
        gpu = " and a GPU" if spec.device.startswith("cuda") else ""
        needed = f"{spec.threads} {'CPU' if spec.threads == 1 else 'CPUs'}{gpu}"
        same = " in the class of machine chosen for this dataset" if self._nodes else ""
        message = f"no node with {needed}{same} was available for {self._node_timeout_s:g} s"
        return Failure(kind="crash", message=message, phase="executor")

    def _start(self, run: PlannedRun, node: Node) -> None:
        attempt = f"{run.index}-{token_hex(8)}"
        node.running[attempt] = run.spec.threads, placement.shares_node(run.spec)
        self._attempts[attempt] = Running(run, node.id)
        options = {
            "num_cpus": run.spec.threads,
            "num_gpus": int(node.gets_gpu(run.spec)),
            **cluster.on_node(node.id),
        }
        task = self._task.options(name=run.spec.title, **options).remote(run, attempt, self._me, self._lost_after_s / 6)
        self._tasks[task] = attempt
        self._changed.notify_all()

    def _task_ended(self, task: Any) -> None:
        finished, error, problem = False, None, "it ended without a result"
        try:
            finished = ray.get(task)
        except ray.exceptions.RayError as raised:
            error, problem = raised, _first_line(raised)
        with self._changed:
            attempt = self._tasks.pop(task, "")
            one = self._attempts.get(attempt)
            if one is None:
                return
            self._free(attempt, one)
            if finished:
                self._finish(attempt, one)
            elif isinstance(error, ray.exceptions.OutOfMemoryError):
                self._forget(attempt)
                self._fail(one.run, Failure(kind="oom", message=f"Ray terminated the run: {problem}"))
            elif isinstance(error, ray.exceptions.TaskUnschedulableError):  # the attempt did not start
                self._forget(attempt)
                self._waiting.appendleft(one.run)
            else:
                self._lost(attempt, problem)
            if isinstance(error, ray.exceptions.TaskUnschedulableError | ray.exceptions.NodeDiedError):
                self._node_ended(one.node)  # now, because the list of live nodes may be two seconds old

    def _check_signs_of_life(self) -> None:
        """Mark attempts as lost if their last report is too old, for example because the node is disconnected. If an
        attempt has not started, for example because another job uses the CPUs of its node, move the attempt to a free
        node."""
        now = time.monotonic()
        # If this process was suspended, it could not receive reports.
        passed_s, self._checked_at = min(now - self._checked_at, self._lost_after_s / 4), now
        for attempt, one in list(self._attempts.items()):
            if one.files is not None:
                continue
            one.silent_s += passed_s
            if one.silent_s <= self._lost_after_s:
                continue
            if one.started:
                self._lost(attempt, f"no report for {self._lost_after_s:g} s")
            elif (node := self._other_node(one)) is not None:
                self._forget(attempt)
                self._start(one.run, node)

    def _other_node(self, one: Running) -> Node | None:
        """Return a free node other than the node of an attempt."""
        nodes = placement.of_class(self._nodes.values(), self._classes[placement.group_of(one.run.spec)])
        avoided = {one.node, *self._losses.get(one.run.index, ())}
        node = placement.choose_node(one.run.spec, nodes, avoided)
        return None if node is None or node.id == one.node else node

    def _lost(self, attempt: str, reason: str) -> None:
        one = self._attempts[attempt]
        losses = self._losses.setdefault(one.run.index, [])
        losses.append(one.node)
        node = self._nodes.get(one.node)
        place = f" on {node.address}" if node else f" on node {one.node[:8]}" if one.node else ""
        self._message(f"{one.run.spec.title}: the attempt{place} was lost: {reason}")
        self._forget(attempt)
        if len(losses) < MAX_ATTEMPTS:
            self._waiting.appendleft(one.run)
        else:
            message = f"{MAX_ATTEMPTS} attempts to execute the run were lost; the last one failed with: {reason}"
            self._fail(one.run, Failure(kind="crash", message=message, phase="executor"))

    def _forget(self, attempt: str) -> None:
        """End an attempt. Results that arrive later are discarded."""
        one = self._attempts.pop(attempt)
        self._free(attempt, one)
        for task in [task for task, key in self._tasks.items() if key == attempt]:
            del self._tasks[task]
            # In a thread, because the call may wait for a node that does not answer.
            threading.Thread(target=_cancel, args=(task,), daemon=True).start()
        self._spool.forget(attempt)

    def _free(self, attempt: str, one: Running) -> None:
        if one.node in self._nodes:
            self._nodes[one.node].running.pop(attempt, None)

    def _fail(self, run: PlannedRun, failure: Failure) -> None:
        """Store the failure of a run that has no record. This method also works if the disk is full."""
        attempt = f"{run.index}-{token_hex(8)}"
        content = msgspec.json.encode(failure)
        self._attempts[attempt] = Running(run, "", files={RESULT: len(content)}, failure=content)
        self._spool.keep_failure(attempt, content)
        self._changed.notify_all()

    def _finish(self, attempt: str, one: Running) -> None:
        files = self._spool.finish(attempt, one.events)
        if RESULT not in files:
            self._lost(attempt, REMOVED)
            return
        one.files = files
        self._changed.notify_all()

    def _message(self, text: str) -> None:
        self._messages.append(text)
        self._changed.notify_all()


def _cancel(task: Any) -> None:
    with contextlib.suppress(Exception):  # the node may have ended
        ray.cancel(task, force=True)


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"[:300]
