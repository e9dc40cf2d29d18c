"""Tests of flags for load and throttling and of energy, with counters that the tests write."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_nvml import FakeGpu, FakeNvml

from harness.measure import cuda_devices
from harness.measure import machine as machine_module
from harness.measure.machine import Machine, Rapl, Reading, difference, total
from harness.measure.nvml import gpu_processes

TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root directory of a machine with four cores, two of which the process may use."""
    monkeypatch.setattr(machine_module, "_affinity", lambda: frozenset({1, 2}))
    write(tmp_path, "proc/self/cgroup", "0::/box\n")
    write(tmp_path, "proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    write(tmp_path, "sys/fs/cgroup/box/cpu.max", "150000 100000\n")
    write(tmp_path, "sys/fs/cgroup/box/cpu.stat", "usage_usec 1\nthrottled_usec 0\n")
    write(tmp_path, "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count", "0\n")
    stat(tmp_path, [0, 0, 0, 0])
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def stat(root: Path, busy_s: list[float], steal_s: float = 0.0) -> None:
    lines = ["cpu 1 2 3 4 5 6 7 8 0 0"]
    lines += [f"cpu{n} {int(s * TICK)} 0 0 99 9 0 0 {int(steal_s * TICK)} 0 0" for n, s in enumerate(busy_s)]
    write(root, "proc/stat", "\n".join([*lines, "intr 1 2 3"]))


def passed(root: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, change: Any) -> Reading:
    """Return the change of the counters over ten seconds, of which this process uses one second of CPU time."""
    clock = SimpleNamespace(perf_counter=lambda: 100.0, process_time=lambda: 5.0)
    monkeypatch.setattr(machine_module, "time", clock)
    before = machine.read()
    clock.perf_counter, clock.process_time = lambda: 110.0, lambda: 6.0
    change()
    return difference(before, machine.read())


def test_other_load_on_a_usable_core_is_flagged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(root=root)
    seen = passed(root, machine, monkeypatch, lambda: stat(root, [50, 1.0, 8.0, 50]))
    assert (seen.clock_s, seen.busy_s, seen.own_s) == (10.0, 9.0, 1.0)
    assert machine.suspicions(seen) == [("other_load", "0.8 of 2 cores were busy with other work")]


def test_own_load_and_unusable_cores_are_not_flagged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(root=root)
    seen = passed(root, machine, monkeypatch, lambda: stat(root, [50, 1.0, 0.5, 50]))
    assert machine.suspicions(seen) == []


def process_stat(root: Path, pid: int, user_s: float, system_s: float) -> None:
    fields = " ".join(map(str, range(4, 14)))
    times = f"{int(user_s * TICK)} {int(system_s * TICK)} 16 17"
    write(root, f"proc/{pid}/stat", f"{pid} (a ) name) S {fields} {times}\n")


def test_load_of_the_group_on_the_same_cores_is_not_flagged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(root=root)
    machine.add_group([7, 8])
    for pid in (7, 8):
        process_stat(root, pid, 50.0, 2.0)

    def work() -> None:
        stat(root, [50, 8.0, 9.0, 50])
        process_stat(root, 7, 54.0, 3.0)
        process_stat(root, 8, 59.0, 4.0)

    seen = passed(root, machine, monkeypatch, work)
    assert (seen.busy_s, seen.own_s) == (17.0, 17.0)
    assert machine.suspicions(seen) == []


def test_own_time_of_a_group_whose_process_has_ended_is_unknown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(root=root)
    process_stat(root, 7, 50.0, 2.0)
    machine.add_group([7])
    seen = passed(root, machine, monkeypatch, lambda: (root / "proc/7/stat").unlink())
    assert seen.own_s is None


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda root: stat(root, [0] * 4, steal_s=0.5), "other_load", "5.0% of the CPU time was used by other"),
        (
            lambda root: write(root, "sys/fs/cgroup/box/cpu.stat", "throttled_usec 400000\n"),
            "throttled",
            "CPU quota throttled the run for 4.0%",
        ),
        (
            lambda root: write(root, "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count", "3\n"),
            "throttled",
            "thermal throttling events of the processor: 3",
        ),
    ],
)
def test_throttling_and_stolen_time_are_flagged(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: Any, kind: str, words: str
) -> None:
    machine = Machine(root=root)
    ((flagged, detail),) = machine.suspicions(passed(root, machine, monkeypatch, lambda: change(root)))
    assert flagged == kind
    assert words in detail


def test_machine_without_counters_has_no_flags(tmp_path: Path) -> None:
    machine = Machine(root=tmp_path)
    reading = machine.read()
    assert reading._replace(clock_s=0.0, own_s=None) == Reading()
    assert machine.suspicions(difference(reading, machine.read())) == []
    energy = machine.energy(reading, 1, reading, 1)
    assert (energy.cpu, energy.gpu) == (None, None)
    assert energy.cpu_source == "RAPL: this machine has no energy counter"
    assert energy.gpu_source == "the run did not use a GPU"


def test_real_load_on_a_core_is_flagged() -> None:
    """A process that spins on the usable cores is flagged, whatever else runs on the machine."""
    if not Path("/proc/stat").exists():
        pytest.skip("no /proc/stat here")
    machine = Machine()
    spin = "import time\nprint(flush=True)\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as spinner:
        assert spinner.stdout is not None
        spinner.stdout.readline()
        before = machine.read()
        time.sleep(1.0)
        seen = difference(before, machine.read())
    kinds = {kind for kind, _ in machine.suspicions(seen)}
    assert "other_load" in kinds


def test_total_of_readings_is_none_if_one_is_none() -> None:
    one, two = Reading(clock_s=1.0, busy_s=2.0), Reading(clock_s=3.0, cpu_j=5.0)
    assert total([one, two]) == Reading(clock_s=4.0)
    assert total([one, one]).busy_s == 4.0
    assert total([]) == Reading()


# ---- energy -----------------------------------------------------------------------------------------------


def zone(root: Path, number: str, name: str, microjoules: int) -> None:
    folder = f"sys/class/powercap/intel-rapl:{number}"
    write(root, f"{folder}/name", f"{name}\n")
    write(root, f"{folder}/energy_uj", f"{microjoules}\n")
    write(root, f"{folder}/max_energy_range_uj", "1000000\n")


def test_rapl_sums_package_and_memory_zones_only(tmp_path: Path) -> None:
    for number, name in (("0", "package-0"), ("0:0", "core"), ("0:1", "dram"), ("1", "package-1")):
        zone(tmp_path, number, name, 100_000)
    rapl = Rapl(tmp_path / "sys/class/powercap")
    assert rapl.source == "RAPL: package-0, dram, package-1"
    assert rapl.read_j() == pytest.approx(0.3)


def test_rapl_counter_that_wraps_around_is_corrected(tmp_path: Path) -> None:
    zone(tmp_path, "0", "package-0", 900_000)
    rapl = Rapl(tmp_path / "sys/class/powercap")
    before = rapl.read_j()
    zone(tmp_path, "0", "package-0", 200_000)
    after = rapl.read_j()
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(0.3)


def test_rapl_without_permission_gives_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "0", "package-0", 1)
    real = Path.read_text

    def read_text(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    rapl = Rapl(tmp_path / "sys/class/powercap")
    assert rapl.read_j() is None
    assert "only root can read" in rapl.source


def test_energy_is_given_per_sample_and_in_watts(root: Path) -> None:
    zone(root, "0", "package-0", 1)
    machine = Machine(root=root)
    train, inference = Reading(clock_s=10.0, cpu_j=500.0), Reading(clock_s=2.0, cpu_j=40.0)
    energy = machine.energy(train, 1000, inference, 8000)
    assert energy.cpu is not None
    assert (energy.cpu.train_j_per_sample, energy.cpu.train_w) == (0.5, 50.0)
    assert (energy.cpu.inference_j_per_sample, energy.cpu.inference_w) == (0.005, 20.0)
    assert energy.cpu_source == "RAPL: package-0"


# ---- GPU counters, with a fake NVML -------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """The only GPU of the machine."""
    gpu = FakeGpu("GPU-0")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(gpu))  # type: ignore[arg-type]
    monkeypatch.setattr(cuda_devices, "driver_uuid", lambda index: "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return gpu


def test_gpu_energy_memory_and_throttling(root: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("cuda:0", root=root)

    def work() -> None:
        gpu.millijoules = 1_500_000
        gpu.violations_ns = {0: 2 * 10**9, 1: 10**9}
        gpu.processes = [(os.getpid(), 700)]

    seen = passed(root, machine, monkeypatch, work)
    assert seen.gpu_j == 500.0
    assert machine.gpu_peak_bytes == 700
    assert machine.suspicions(seen) == [
        ("throttled", "power or thermal limits throttled the GPU for 30.0% of the time")
    ]
    gpu.processes = [(os.getpid(), 300)]
    machine.read()
    assert machine.gpu_peak_bytes == 700
    energy = machine.energy(seen, 100, seen, 1000)
    assert energy.gpu is not None
    assert (energy.gpu.train_j_per_sample, energy.gpu.train_w) == (5.0, 50.0)
    assert energy.gpu_source == "NVML: total energy consumption"


def test_other_process_on_the_gpu_is_flagged(root: Path, gpu: FakeGpu) -> None:
    gpu.processes = [(99_999_999, 50)]
    machine = Machine("cuda:0", root=root)
    machine.read()
    assert machine.suspicions(Reading(clock_s=1.0)) == [("other_load", "other processes on the GPU: 1")]


def test_other_process_that_ended_before_the_measurement_is_not_flagged(root: Path, gpu: FakeGpu) -> None:
    gpu.processes = [(99_999_999, 50)]
    machine = Machine("cuda:0", root=root)
    gpu.processes = [(os.getpid(), 50)]
    machine.read()
    assert machine.suspicions(Reading(clock_s=1.0)) == []


def test_own_process_in_a_container_is_not_flagged(root: Path, gpu: FakeGpu) -> None:
    """In a container, the driver may report the process IDs of the host, even if the context existed before."""
    before = gpu_processes()
    gpu.processes = [(99_999_999, 123)]
    machine = Machine("cuda:0", gpu_processes=before, root=root)
    machine.read()
    assert machine.gpu_peak_bytes == 123
    assert machine.suspicions(Reading(clock_s=1.0)) == []


def test_gpu_without_an_energy_counter_gives_the_reason(root: Path, gpu: FakeGpu) -> None:
    gpu.millijoules = None
    machine = Machine("cuda:0", root=root)
    energy = machine.energy(machine.read(), 1, machine.read(), 1)
    assert (energy.gpu, energy.gpu_source) == (None, "NVML: this GPU has no energy counter")


def test_missing_library_gives_the_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install nvidia-ml-py" in Machine("cuda:0", root=root).gpu_reason
