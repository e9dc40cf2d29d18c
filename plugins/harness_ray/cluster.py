"""Connection to a Ray cluster and description of its nodes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import harness
from harness import Machine, PluginRef
from harness_ray.head import HEAD_NODE
from harness_ray.placement import Node

NAMESPACE = "harness"
"""Ray namespace of the supervisors."""
CONNECT_S = 10.0
"""Time limit for opening a connection to the port of the head node, in seconds."""
CONNECTION_ATTEMPTS = "RAY_gcs_server_port_wait_time_s"
"""Environment variable that sets how many times Ray tries to connect to the head node."""
DESCRIBE_S = 120.0
"""Time limit for describing a node, in seconds. The limit includes the time to start a worker process."""
OWN = PluginRef(name="ray", value=__package__ or "", distribution="ml-harness", version="")
"""Reference to this plugin, whose code must be the same on every node."""


_CONNECTING = threading.Lock()
_USERS = 0
"""Number of ``with connected(...)`` blocks that are being executed."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[str]:
    """Connect this process to a cluster, and yield the address of the cluster's head node.

    The connection is kept for the next call. Raises `harness.UsageError` if the cluster cannot be reached, or if
    another thread uses another cluster.
    """
    global _USERS
    with _CONNECTING:
        current = connect(address)
        _USERS += 1
    try:
        yield current
    finally:
        with _CONNECTING:
            _USERS -= 1


def connect(address: str) -> str:
    """Connect this process to a cluster, and return the address of the cluster's head node.

    Raises the same errors as `connected`.
    """
    if address == "local":  # Ray would start a cluster that ends with this process.
        raise harness.UsageError(
            "--ray-address local is not supported; use --executor local, or start a cluster with `ray start --head`"
        )
    if ray.is_initialized():
        current = str(ray.get_runtime_context().gcs_address)
        if address in ("auto", current):
            return current
        if _USERS:
            raise harness.UsageError(
                f"the Ray cluster at {address!r} cannot be used, because another thread of this process uses the "
                f"cluster at {current!r}; wait until it ends, or use another process"
            )
        ray.shutdown()
    _check_port(address)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        # Ray adds the current directory to the import path of all workers, where it would hide the installed packages.
        with contextlib.chdir("/"), _one_attempt():
            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                configure_logging=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if "InvalidAuthToken" in f"{error} {error.__cause__}":
            raise harness.UsageError(
                f"the Ray cluster at {address!r} requires a token: set RAY_AUTH_MODE=token, and copy the file "
                "~/.ray/auth_token from the head node to this machine"
            ) from None
        # The message about a cluster with another version of Ray or Python has several lines.
        text = " ".join(str(error).split()).rstrip(".:") or type(error).__name__
        raise _unreachable(address, text) from None
    finally:
        if main and handler is not None:  # Ray replaces the handler.
            signal.signal(signal.SIGTERM, handler)
    HEAD_NODE.connected()
    return str(ray.get_runtime_context().gcs_address)


def _check_port(address: str) -> None:
    """Raise `harness.UsageError` if no process listens on ``HOST:PORT``. Without this check, Ray would wait for several
    minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdigit():
        return  # such as auto or ray://HOST:PORT
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from None


def _unreachable(address: str, reason: str) -> harness.UsageError:
    if reason.startswith("Version mismatch"):
        return harness.UsageError(
            f"the Ray cluster at {address!r} cannot be used: {reason}; install the same versions on all machines"
        )
    return harness.UsageError(
        f"the Ray cluster at {address!r} cannot be reached: {reason}; start it with `ray start --head`, or pass "
        "another --ray-address"
    )


@contextlib.contextmanager
def _one_attempt() -> Iterator[None]:
    """Make Ray try only once to connect to the head node, unless the user has set the number of attempts.

    By default, Ray tries 20 times, which takes 15 minutes if a program other than Ray listens on the port.
    """
    if CONNECTION_ATTEMPTS in os.environ:
        yield
        return
    os.environ[CONNECTION_ATTEMPTS] = "1"
    try:
        yield
    finally:
        del os.environ[CONNECTION_ATTEMPTS]


def on_node(node_id: str) -> Mapping[str, Any]:
    """Return the options for a Ray task that runs on a specific node and is never retried by Ray."""
    return {"max_retries": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def living_nodes() -> dict[str, dict[str, Any]]:
    """Return Ray's descriptions of the live nodes, by node id."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def supervisors() -> list[str]:
    """Return the names of the supervisors in the cluster, including those that Ray is restarting."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in actors if actor["namespace"] == NAMESPACE]


def title(node: Mapping[str, Any]) -> str:
    """Return the name of a node for use in messages."""
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def begin_description(node_id: str, plugins: Sequence[PluginRef], packages: Sequence[str]) -> Any:
    """Start a task that describes a node, and return a reference to its result."""
    # The task refers to the function by its name. If harness is not installed on the node, the task fails.
    task = ray.remote(harness.describe_machine).options(num_cpus=0, **on_node(node_id))
    return task.remote((*plugins, OWN), tuple(packages))


def described(
    node: Mapping[str, Any], description: Any, here: Machine, *, timeout_s: float = DESCRIBE_S
) -> Node | str | None:
    """Return a node, or the reason why the node cannot execute runs. Return None if the node is no longer alive.

    `description` is the result of `begin_description`, and `timeout_s` is the maximum time to wait for the description.
    """
    try:
        machine: Machine = ray.get(description, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError:
        return f"node {title(node)} did not start a process within {DESCRIBE_S:g} s"
    except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
        return None
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        lines = [line for line in str(cause).strip().splitlines() if line.strip()] or [type(cause).__name__]
        absent = "No module named 'harness" in str(error)
        reason = (
            "harness is not installed there; install the same version as on this machine"
            if absent
            else lines[-1].strip()
        )
        return f"node {title(node)} cannot execute runs: {reason}"
    if problem := code_difference(here, machine):
        return f"node {title(node)} cannot execute runs: {problem}"
    resources = node["Resources"]
    address = str(node["NodeManagerAddress"])
    return Node(node["NodeID"], address, resources.get("CPU", 0.0), resources.get("GPU", 0.0), machine)


def code_difference(here: Machine, there: Machine) -> str:
    """Return the first difference between the code on two machines, or an empty string if the code is the same."""
    if here.harness_digest != there.harness_digest:
        versions = [one.environment.packages.get("harness", "unknown") for one in (here, there)]
        shown = f" (version {versions[0]} here, {versions[1]} there)" if versions[0] != versions[1] else ""
        return f"the code of harness differs from that of this command{shown}; install the same version there"
    for name, digest in here.plugin_digests.items():
        other = there.plugin_digests.get(name, "")
        if not other:
            return f"the plugin {name!r} is not installed there; install it"
        if other != digest:
            return f"the code of the plugin {name!r} differs from that of this command; install the same version there"
    return ""


def described_nodes(plugins: Sequence[PluginRef], packages: Sequence[str]) -> list[Node]:
    """Return the live nodes that offer CPUs or GPUs to Ray. Raises `harness.UsageError` if the cluster has no such
    node, or if one of the nodes cannot execute runs."""
    here = harness.describe_machine((*plugins, OWN), packages)
    nodes = [node for node in living_nodes().values() if offers(node)]
    tasks = [begin_description(node["NodeID"], plugins, packages) for node in nodes]
    found = [described(node, task, here) for node, task in zip(nodes, tasks, strict=True)]
    if problems := [one for one in found if isinstance(one, str)]:
        raise harness.UsageError("\n  ".join(problems))
    if not found:
        raise harness.UsageError("the Ray cluster has no node with CPUs; start one with `ray start --address ADDRESS`")
    return [one for one in found if isinstance(one, Node)]


def offers(node: Mapping[str, Any]) -> bool:
    """Return whether a node offers CPUs or GPUs. The head node of a cluster often has no CPUs or GPUs for tasks."""
    return bool(node["Resources"].get("CPU") or node["Resources"].get("GPU"))
