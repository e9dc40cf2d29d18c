"""A Ray cluster of several raylets on this machine, with the toy plugins on every node."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import gone
from toy_plugin import FAST, FAULTS_REF, TOY_REF, install_toy

from harness.execute.runner import Listener, run_all
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import PluginRef, RunRecord, RunSpec
from harness.records.store import Store

GATED = Path(__file__).parents[1] / "builtin" / "ray" / "gated_plugin.py"
GATED_REF = PluginRef(name="gated_plugin", value=str(GATED), distribution="file", version="")
RAY_REF = PluginRef(name="ray", value="harness_ray", distribution="ml-harness", version="1.0")
SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""Settings with which Ray detects after two seconds that a raylet has ended."""


class Nodes:
    """The nodes of a cluster. A head node without CPUs is always present."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.address: str = cluster.address
        self.gate = folder / "gate"
        self.nodes: list[Any] = []

    def add(self, count: int = 1, *, cache: str = "", **variables: str) -> None:
        """Add nodes with one CPU each. By default, each has its own cache, and thus its own device lock."""
        for _ in range(count):
            own = str(self.folder / (cache or f"cache-{len(self.nodes)}-{time.monotonic_ns()}"))
            self.nodes.append(self.cluster.add_node(num_cpus=1, env_vars={"HARNESS_CACHE": own, **variables}, **SMALL))

    def remove(self, node: Any) -> None:
        """Kill the raylet and the workers of a node."""
        for process in [*psutil.Process(raylet(node)).children(recursive=False)]:
            process.kill()
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def at_least(self, count: int) -> None:
        """Add nodes until there are `count` nodes, and forget those whose raylet has ended."""
        for node in [node for node in self.nodes if gone(raylet(node), 0)]:
            self.nodes.remove(node)
        self.add(max(0, count - len(self.nodes)))

    def node_of(self, worker: psutil.Process) -> Any:
        """Return the node of a Ray worker."""
        return next(node for node in self.nodes if raylet(node) == worker.ppid())

    def close_gate(self) -> None:
        for path in self.gate.iterdir():
            path.unlink()

    def open_gate(self) -> None:
        (self.gate / "open").touch()

    def gated(self, count: int = 1, within_s: float = 60, known: Sequence[psutil.Process] = ()) -> list[psutil.Process]:
        """Wait until `count` runs wait at the gate, and return their child processes, without those in `known`."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            pids = [int(path.name.partition("-")[2]) for path in self.gate.glob("started-*")]
            alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
            if len(found := [process for process in alive if process not in known]) >= count:
                return found
            time.sleep(0.05)
        raise AssertionError(f"not {count} runs were started within {within_s:g} s")


def raylet(node: Any) -> int:
    """Return the process id of a node's raylet."""
    found = node.all_processes.get("raylet")
    return found[0].process.pid if found else 2**22  # no process has this id


@contextmanager
def ray_cluster(folder: Path, count: int, port: int | None = None) -> Iterator[Nodes]:
    """Start a cluster, and end it with all its processes. The environment of this process is that of the nodes."""
    import ray
    from ray.cluster_utils import Cluster

    (folder / "gate").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        patch.setenv("RAY_raylet_start_wait_time_s", "180")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("TOY_GATE", str(folder / "gate"))
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        head = {"num_cpus": 0, "_system_config": QUICK, **SMALL} | ({} if port is None else {"gcs_server_port": port})
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            nodes = Nodes(cluster, folder)
            nodes.add(count)
            yield nodes
        finally:
            ray.shutdown()
            for node in nodes.nodes:
                if not gone(raylet(node), 0):
                    os.kill(raylet(node), signal.SIGCONT)
            cluster.shutdown()


class Log(Listener):
    """A listener that keeps the messages, and calls a function after each finished run."""

    def __init__(self, finished: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.started: list[int] = []
        self._finished = finished

    def message(self, text: str) -> None:
        self.messages.append(text)

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self.started.append(index)

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        super().run_finished(index, total, record)
        self._finished(len(self.records))


def ray_catalog() -> Catalog:
    """Return a catalog of the toy plugins and the executor."""
    catalog = load([TOY_REF, FAULTS_REF, GATED_REF, RAY_REF])
    assert catalog.failures == ()
    return catalog


def gated_specs(catalog: Catalog, backend: str = "toy-gated", seeds: int = 1, *overrides: str) -> tuple[RunSpec, ...]:
    chosen = Selection(
        tasks=("toy-regress",),
        backends=(backend,),
        seeds=tuple(range(seeds)),
        threads=1,
        overrides=(*FAST, "recipe.epochs=1", *overrides),
    )
    return expand(chosen, catalog)


def run_on(nodes: Nodes, specs: Sequence[RunSpec], store: Store, log: Log, **options: str) -> list[RunRecord]:
    """Execute runs on the cluster."""
    catalog = ray_catalog()
    executor = catalog.executor("ray", {"address": nodes.address, **options})
    return run_all(specs, catalog, store, timeout_s=120, executor=executor, listener=log)
