"""Backend that trains in several processes, which add up their gradients over sockets.

``TOY_RANK_FAULT`` is the name of a function in `FAULTS`. The process with rank 1, or with rank ``TOY_FAULTY_RANK``,
calls it in step `BAD_STEP`. Closing the session of this process takes a moment after its connections are closed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness_toy import NumpyBackend, NumpySession

import harness
from harness import Batch, NetworkRef, Session, SessionRequest

HARNESS_API_VERSION = "1.0"

BAD_STEP = 5


def refuse(session: ParallelSession) -> None:
    raise ValueError("no more steps")


def exhaust_memory(session: ParallelSession) -> None:
    raise MemoryError("the batch is too large")


def be_killed(session: ParallelSession) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_stopped(session: ParallelSession) -> None:
    """Write the IDs of this process and of the worker to the file ``TOY_PID_FILE``, and stop this process."""
    Path(os.environ["TOY_PID_FILE"]).write_text(f"{os.getpid()} {os.getppid()}")
    os.kill(os.getpid(), signal.SIGSTOP)


def kill_worker(session: ParallelSession) -> None:
    """Write the ID of this process to the file ``TOY_PID_FILE``, and kill the worker."""
    Path(os.environ["TOY_PID_FILE"]).write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


def drift(session: ParallelSession) -> None:
    for value in session.network.module.values.values():
        value += 1e-3


FAULTS = {
    function.__name__: function for function in (refuse, exhaust_memory, be_killed, be_stopped, kill_worker, drift)
}


class ParallelSession(NumpySession):
    def __init__(self, request: SessionRequest) -> None:
        super().__init__(request)
        self.peers: list[Any] = []
        if request.group is not None:
            self._connect(request.group)

    def _connect(self, group: harness.DeviceGroup) -> None:
        host, port = group.addresses[0].split(":")
        if group.rank == 0:
            with socket.create_server((host, int(port))) as server:
                connections = [server.accept()[0] for _ in range(group.size - 1)]
        else:
            connections = []
            while not connections:
                try:
                    connections.append(socket.create_connection((host, int(port))))
                except ConnectionRefusedError:
                    time.sleep(0.01)
        self.peers = [connection.makefile("rwb") for connection in connections]
        for connection in connections:
            connection.close()  # when the file is closed

    def _total(self, own: dict[str, Any]) -> dict[str, Any]:
        """Return the sums over all processes. The process with rank 0 adds up."""
        group = self.request.group
        assert group is not None
        try:
            if group.rank == 0:
                for peer in self.peers:
                    own = {name: value + other for (name, value), other in zip(own.items(), _read(peer), strict=True)}
            for peer in self.peers:
                pickle.dump(list(own.values()), peer)
                peer.flush()
            return own if group.rank == 0 else dict(zip(own, _read(self.peers[0]), strict=True))
        except (EOFError, OSError):
            if "TOY_BLOCK" in os.environ:
                time.sleep(3600)  # like a collective operation that waits for a process that has ended
            raise

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        if self.steps + 1 == BAD_STEP and self._is_faulty():
            FAULTS[os.environ["TOY_RANK_FAULT"]](self)
        return super().train_step(batch, learning_rate)

    def _is_faulty(self) -> bool:
        group = self.request.group
        faulty = int(os.environ.get("TOY_FAULTY_RANK", 1))
        return group is not None and group.rank == faulty and "TOY_RANK_FAULT" in os.environ

    def close(self) -> None:
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.close()
        self.peers = []
        if self._is_faulty():
            time.sleep(0.3)

    def _backward(self, batch: Batch) -> tuple[Any, dict[str, Any]]:
        loss, gradients = super()._backward(batch)
        if self.request.group is None:
            return loss, gradients
        own = {name: value * batch.weight for name, value in {"loss": loss, **gradients}.items()}
        total = self._total(own)
        return total.pop("loss"), total


def _read(peer: Any) -> Any:
    return pickle.load(peer)


class ParallelBackend(NumpyBackend):
    name = "toy-parallel"
    summary = "gradient descent in numpy, in several processes"
    data_parallel = True

    def open(self, request: SessionRequest) -> Session:
        return ParallelSession(request)


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    yield ParallelBackend()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    yield NetworkRef(model="toy", backend="toy-parallel", build="harness_toy:build")
