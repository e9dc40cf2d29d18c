"""Hardware and system counters during a measurement, such as load from other processes, throttling and energy.

`Machine.read` is called before and after each window, outside the timed section. If the machine does not provide a
counter, its value is None, and so is every difference or sum that includes it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.measure.cgroup import cpu_groups, quota_throttled_s
from harness.measure.nvml import GpuProcesses, NvmlDevice
from harness.records import Energy, EnergyUse, FlagKind

OTHER_CORES = 0.2
"""A flag is set if other processes used more than this number of cores on average."""
THROTTLED_FRACTION = 0.01
"""A flag is set if the run was throttled for more than this fraction of the time."""


class Reading(NamedTuple):
    """Counter values relative to an arbitrary starting point, in seconds and joules."""

    clock_s: float = 0.0
    busy_s: float | None = None
    """Busy time of the cores that the process may use, including the time used by other processes (/proc/stat, see
    proc(5))."""
    own_s: float | None = None
    """CPU time of all threads of this process, and of other processes that train the same model on the same cores."""
    stolen_s: float | None = None
    """Time during which the hypervisor ran other virtual machines."""
    quota_s: float | None = None
    """Time during which the process was throttled by the CPU quotas of its control groups."""
    thermal_events: float | None = None
    """Number of thermal throttling events on the processor package that contains the first core."""
    cpu_j: float | None = None
    gpu_j: float | None = None
    gpu_throttled_s: float | None = None


def difference(before: Reading, after: Reading) -> Reading:
    return Reading(*(None if a is None or b is None else a - b for a, b in zip(after, before, strict=True)))  # type: ignore[arg-type]


def total(readings: Sequence[Reading]) -> Reading:
    if not readings:
        return Reading()
    columns = zip(*readings, strict=True)
    return Reading(*(None if None in column else sum(column) for column in columns))  # type: ignore[arg-type]


class Machine:
    """Counters read during a run on `device` (``cpu`` or ``cuda:N``).

    `gpu_uuid` is the UUID of the GPU, if the framework reports it. `gpu_processes` contains the processes that used the
    GPUs before the framework created its CUDA context (see `harness.measure.nvml.gpu_processes`). `root` is the
    directory that contains ``proc`` and ``sys``.
    """

    def __init__(
        self,
        device: str = "cpu",
        *,
        gpu_uuid: str = "",
        gpu_processes: GpuProcesses | None = None,
        root: Path = Path("/"),
    ) -> None:
        self._stat = root / "proc/stat"
        self._cores = _affinity()
        self._groups = cpu_groups(root)
        self._thermal = root / f"sys/devices/system/cpu/cpu{min(self._cores)}/thermal_throttle/package_throttle_count"
        self._rapl = Rapl(root / "sys/class/powercap")
        self.gpu, self.gpu_reason = _gpu(device, gpu_uuid, gpu_processes)
        self._processes = root / "proc"
        self._group: list[int] = []
        self.gpu_peak_bytes: int | None = None
        self.gpu_others = 0

    def add_group(self, pids: Sequence[int]) -> None:
        """Count the CPU time of the processes with these ids as CPU time of this process.

        All of these processes share the same cores.
        """
        self._group = list(pids)

    def read(self) -> Reading:
        busy, stolen = self._processor_s()
        gpu = self.gpu
        if gpu is not None:
            self._update_gpu_use(gpu)
        return Reading(
            clock_s=time.perf_counter(),
            busy_s=busy,
            own_s=self._own_s(),
            stolen_s=stolen,
            quota_s=quota_throttled_s(self._groups),
            thermal_events=_number(self._thermal),
            cpu_j=self._rapl.read_j(),
            gpu_j=gpu.energy_j() if gpu else None,
            gpu_throttled_s=gpu.throttled_s() if gpu else None,
        )

    def energy(self, train: Reading, train_samples: int, inference: Reading, inference_samples: int) -> Energy:
        """Return the energy per sample and the mean power during the steady states of training and inference."""

        def use(joules: Callable[[Reading], float | None]) -> EnergyUse | None:
            train_j, inference_j = joules(train), joules(inference)
            if train_j is None and inference_j is None:
                return None
            return EnergyUse(
                train_j_per_sample=_ratio(train_j, train_samples),
                train_w=_ratio(train_j, train.clock_s),
                inference_j_per_sample=_ratio(inference_j, inference_samples),
                inference_w=_ratio(inference_j, inference.clock_s),
            )

        gpu_source = "NVML: total energy consumption" if self.gpu else self.gpu_reason
        gpu = use(lambda reading: reading.gpu_j)
        if self.gpu and gpu is None:
            gpu_source = "NVML: this GPU has no energy counter"
        return Energy(
            cpu=use(lambda reading: reading.cpu_j), cpu_source=self._rapl.source, gpu=gpu, gpu_source=gpu_source
        )

    def suspicions(self, passed: Reading) -> list[tuple[FlagKind, str]]:
        """Return a flag, consisting of a kind and details, for each event that may have affected a measurement."""
        flags: list[tuple[FlagKind, str]] = []
        seconds = passed.clock_s
        if seconds <= 0:
            return flags
        if passed.busy_s is not None and passed.own_s is not None:
            others = (passed.busy_s - passed.own_s) / seconds
            if others > OTHER_CORES:
                flags.append(("other_load", f"{others:.1f} of {len(self._cores)} cores were busy with other work"))
        if passed.stolen_s is not None and passed.stolen_s / seconds / len(self._cores) > THROTTLED_FRACTION:
            stolen = passed.stolen_s / seconds / len(self._cores)
            flags.append(("other_load", f"{stolen:.1%} of the CPU time was used by other virtual machines"))
        if self.gpu_others:
            flags.append(("other_load", f"other processes on the GPU: {self.gpu_others}"))
        causes = (
            (passed.quota_s, "the cgroup's CPU quota throttled the run"),
            (passed.gpu_throttled_s, "power or thermal limits throttled the GPU"),
        )
        for throttled_s, text in causes:
            if throttled_s is not None and throttled_s / seconds > THROTTLED_FRACTION:
                flags.append(("throttled", f"{text} for {throttled_s / seconds:.1%} of the time"))
        if passed.thermal_events:
            flags.append(
                ("throttled", f"number of thermal throttling events of the processor: {passed.thermal_events:.0f}")
            )
        return flags

    def _update_gpu_use(self, gpu: NvmlDevice) -> None:
        """Update the peak GPU memory of this process and the maximum number of other processes on the GPU."""
        use = gpu.use()
        if use.own_bytes is not None:
            self.gpu_peak_bytes = max(use.own_bytes, self.gpu_peak_bytes or 0)
        self.gpu_others = max(self.gpu_others, use.others)

    def _own_s(self) -> float | None:
        """Return the CPU time of this process and its group. Return None if a process of the group has exited."""
        own, tick = time.process_time(), os.sysconf("SC_CLK_TCK")
        for pid in self._group:
            try:
                # The fields after the command, which is in parentheses, start with the state (proc_pid_stat(5)).
                fields = (self._processes / str(pid) / "stat").read_text().rpartition(")")[2].split()
                own += (int(fields[11]) + int(fields[12])) / tick
            except (OSError, ValueError, IndexError):
                return None
        return own

    def _processor_s(self) -> tuple[float | None, float | None]:
        """Return the busy time and stolen time of the cores that the process may use, in seconds.

        Return None if /proc/stat is not available.
        """
        with contextlib.suppress(OSError, ValueError, IndexError):
            tick = os.sysconf("SC_CLK_TCK")
            busy = stolen = 0
            for line in self._stat.read_text().splitlines():
                name, *fields = line.split()
                if not name.startswith("cpu"):
                    break
                if name[3:].isdigit() and int(name[3:]) in self._cores:
                    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
                    busy += user + nice + system + irq + softirq
                    stolen += steal
            return busy / tick, stolen / tick
        return None, None


class Rapl:
    """Energy consumed by the processor packages and their memory, as reported in Linux's powercap files.

    Values of ``energy_uj`` are in microjoules and restart at zero after ``max_energy_range_uj``
    (Documentation/power/powercap).
    """

    def __init__(self, folder: Path) -> None:
        self._zones: list[Path] = []
        self._last: dict[Path, int] = {}
        self._wrapped: dict[Path, int] = {}
        """Energy, in microjoules, added to the counter of each zone to account for earlier wraparounds."""
        self.source = "RAPL: this machine has no energy counter"
        names = []
        with contextlib.suppress(OSError):
            for zone in sorted(folder.glob("intel-rapl:*")):
                name = (zone / "name").read_text().strip()
                if not name.startswith(
                    ("package", "dram")
                ):  # the package's counter includes the core and graphics zones
                    continue
                try:
                    (zone / "energy_uj").read_text()
                except PermissionError:
                    self.source = f"RAPL: only root can read {zone / 'energy_uj'}; to allow all users, run chmod a+r"
                    self._zones = []
                    return
                self._zones.append(zone)
                names.append(name)
        if names:
            self.source = f"RAPL: {', '.join(names)}"

    def read_j(self) -> float | None:
        """Return the energy in joules since an arbitrary starting point, or None if no counter is readable."""
        if not self._zones:
            return None
        microjoules = 0
        for zone in self._zones:
            now = _number(zone / "energy_uj")
            if now is None:
                return None
            if now < self._last.get(zone, 0):
                span = _number(zone / "max_energy_range_uj") or 0
                self._wrapped[zone] = self._wrapped.get(zone, 0) + int(span)
            self._last[zone] = int(now)
            microjoules += int(now) + self._wrapped.get(zone, 0)
        return microjoules / 1e6


def _gpu(device: str, uuid: str, processes: GpuProcesses | None) -> tuple[NvmlDevice | None, str]:
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None, "the run did not use a GPU"
    try:
        return NvmlDevice(int(number or 0), uuid, processes), ""
    except OSError as error:
        return None, str(error)


def _affinity() -> frozenset[int]:
    try:
        return frozenset(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return frozenset(range(os.cpu_count() or 1))


def _number(path: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        return float(path.read_text())
    return None


def _ratio(value: float | None, divisor: float) -> float | None:
    return None if value is None or not divisor else value / divisor
