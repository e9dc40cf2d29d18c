"""Tests of device names and thread counts.

Tests of thread counts run in child processes, because JAX sets the number of threads per process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from harness_jax import JaxBackend, runtime

_BUSY = """
import resource, sys, time
import numpy as np
from cases import CASES
threads = int(sys.argv[1])
import jax, jax.numpy as jnp
session = CASES.open("mlp", threads=threads)
multiply = jax.jit(lambda m: jax.lax.fori_loop(0, 12, lambda _, m: m @ m, m))
matrix = jnp.eye(1024)
multiply(matrix).block_until_ready()
def cpu_time():
    times = resource.getrusage(resource.RUSAGE_SELF)
    return times.ru_utime + times.ru_stime
wall, cpu = time.perf_counter(), cpu_time()
while time.perf_counter() - wall < 1:
    multiply(matrix).block_until_ready()
print((cpu_time() - cpu) / (time.perf_counter() - wall), session.notes()["intra_op_threads"])
"""


def cores_used(threads: int) -> float:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    # Remove the variable, because a session in this process may have set it.
    environment = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"} | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", _BUSY, str(threads)], check=True, capture_output=True, text=True, env=environment
    )
    used, recorded = done.stdout.split()
    assert recorded == str(threads)
    return float(used)


def test_number_of_a_cuda_device_is_that_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ``jax_cuda_visible_devices`` option excludes GPUs, here the first and the third."""
    gpus = [
        SimpleNamespace(local_hardware_id=number, compute_capability="9.0", device_kind="Example GPU")
        for number in (1, 3)
    ]
    monkeypatch.setattr(jax, "devices", lambda platform: gpus)
    assert [device.name for device in JaxBackend().devices()] == ["cuda:1", "cuda:3", "cpu"]
    assert runtime.start("cuda:3", "fp32", 1) is gpus[1]


def test_one_thread_keeps_one_core_busy() -> None:
    assert cores_used(1) < 1.2


@pytest.mark.slow
def test_two_threads_keep_more_than_one_core_busy() -> None:
    """Check that `test_one_thread_keeps_one_core_busy` would fail with several threads."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has only one core")
    assert cores_used(2) > 1.2
