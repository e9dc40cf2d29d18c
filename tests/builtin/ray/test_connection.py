"""Tests of the connection to a cluster, without a cluster."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import UsageError

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.plugins("ray")


def test_cluster_with_another_version_is_an_error_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness_ray.cluster import connect

    def init(**_: Any) -> None:
        cluster = {"ray_version": "2.1.0", "python_version": "3.10.1"}
        ray._private.utils.check_version_info(cluster, "node 10.0.0.1")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UsageError) as raised:
        connect("auto")
    text = str(raised.value)
    assert text.startswith("the Ray cluster at 'auto' cannot be used: Version mismatch: ")
    assert "Ray: 2.1.0 Python: 3.10.1" in text
    assert f"Ray: {ray.__version__} Python: " in text
    assert text.endswith("; install the same versions on all machines")


def test_connection_to_a_program_other_than_ray_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, Ray tries 20 times, for up to 41 seconds each time."""
    from harness_ray.cluster import CONNECTION_ATTEMPTS, connect

    attempts: list[str | None] = []

    def init(**_: Any) -> None:
        attempts.append(os.environ.get(CONNECTION_ATTEMPTS))
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv(CONNECTION_ATTEMPTS, raising=False)
    with pytest.raises(UsageError, match=r"cannot be reached: Failed to connect to Ray cluster at 10\.0\.0\.1:6379; "):
        connect("auto")
    assert CONNECTION_ATTEMPTS not in os.environ
    monkeypatch.setenv(CONNECTION_ATTEMPTS, "7")
    with pytest.raises(UsageError):
        connect("auto")
    assert attempts == ["1", "7"]
    assert os.environ[CONNECTION_ATTEMPTS] == "7"


def test_cluster_that_requires_a_token_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own error says only that the connection failed."""
    from harness_ray.cluster import connect

    def init(**_: Any) -> None:
        reason = "Failed to connect to GCS. ... ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: ..."
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379") from RuntimeError(reason)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UsageError, match=r"the Ray cluster at 'auto' requires a token: set RAY_AUTH_MODE=token, and"):
        connect("auto")


def test_cluster_that_another_thread_uses_is_not_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray has one connection per process. The runs of the other thread would be lost."""
    from harness_ray.cluster import connected

    events: list[str] = []
    current = [""]

    def init(address: str, **_: Any) -> None:
        events.append(f"connect to {address}")
        current[0] = address

    def shutdown() -> None:
        events.append(f"disconnect from {current[0]}")
        current[0] = ""

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", shutdown)
    monkeypatch.setattr(ray, "is_initialized", lambda: bool(current[0]))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=current[0]))
    with connected("ray://a"), connected("ray://a") as address:
        assert address == "ray://a"
        with pytest.raises(UsageError, match=r"another thread of this process uses the cluster at 'ray://a'; wait"):
            connected("ray://b").__enter__()
    with connected("ray://b"):
        pass
    assert events == ["connect to ray://a", "disconnect from ray://a", "connect to ray://b"]


def test_loss_of_the_head_node_is_an_error_before_ray_terminates_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness_ray import driver, head

    now = [100.0]
    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(head, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=address))
    monkeypatch.setattr(driver, "HEAD_NODE", head.HeadNode())
    monkeypatch.setenv(head.RECONNECT_S, "60")

    def get(_: object, timeout: float) -> None:
        now[0] += timeout
        if now[0] == 150.0:
            server.close()
        raise ray.exceptions.GetTimeoutError

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(UsageError, match=rf"the head node of the Ray cluster at '{address}' has not accepted .* 30 s"):
        driver._call(None)
    assert now[0] == 175.0  # last reached at 145


def test_head_node_that_was_never_reached_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness_ray import head

    now = [100.0]
    monkeypatch.setattr(head, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:9"))
    node = head.HeadNode()
    for _ in range(3):
        node.check()
        now[0] += 1000
    assert node.reachable


def test_supervisor_that_does_not_answer_is_an_error_although_the_head_node_is_reachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from harness_ray import driver, head

    now = [100.0]

    def get(_: object, timeout: float) -> None:
        now[0] += timeout
        raise ray.exceptions.GetTimeoutError("no answer")

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(head, "time", SimpleNamespace(monotonic=lambda: now[0]))
        monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: now[0]))
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=address))
        monkeypatch.setattr(driver, "HEAD_NODE", head.HeadNode())
        monkeypatch.setattr(ray, "get", get)
        with pytest.raises(UsageError, match=r"the supervisor of the runs .* has not answered for 120 s; check"):
            driver._call(None)
    assert now[0] == 100 + driver.ANSWER_S


def test_address_local_is_an_error() -> None:
    """Ray would start a cluster that ends with the command, so that detached runs would be lost."""
    from harness_ray.cluster import connect

    with pytest.raises(UsageError, match="local is not supported; use --executor local"):
        connect("local")
    assert not ray.is_initialized()
