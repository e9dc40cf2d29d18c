"""The ``ray`` executor, which executes runs on the nodes of a Ray cluster.

A supervisor, which is a Ray actor on the head node, starts one Ray task per run and keeps the results until they are
collected. With ``--detach``, the supervisor keeps running after the command exits. Each task calls
`harness.execute_run` on a node.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from harness import Coordinator, Machine, PlannedRun, PluginRef, SubmissionState
    from harness_ray.placement import Node

HARNESS_API_VERSION = "1.0"


class RayExecutor(harness.Executor):
    """Executor that executes runs on the nodes of a Ray cluster."""

    name = "ray"
    summary = "the nodes of a Ray cluster, one run per node or GPU"
    requires = {"ray": "ml-harness[ray]"}
    options = {
        "address": "address of the Ray cluster, such as 10.0.0.1:6379, or auto (default) for the local cluster",
        "lost_after": "seconds without a report after which an attempt is repeated on another node (default: 60)",
        "node_timeout": "seconds to wait for a suitable node before a run fails (default: 300)",
    }
    remote = True
    prunes = True

    def __init__(self, address: str = "auto", lost_after_s: float = 60.0, node_timeout_s: float = 300.0) -> None:
        self.address, self.lost_after_s, self.node_timeout_s = address, lost_after_s, node_timeout_s
        self.nodes = Nodes()

    def configured(self, options: Mapping[str, str]) -> RayExecutor:
        return RayExecutor(
            options.get("address", self.address),
            _seconds(options, "lost_after", self.lost_after_s),
            _seconds(options, "node_timeout", self.node_timeout_s),
        )

    def machines(self, plugins: Sequence[PluginRef], packages: Sequence[str]) -> Sequence[Machine]:
        from harness_ray.cluster import connect

        connect(self.address)
        return [node.machine for node in self.nodes.described(plugins, packages)]

    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        from harness_ray.driver import end, follow

        supervisor = self._start(f"run-{secrets.token_hex(8)}", runs, detached=False)
        try:
            follow(supervisor, runs, coordinator, wait=True)
        finally:
            end(supervisor)

    def submit(self, submission: str, runs: Sequence[PlannedRun]) -> Mapping[str, str]:
        from harness_ray.cluster import connect

        self._start(submission, runs, detached=True)
        return {"address": connect(self.address)}

    def _start(self, name: str, runs: Sequence[PlannedRun], *, detached: bool) -> Any:
        from harness_ray.cluster import connect
        from harness_ray.driver import start

        connect(self.address)
        return start(
            name,
            runs,
            self.nodes.described,
            detached=detached,
            lost_after_s=self.lost_after_s,
            node_timeout_s=self.node_timeout_s,
        )

    def collect(
        self, submission: str, runs: Sequence[PlannedRun], coordinator: Coordinator, *, wait: bool
    ) -> SubmissionState | None:
        from harness_ray.driver import find, follow

        supervisor = find(self.address, submission)
        return None if supervisor is None else follow(supervisor, runs, coordinator, wait=wait, detached=True)

    def cancel(self, submission: str) -> None:
        from harness_ray.driver import end, find

        supervisor = find(self.address, submission)
        if supervisor is not None:
            end(supervisor)


class Nodes:
    """Cache of node descriptions for one command, so that each node is described only once."""

    def __init__(self) -> None:
        self._contents: tuple[set[str], set[str]] = set(), set()
        self._nodes: list[Node] = []

    def described(self, plugins: Sequence[PluginRef], packages: Sequence[str]) -> list[Node]:
        """Return the nodes that can execute runs; see `harness_ray.cluster.described_nodes`."""
        from harness_ray.cluster import described_nodes, living_nodes, offers

        names, living = {ref.name for ref in plugins}, living_nodes()
        # The packages must be the same, because the supervisor compares these nodes with those that it describes later.
        known = names <= self._contents[0] and set(packages) == self._contents[1]
        if not known or {node.id for node in self._nodes} != {key for key, node in living.items() if offers(node)}:
            self._nodes = described_nodes(plugins, packages)
            self._contents = names, set(packages)
        return self._nodes


def _seconds(options: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise harness.UsageError(f"the ray executor option {name!r} must be a positive number, got {options[name]!r}")
    return value


@harness.hookimpl
def harness_executors() -> Iterator[harness.Executor]:
    yield RayExecutor()
