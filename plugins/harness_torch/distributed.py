"""Training with ``DistributedDataParallel``, one process per device."""

from __future__ import annotations

import datetime
import os
import socket
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from harness import DeviceGroup

_TIMEOUT = datetime.timedelta(days=1)
"""Timeout of a collective operation. The timeout is long, because the other processes wait while the first process
validates. Runs have a separate time limit."""


class Replicas:
    """Replicas of a module, with one replica in each process of a group."""

    def __init__(self, group: DeviceGroup, module: torch.nn.Module, device: torch.device, *, scaled: bool) -> None:
        """Create the replicas. `scaled` is True if gradients are computed in float16 with a loss scale."""
        self._size, self._scaled = group.size, scaled
        self.library = "nccl" if device.type == "cuda" else "gloo"
        _join(group, self.library)
        with warnings.catch_warnings():
            # PyTorch 2.13 renames broadcast_buffers; earlier versions do not have the new name.
            warnings.simplefilter("ignore", FutureWarning)
            self.module: torch.nn.Module = DistributedDataParallel(
                module,
                device_ids=[device.index] if device.type == "cuda" else None,
                # Each process normalizes its part of a batch, and keeps its own running statistics.
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                static_graph=True,  # allows parameters that the loss does not depend on
            )

    def share_of(self, loss: torch.Tensor, weight: float) -> torch.Tensor:
        """Return the loss to minimize in this process.

        The gradients of this loss are averaged over the processes, so the loss is multiplied by the number of
        processes. In float16, `add_up` applies this factor to the float32 gradients of the parameters instead. The
        gradients in the backward pass then have the same magnitude as on one device, and overflow at the same loss
        scale.
        """
        return loss * (weight if self._scaled else weight * self._size)

    def add_up(self, gradients: Sequence[torch.Tensor]) -> None:
        """Convert the averaged gradients to the gradients of the whole batch. This method is called after all backward
        passes of a step."""
        if self._scaled and gradients:
            torch._foreach_mul_(gradients, float(self._size))

    def total(self, loss: torch.Tensor, weight: float) -> Pending:
        """Start computing the loss of the whole batch from the mean losses of its parts."""
        total = loss * weight
        return Pending(total, dist.all_reduce(total, async_op=True))

    def leave(self) -> None:
        """Leave the group."""
        del self.module
        # With NCCL, this call waits for the other processes, which may have failed. They end soon anyway.
        if self.library != "nccl":
            dist.destroy_process_group()


class Pending:
    """Loss of a batch, computed while the next step runs."""

    def __init__(self, loss: torch.Tensor, work: Any) -> None:
        self._loss, self._work = loss, work

    def wait(self) -> torch.Tensor:
        """Return the loss."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._loss


def _join(group: DeviceGroup, library: str) -> None:
    """Initialize the process group in this process."""
    host, _, port = group.addresses[0].rpartition(":")
    first = group.rank == 0
    # Listen only on the given address; by default, the store listens on all addresses of the machine.
    listener = socket.create_server((host, int(port))) if first else None
    store = dist.TCPStore(
        host,
        int(port),
        world_size=group.size,
        is_master=first,
        timeout=_TIMEOUT,
        master_listen_fd=listener.detach() if listener else None,
    )
    # Without this variable, gloo uses the interface of the address that the name of the machine resolves to.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    dist.init_process_group(library, store=store, rank=group.rank, world_size=group.size, timeout=_TIMEOUT)
