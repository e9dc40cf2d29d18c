"""The description of the machine."""

from __future__ import annotations

import sys

import msgspec
import pytest
from timed_sessions import MIB

from harness.measure import environment


def test_environment_describes_this_machine() -> None:
    found = environment.collect(["hypothesis", "no-such-distribution"])
    assert found.cores >= 1
    assert found.memory_bytes > 100 * MIB
    assert found.python.endswith(".".join(map(str, sys.version_info[:3])))
    assert {"harness", "numpy", "hypothesis"} <= set(found.packages)
    assert "no-such-distribution" not in found.packages
    assert all([found.os, found.kernel, found.cpu])
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_gpus_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "NVIDIA H200, 143771, 570.1\nGPU with, a comma, [N/A], 570.1\n"
    monkeypatch.setattr(environment, "_output", lambda command: said)
    assert [(gpu.name, gpu.memory_bytes, gpu.driver) for gpu in environment.gpus()] == [
        ("NVIDIA H200", 143771 * MIB, "570.1"),
        ("GPU with, a comma", 0, "570.1"),
    ]
    for broken in (None, "", "No devices were found\n"):
        monkeypatch.setattr(environment, "_output", lambda command, said=broken: said)
        assert environment.gpus() == []
