"""Detection of the loss of the head node."""

from __future__ import annotations

import os
import socket
import time

import ray

import harness

INTERVAL_S = 5.0
"""Interval between checks of the head node, in seconds."""
RECONNECT_S = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Environment variable that sets the time, in seconds, after which Ray terminates a process that has lost its
connection to the head node."""


class HeadNode:
    """The head node of the cluster to which this process is connected.

    If the connection to the head node is lost, requests to the cluster wait. Ray eventually terminates this process,
    without an error message that explains what to do.
    """

    def __init__(self) -> None:
        self.connected()

    def connected(self) -> None:
        """Start to observe the head node of another cluster."""
        self.reachable = True
        self._checked_at = float("-inf")
        self._reached_at: float | None = None

    def check(self) -> None:
        """Raise `harness.UsageError` if the head node has not accepted connections for half of the time after which Ray
        terminates this process.

        If the head node was never reached, no error is raised, because a Ray client (``ray://``) may be unable to
        connect to the head node directly.
        """
        if time.monotonic() - self._checked_at < INTERVAL_S:
            return
        address = str(ray.get_runtime_context().gcs_address)
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=INTERVAL_S).close()
        except OSError as error:
            self.reachable, reason = self._reached_at is None, str(error)
        else:
            self.reachable, self._reached_at = True, time.monotonic()
        self._checked_at = time.monotonic()
        silent_s = self._checked_at - (self._reached_at or 0.0)
        if not self.reachable and silent_s >= _reconnect_s() / 2:
            raise harness.UsageError(
                f"the head node of the Ray cluster at {address!r} has not accepted connections for {silent_s:.0f} s "
                f"({reason}); start the cluster again, and repeat the command"
            )


HEAD_NODE = HeadNode()


def _reconnect_s() -> float:
    try:
        return float(os.environ[RECONNECT_S])
    except (KeyError, ValueError):
        return 60.0
