"""Tests of the description of the machine."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

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


class FakeSysctl:
    """Fake of the function ``sysctlbyname`` of macOS, which knows one name."""

    def sysctlbyname(self, name: bytes, value: Any, size: Any, new: None, new_size: int) -> int:
        if name != b"machdep.cpu.brand_string":
            return -1
        if value is None:
            size._obj.value = len(b"Apple M4\0")
        else:
            value.raw = b"Apple M4\0"
        return 0


def test_name_of_the_processor_is_read_from_the_kernel_of_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeSysctl())
    assert environment._sysctl("machdep.cpu.brand_string") == "Apple M4"
    assert environment._sysctl("no.such.name") is None


def test_kernel_without_sysctlbyname_reports_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert environment._sysctl("machdep.cpu.brand_string") is None


def test_environment_is_described_without_starting_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"started {arguments[0]}")

    read = Path.read_text

    def read_text(path: Path, *arguments: Any, **options: Any) -> str:
        if path == Path("/proc/cpuinfo"):  # as on macOS, where the name of the processor is elsewhere
            raise FileNotFoundError(path)
        return read(path, *arguments, **options)

    monkeypatch.setattr(environment, "git_commit", lambda: None, raising=False)
    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert environment.collect().cpu
