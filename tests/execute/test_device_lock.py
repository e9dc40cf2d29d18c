"""Tests of the lock that keeps two processes from measuring on the same device."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from command_line import Invoke
from toy_plugin import SET_FAST

from harness.data.cache import cache_dir
from harness.errors import BusyError
from harness.execute import device_lock
from harness.execute.device_lock import measuring_on
from harness.records.store import Store

TOY = ("run", "--task", "toy-classify", "--threads", "1", *SET_FAST, "--backend", "toy-numpy")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(device_lock, "WAIT_S", 0.01)


# flock(2) locks belong to an open file, so two locks of one process exclude each other like those of two processes.
@pytest.mark.parametrize(
    ("first", "second", "busy"),
    [
        (["cpu"], ["cpu"], True),
        (["auto"], ["cpu"], True),
        (["cuda"], ["cuda:0"], True),
        (["cuda:0"], ["auto"], True),
        (["cuda:0"], ["cuda:0"], True),
        (["cuda:0"], ["cuda:1"], False),
        (["cuda:0", "cuda:1"], ["cuda:1"], True),
        (["cuda:0", "cpu"], ["cuda:1"], True),
        ([], ["cuda:1"], False),
    ],
)
def test_measuring_on_excludes_processes_that_share_a_device(
    first: Iterable[str], second: Iterable[str], busy: bool
) -> None:
    with (
        measuring_on(first),
        pytest.raises(BusyError, match=r"another harness command \(process \d+") if busy else contextlib.nullcontext(),
        measuring_on(second) as waited,
    ):
        assert not waited
    with measuring_on(second):  # released, also after an exception
        pass


def test_measuring_on_waits_for_the_end_of_the_other_process() -> None:
    held, released, messages = threading.Event(), threading.Event(), []

    def hold() -> None:
        with measuring_on(["cpu"]):
            held.set()
            released.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)

    def say(text: str) -> None:
        messages.append(text)
        released.set()

    with measuring_on(["auto"], wait=True, say=say) as waited:
        assert waited
    thread.join()
    assert len(messages) == 1
    assert messages[0].startswith("waiting for another harness command (process ")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\x1b[31mred"])
def test_measuring_on_unreadable_holder_is_not_printed(content: bytes) -> None:
    with measuring_on(["cpu"]):
        (lock,) = Path(cache_dir(), device_lock.FOLDER).iterdir()
        lock.write_bytes(content)
        with pytest.raises(BusyError, match=r"^another harness command is measuring"), measuring_on(["cpu"]):
            pass


def test_measuring_on_cache_that_cannot_be_written_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with measuring_on(["cpu"]), measuring_on(["cpu"]):
        pass


def test_run_refuses_a_busy_device_unless_nothing_has_to_be_executed(invoke: Invoke, tmp_path: Path) -> None:
    with measuring_on(["cpu"]):
        busy = invoke(*TOY)
        assert (busy.exit_code, busy.stdout) == (1, "")
        assert "--wait" in busy.stderr
        assert Store(tmp_path / "results").load().runs == []
    assert invoke(*TOY).exit_code == 0
    with measuring_on(["cpu"]):
        assert invoke(*TOY).exit_code == 0
