"""Selection of the nodes that execute runs."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from harness import Environment, Machine, RunSpec, machine_difference

Group = tuple[str, ...]
"""Identifier of a group of runs that are compared with each other. All runs in a group are executed on the same class
of machine."""


@dataclass
class Node:
    """A cluster node with the same code as the machine on which the command was started."""

    id: str
    address: str
    cpus: float
    """Number of CPUs that the node offers to Ray."""
    gpus: float
    machine: Machine
    running: dict[str, tuple[int, bool]] = field(default_factory=dict)
    """Attempts on the node, by id. Each value contains the attempt's number of threads, and a flag that is True if
    other runs may be executed at the same time."""

    def fits(self, spec: RunSpec) -> bool:
        """Return whether an idle node could execute a run."""
        return self.cpus >= spec.threads and (self.gpus >= 1 or not spec.device.startswith("cuda"))

    def gets_gpu(self, spec: RunSpec) -> bool:
        """Return whether a run uses a GPU on this node. With the device ``auto``, the run uses a GPU if the node has
        one."""
        return spec.device.startswith("cuda") or (spec.device == "auto" and self.gpus >= 1)

    def is_free(self, spec: RunSpec) -> bool:
        """Return whether the node can execute a run now.

        A node that executes a CPU run does not execute other runs. Runs on different GPUs are executed concurrently if
        there are enough CPUs for their threads. A run with the device ``auto`` may use the CPU even if it is assigned a
        GPU, because the backend may not support GPUs.
        """
        if not self.running:
            return self.fits(spec)
        if not shares_node(spec) or not all(shared for _, shared in self.running.values()):
            return False
        threads = sum(threads for threads, _ in self.running.values())
        return self.cpus >= threads + spec.threads and self.gpus >= len(self.running) + 1


def shares_node(spec: RunSpec) -> bool:
    """Return True if a run is known to use a GPU. Other runs may then be executed on the node at the same time."""
    return spec.device.startswith("cuda")


def group_of(spec: RunSpec) -> Group:
    """Return the group of a run. Runs on the same data and the same type of device are compared with each other."""
    return spec.task, spec.dataset, spec.device


def of_class(nodes: Iterable[Node], environment: Environment) -> list[Node]:
    """Return the nodes whose machines belong to the same class as a machine with the given environment."""
    return [node for node in nodes if not difference(environment, node.machine.environment)]


def difference(one: Environment, other: Environment) -> str:
    """Return the first difference between two classes of machine, or an empty string if the classes are the same.

    The class includes the versions of Python and of the packages, because speed may differ between versions.
    """
    if found := machine_difference(one, other, on_gpu=True):
        return found
    versions, others = ({"Python": each.python, **each.packages} for each in (one, other))
    for name in sorted(versions.keys() | others.keys()):
        if versions.get(name) != others.get(name):
            return f"{name} {versions.get(name, 'none')} -> {others.get(name, 'none')}"
    return ""


def choose_class(specs: Sequence[RunSpec], nodes: Collection[Node]) -> Environment | None:
    """Choose a class of machine for a group of runs, and return the environment of one machine of this class. Return
    None if no class of machine can execute these runs.

    The class with the most nodes is chosen. For the device ``auto``, classes with GPUs take precedence. The choice does
    not depend on the order of the nodes.
    """
    best: tuple[tuple[bool, int, str], Environment] | None = None
    for node in nodes:
        environment = node.machine.environment
        fitting = [one for one in of_class(nodes, environment) if all(one.fits(spec) for spec in specs)]
        if not fitting:
            continue
        gpu = any(one.gpus >= 1 for one in fitting) and any(spec.device == "auto" for spec in specs)
        versions = f"{environment.python} {sorted(environment.packages.items())}"
        facts = f"{environment.cpu} {environment.cores} {environment.memory_bytes} {environment.gpus} {versions}"
        rank = (gpu, len(fitting), facts)
        if best is None or rank > best[0]:
            best = rank, environment
    return best[1] if best else None


def choose_node(spec: RunSpec, nodes: Iterable[Node], avoided: Collection[str]) -> Node | None:
    """Return a free node for a run, or None if no suitable node is free. A node whose id is in `avoided` is chosen only
    if no other node, including the busy ones, can execute the run.

    The choice among equally suitable nodes is random, because other commands may have chosen a node of the same cluster
    at the same time.
    """
    fitting = [node for node in nodes if node.fits(spec)]
    preferred = [node for node in fitting if node.id not in avoided] or fitting
    free = [node for node in preferred if node.is_free(spec)]
    return min(free, key=lambda node: (len(node.running), random.random()), default=None)
