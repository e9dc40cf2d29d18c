"""Description of the hardware and software environment of a run. Package versions are read from metadata without
importing the packages."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.measure.cgroup import available_cores, cpu_groups, cpu_quota
from harness.measure.nvml import gpus
from harness.plugins.requirements import DISTRIBUTION
from harness.records import Environment

CORE_PACKAGES = (DISTRIBUTION, "msgspec", "numpy", "pandas", "scikit-learn", "scipy")


def collect(packages: Iterable[str] = ()) -> Environment:
    """Return a description of this machine, with the versions of the core packages and of `packages`."""
    return Environment(
        os=_os_name(),
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        cpu=_cpu_name(),
        cores=available_cores(),
        cpu_quota=cpu_quota(cpu_groups()),
        memory_bytes=_memory_bytes(),
        gpus=gpus(),
        packages=versions((*CORE_PACKAGES, *packages)),
        load_1min=_load_1min(),
    )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each package. Packages that are not installed are omitted.

    The version of the distribution that contains this package is stored under the key ``harness``.
    """
    installed = {}
    for package in packages:
        try:
            installed[title(package)] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def title(package: str) -> str:
    """Return the name of a package as used in run records."""
    return "harness" if package == DISTRIBUTION else package


def _os_name() -> str:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        named = _sysctl("machdep.cpu.brand_string")
        if named:
            return named
    return platform.machine()  # unlike platform.processor(), this starts no program


def _sysctl(name: str) -> str | None:
    """Return a string reported by the macOS kernel (sysctlbyname(3)). Return None on other systems."""
    size = ctypes.c_size_t()
    with contextlib.suppress(AttributeError):
        query = ctypes.CDLL(None).sysctlbyname
        if query(name.encode(), None, ctypes.byref(size), None, 0) == 0:
            value = ctypes.create_string_buffer(size.value)
            if query(name.encode(), value, ctypes.byref(size), None, 0) == 0:
                return value.value.decode(errors="replace").strip() or None
    return None


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _load_1min() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None
