"""Tests of ``harness selftest``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest
from command_line import Invoke

from harness.checks.selftest import MIB, Check, run
from harness.errors import HarnessError
from harness.measure.memory import reset_peak
from harness.plugins import discover
from harness.plugins.catalog import Catalog


@pytest.mark.skipif(not reset_peak(), reason="the kernel does not let a process reset its peak of memory")
def test_this_machine_passes(invoke: Invoke) -> None:
    done = invoke("selftest", "--format", "json")
    assert done.exit_code == 0, done.output
    checks = {check.name: check for check in msgspec.json.decode(done.stdout, type=list[Check])}
    assert set(checks) == {"host memory, 16 MiB", "host memory, 64 MiB", "host memory, 256 MiB", "clock"}
    assert abs(checks["host memory, 256 MiB"].measured - 256 * MIB) <= 0.01 * 256 * MIB


def test_wrong_measurement_fails(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Check(name="host memory, 64 MiB", expected=64 * MIB, measured=67 * MIB, unit="bytes", tolerance=2 * MIB)
    monkeypatch.setattr("harness.checks.selftest.run", lambda catalog: [wrong])
    done = invoke("selftest")
    assert done.exit_code == 1
    assert "64.000 MiB  67.000 MiB  3.000 MiB  2.000 MiB  WRONG" in done.stdout


def test_memory_of_the_parent_is_not_measured_in_the_child() -> None:
    ballast = b"\x01" * (300 * MIB)
    checks = [check for check in run(Catalog()) if check.unit == "bytes"]
    assert len(ballast) == 300 * MIB
    assert all(check.measured < check.expected + check.tolerance for check in checks)


def toy_only() -> Catalog:
    """Return a catalog without the other backends, which would import their frameworks to list devices."""
    found = discover()
    return dataclasses.replace(found, backends={"toy-numpy": found.backends["toy-numpy"]})


def test_device_memory_is_measured_through_the_backend(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's accelerator multiplies the values by the given factor; the tolerance is 1% or 2 MiB."""
    monkeypatch.setenv("TOY_ACCELERATOR", "1.009")
    checks = {check.name: check for check in run(toy_only())}
    assert checks["toy-numpy on cuda:0, 256 MiB"].passed
    monkeypatch.setenv("TOY_ACCELERATOR", "1.05")
    checks = {check.name: check for check in run(toy_only())}
    assert [check.passed for name, check in checks.items() if name.startswith("toy-numpy")] == [True, False, False]


def test_failing_device_raises(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_ACCELERATOR", "broken")
    with pytest.raises(HarnessError, match="the self-test process failed: ValueError"):
        run(toy_only())
