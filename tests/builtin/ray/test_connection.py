"""Tests of the connection to a cluster, without a cluster."""

from __future__ import annotations

import os
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


def test_address_local_is_an_error() -> None:
    """Ray would start a cluster that ends with the command, so that detached runs would be lost."""
    from harness_ray.cluster import connect

    with pytest.raises(UsageError, match="local is not supported; use --executor local"):
        connect("local")
    assert not ray.is_initialized()
