"""Tests of the number of threads that the backends in a parity check use."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import harness_cli
from toy_plugin import PEERS, SET_FAST, install, install_toy

from harness.checks.parity import check
from harness.errors import UsageError
from harness.plan import devices
from harness.plan.expand import expand_all
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.records import RunSpec

TASK = ("--task", "toy-regress", "--backend", "toy-numpy,peer-wide")


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    install_toy(monkeypatch)
    install(monkeypatch, PEERS)
    monkeypatch.setenv("HARNESS_DISABLE_PLUGINS", "toy-faults")


@pytest.fixture
def threads_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], set[int]]:
    """Return a function that returns the numbers of threads of the backends in a check on a machine with the given
    number of cores. The check ends before the backends compute."""

    def threads(cores: int, start: Callable[[], object]) -> set[int]:
        checked: list[RunSpec] = []

        def stop(one: RunSpec, other: RunSpec, *_: Any, **__: Any) -> None:
            checked.extend([one, other])
            raise UsageError("stop")

        monkeypatch.setattr(devices, "available_cores", lambda: cores)
        monkeypatch.setattr(check, "check", stop)
        with contextlib.suppress(UsageError):
            start()
        assert len(checked) == 2
        return {spec.threads for spec in checked}

    return threads


def by_command(*arguments: str) -> object:
    return harness_cli("parity", *TASK, *arguments, status=2)


def by_assertion() -> object:
    from harness.testing import assert_parity

    return assert_parity(task="toy-regress", backends=("toy-numpy", "peer-wide"))


def by_conformance_kit() -> object:
    from harness.testing.check import Subject, parity

    return parity(Subject("network", "toy/peer-wide"), discover())


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 1), (3, 1), (9, 4)])
@pytest.mark.parametrize("start", [by_command, by_assertion, by_conformance_kit])
def test_default_is_half_of_the_cores(
    threads_on: Callable[..., set[int]], start: Callable[[], object], cores: int, expected: int
) -> None:
    assert threads_on(cores, start) == {expected}


def test_option_replaces_the_default(threads_on: Callable[..., set[int]]) -> None:
    assert threads_on(2, lambda: by_command("--threads", "2")) == {2}


@pytest.mark.parametrize(("given", "expected"), [((), 4), (("--threads", "8"), 4), (("--threads", "3"), 3)])
def test_check_before_runs_uses_at_most_half_of_the_cores(
    threads_on: Callable[..., set[int]], tmp_path: Path, given: tuple[str, ...], expected: int
) -> None:
    """The runs themselves use all cores by default, and one backend at a time."""

    def start() -> object:
        return harness_cli("run", *TASK, "--parity", *SET_FAST, *given, results=tmp_path, status=2)

    assert threads_on(8, start) == {expected}


def test_runs_with_different_numbers_of_threads_need_only_one_check() -> None:
    selection = Selection(tasks=("toy-regress",), backends=("toy-numpy", "peer-wide"))
    specs = expand_all([dataclasses.replace(selection, threads=threads) for threads in (1, 2)], discover())
    assert [spec.threads for spec in specs] == [1, 1, 2, 2]
    assert len(check.pairs(specs)) == 1
    assert check.compared(specs) == {spec.key for spec in specs}
