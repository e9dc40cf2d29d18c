"""Tests of the order in which the children of a parity check compute. The children are threads that wait at the gates
like processes, except in the tests of whole checks."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from toy_plugin import PEERS, install, install_toy

from harness.checks.parity import children
from harness.checks.parity.check import check
from harness.checks.parity.children import Gathered, gather_both
from harness.checks.parity.evidence import Handed, ParityJob, Ready
from harness.checks.parity.gate import gates, wait_at
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.records import Failure, RunSpec

FAILURE = Failure(kind="error", message="it broke")
REPORT: Any = object()


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    install_toy(monkeypatch)
    install(monkeypatch, PEERS)
    monkeypatch.setenv("HARNESS_DISABLE_PLUGINS", "toy-faults")


def specs(threads: int = 1, other: str = "peer-wide") -> tuple[RunSpec, RunSpec]:
    selection = Selection(tasks=("toy-regress",), backends=("toy-numpy", other), threads=threads)
    first, second = expand(selection, discover())
    return first, second


def test_gate_opens_for_all_that_wait_and_arrive_later(tmp_path: Path) -> None:
    with gates(tmp_path / "gate") as (gate,):
        waiting = threading.Thread(target=wait_at, args=(str(tmp_path / "gate"),))
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        gate.open()
        waiting.join(10)
        assert not waiting.is_alive()
        gate.open()
    wait_at(str(tmp_path / "gate"))
    wait_at("")


class Children:
    """Stand-ins for `children.gather` that log when each of two backends computes."""

    def __init__(
        self, devices: tuple[str, str], *, failing: bool = False, failing_early: str = "", meeting_s: float = 0.2
    ) -> None:
        self.log: list[str] = []
        self._devices = dict(zip(("toy-numpy", "peer-wide"), devices, strict=True))
        self._failing, self._failing_early = failing, failing_early
        self._meeting_s = meeting_s
        self.second_computes = threading.Event()

    def gather(
        self, job: ParityJob, folder: Path, timeout_s: float, *, on_event: Callable[[Any], None], **more: Any
    ) -> Gathered:
        name = job.spec.backend
        second = name == "peer-wide"
        self.log.append(f"{name} starts")
        if name == self._failing_early:
            return Gathered(folder, None, FAILURE)
        on_event(Ready(device=self._devices[name]))
        wait_at(job.turn)
        self.log.append(f"{name} computes")
        if second:
            self.second_computes.set()
            if self._failing:
                os.read(more["lifeline"].fileno(), 1)
                self.log.append(f"{name} is ended")
                return Gathered(folder, None, FAILURE)
            wait_at(job.late_gate)
        else:
            self.second_computes.wait(self._meeting_s)
            if self._failing:
                return Gathered(folder, None, FAILURE)
            self.log.append(f"{name} hands over")
            on_event(Handed())
        self.log.append(f"{name} ends")
        return Gathered(folder, REPORT, None)


def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stand_ins: Children, *, cores: int, threads: int = 1
) -> tuple[dict[str, Gathered], list[str]]:
    monkeypatch.setattr(children, "gather", stand_ins.gather)
    monkeypatch.setattr(children, "available_cores", lambda: cores)
    jobs = [ParityJob(spec=spec, plugins=(), steps=3) for spec in specs(threads)]
    return gather_both(jobs[0], jobs[1], tmp_path, 60, say=lambda _: None), stand_ins.log


def test_backends_compute_side_by_side_if_there_are_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, log = run(monkeypatch, tmp_path, Children(("cpu", "cpu"), meeting_s=30), cores=2)
    assert list(found) == ["toy-numpy", "peer-wide"]
    assert log.index("peer-wide computes") < log.index("toy-numpy hands over") < log.index("peer-wide ends")


@pytest.mark.parametrize(
    ("cores", "threads", "devices"),
    [(2, 2, ("cpu", "cpu")), (3, 2, ("cpu", "cpu")), (8, 1, ("cuda:0", "cpu")), (8, 1, ("cuda:0", "cuda:0"))],
)
def test_backends_only_prepare_side_by_side_if_cores_or_the_gpu_do_not_suffice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, threads: int, devices: tuple[str, str]
) -> None:
    _, log = run(monkeypatch, tmp_path, Children(devices), cores=cores, threads=threads)
    assert sorted(log[:2]) == ["peer-wide starts", "toy-numpy starts"]
    assert log[2:-2] == ["toy-numpy computes", "toy-numpy hands over", "toy-numpy ends"]
    assert log[-2:] == ["peer-wide computes", "peer-wide ends"]


def test_backends_run_one_after_the_other_on_one_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, log = run(monkeypatch, tmp_path, Children(("cpu", "cpu")), cores=1)
    words = ("starts", "computes", "hands over", "ends")
    expected = [f"{name} {word}" for name in ("toy-numpy", "peer-wide") for word in words]
    assert log == [each for each in expected if each != "peer-wide hands over"]


def test_failure_of_the_first_backend_ends_the_second(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, log = run(monkeypatch, tmp_path, Children(("cpu", "cpu"), failing=True, meeting_s=30), cores=2)
    assert {name: each.failure for name, each in found.items()} == {"toy-numpy": FAILURE}
    assert log[-1] == "peer-wide is ended"


def test_early_failure_of_the_second_backend_does_not_stop_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, log = run(monkeypatch, tmp_path, Children(("cpu", "cpu"), failing_early="peer-wide"), cores=2)
    assert [each.failure for each in found.values()] == [None, FAILURE]
    assert "toy-numpy ends" in log


def test_verdict_does_not_depend_on_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backends differ, so the check also computes the perturbed reference, in one child or in two."""
    verdicts = []
    said: list[list[str]] = []
    for cores in (1, 2):
        monkeypatch.setattr(children, "available_cores", lambda cores=cores: cores)
        said.append([])
        verdict = check(*specs(other="peer-hasty"), discover(), steps=3, say=said[-1].append)
        verdicts.append(msgspec.structs.replace(verdict, checked_at="", wall_s=0.0))
    assert verdicts[0] == verdicts[1]
    assert not verdicts[0].passed
    assert verdicts[0].reference == "peer-wide"
    stages = ["outputs, gradients and one optimizer step", "3 training steps"]
    later = "outputs and gradients after training"
    own = [*stages, "training on small batches", later]
    for lines in said:
        shown = [re.sub(r" \(after \d+ s\)$", "", line) for line in lines if "(after " in line]
        expected = [("toy-numpy in fp32", own), ("peer-hasty in fp32", own), ("peer-wide in fp64", [*stages, later])]
        assert sorted(shown) == sorted(f"{title}: {stage}" for title, parts in expected for stage in parts)
