"""Tests of the GPU counters of a run, with a fake NVML and a backend on which a GPU is faked."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeGpu, FakeNvml
from toy_plugin import FAST, TOY_REF

from harness.execute.child import ChildContext
from harness.execute.worker import RunJob, carry_out
from harness.interfaces import Backend, DeviceInfo
from harness.measure import cuda_devices
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import RunRecord, Success

HOST_ID, STRANGER = 4_100_001, 4_100_002
"""IDs that no process of this machine has: this process in the PID namespace of the host, and another process."""


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[FakeGpu]:
    """Two GPUs of the same name, of which the second is the only one that CUDA may use."""
    gpus = [FakeGpu("GPU-aaaa"), FakeGpu("GPU-bbbb")]
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(*gpus))  # type: ignore[arg-type]
    monkeypatch.setattr(cuda_devices, "driver_uuid", lambda index: "")
    monkeypatch.setenv("TOY_GREETING", "")  # set by the run in this process; restored after the test
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return gpus


@pytest.fixture
def run(catalog: Catalog, gpus: list[FakeGpu], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return a function that executes a run on ``cuda:0`` in this process, for a GPU whose UUID is reported."""

    def run(uuid: str) -> RunRecord:
        def devices(backend: Backend) -> list[DeviceInfo]:
            gpus[1].processes = [*(gpus[1].processes or []), (HOST_ID, 700)]  # listing devices creates a context
            return [DeviceInfo(name="cuda:0", description="Example GPU", precisions=("fp32",), uuid=uuid)]

        (spec,) = expand(
            Selection(backends=("toy-numpy",), tasks=("toy-regress",), devices=("cuda:0",), threads=1, overrides=FAST),
            catalog,
        )
        backend = type(catalog.backend("toy-numpy"))
        monkeypatch.setattr(backend, "devices", devices)
        job, context = (
            RunJob(spec=spec, plugins=(TOY_REF,)),
            ChildContext(tmp_path, lambda event: None, lambda result: None),
        )
        # A copy of the context, because a run sets the reporter of downloads.
        return contextvars.copy_context().run(carry_out, job, context)

    return run


def other_processes(record: RunRecord) -> set[str]:
    assert isinstance(record.outcome, Success), record.outcome
    return {flag.detail for flag in record.outcome.flags if "other processes on the GPU" in flag.detail}


@pytest.mark.parametrize("uuid", ["bbbb", ""], ids=["uuid", "visible devices"])
def test_run_in_a_container_is_not_another_process_on_its_own_gpu(run: Callable[[str], RunRecord], uuid: str) -> None:
    assert other_processes(run(uuid)) == set()


@pytest.mark.parametrize("uuid", ["bbbb", ""], ids=["uuid", "visible devices"])
def test_other_process_on_the_gpu_in_use_is_flagged(
    run: Callable[[str], RunRecord], gpus: list[FakeGpu], uuid: str
) -> None:
    gpus[0].processes = [(STRANGER + 1, 5), (STRANGER + 2, 5)]
    gpus[1].processes = [(STRANGER, 5)]
    assert other_processes(run(uuid)) == {"other processes on the GPU: 1"}


def test_record_contains_the_variables_that_number_the_gpus(run: Callable[[str], RunRecord]) -> None:
    notes = run("").provenance.notes
    assert (notes["CUDA_DEVICE_ORDER"], notes["CUDA_VISIBLE_DEVICES"]) == ("PCI_BUS_ID", "1")
