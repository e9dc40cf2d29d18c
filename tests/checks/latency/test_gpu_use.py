"""Test that a latency measurement recognizes itself on its GPU, with a fake NVML and a fake GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_nvml import FakeGpu, FakeNvml
from toy_plugin import FAST, TOY_REF

from harness.checks.latency.child import LatencyJob, measure_latency
from harness.checks.latency.result import Settings
from harness.execute.child import ChildContext
from harness.interfaces import Backend, DeviceInfo
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog

HOST_ID, STRANGER = 4_100_001, 4_100_002
"""IDs that no process of this machine has: this process in the PID namespace of the host, and another process."""


@pytest.mark.parametrize("others", [[], [(STRANGER, 5)]], ids=["alone", "shared"])
def test_measurement_in_a_container_is_not_another_process_on_its_own_gpu(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[tuple[int, int | None]]
) -> None:
    monkeypatch.setenv("TOY_GREETING", "")  # set by the measurement in this process; restored after the test
    gpu = FakeGpu("GPU-aaaa", processes=others)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(gpu))  # type: ignore[arg-type]

    def devices(backend: Backend) -> list[DeviceInfo]:
        gpu.processes = [*others, (HOST_ID, 700)]  # listing devices creates a context
        return [DeviceInfo(name="cuda:0", description="Example GPU", precisions=("fp32",), uuid="aaaa")]

    (spec,) = expand(
        Selection(backends=("toy-numpy",), tasks=("toy-regress",), devices=("cuda:0",), threads=1, overrides=FAST),
        catalog,
    )
    monkeypatch.setattr(type(catalog.backend("toy-numpy")), "devices", devices)
    settings = Settings(scenario="single-stream", seconds=0.1, batch_size=8, samples_per_query=1)
    job = LatencyJob(
        run_id="", spec=spec, plugins=(TOY_REF,), run=str(tmp_path / "run"), settings=settings, engine="loop"
    )
    flags = measure_latency(job, ChildContext(tmp_path, lambda event: None, lambda result: None)).flags
    flagged = [flag for flag in flags if "on the GPU" in flag]
    assert flagged == (["other load: other processes on the GPU: 1"] if others else [])
