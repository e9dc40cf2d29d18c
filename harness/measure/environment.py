"""Description of the hardware and software environment of a run. Package versions are read from metadata without
importing the packages."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.measure.cgroup import available_cores, cpu_groups, cpu_quota
from harness.plugins.requirements import DISTRIBUTION
from harness.records import Environment, Gpu

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

    The version of the distribution that contains this package has the key ``harness``.
    """
    installed = {}
    for package in packages:
        try:
            installed["harness" if package == DISTRIBUTION else package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def gpus() -> list[Gpu]:
    """Return the NVIDIA GPUs listed by ``nvidia-smi``; an empty list if no driver is installed."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    devices = []
    for line in (_output(query) or "").splitlines():
        if line.count(",") < 2:  # "No devices were found"
            continue
        name, memory_mib, driver = (part.strip() for part in line.rsplit(",", 2))
        # The driver reports [N/A] for GPUs that share memory with the host.
        memory_bytes = int(memory_mib) * 2**20 if memory_mib.isdigit() else 0
        devices.append(Gpu(name=name, memory_bytes=memory_bytes, driver=driver))
    return devices


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


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
        named = _output(["sysctl", "-n", "machdep.cpu.brand_string"])
        if named:
            return named.strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _load_1min() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None
