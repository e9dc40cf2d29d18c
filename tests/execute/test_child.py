"""The child process itself: its output, its events, its end, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import gone
from toy_plugin import environment_with

from harness.execute import child
from harness.execute.child import Ended, run_child

Run = Callable[..., tuple[Ended, list[bytes], str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a script as a child; returns how it ended, the lines that it sent, and its log."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def run(script: str, *, timeout_s: float = 30, on_line: Any = None, **environment: str) -> Any:
        (tmp_path / "made_child.py").write_text(
            "import os, sys, time\nfd = int(sys.argv[-1])\n" + textwrap.dedent(script)
        )
        lines: list[bytes] = []
        ended = run_child(
            "made_child",
            ["one", "two words"],
            log=tmp_path / "log.txt",
            timeout_s=timeout_s,
            on_line=on_line or lines.append,
            environment=environment,
        )
        return ended, lines, (tmp_path / "log.txt").read_text()

    return run


def test_lines_output_and_status(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    ended, lines, log = run(
        """
        os.write(fd, b"first\\nsec")
        time.sleep(0.05)
        os.write(fd, b"ond\\n\\nlast, cut o")
        print(sys.argv[1:-1], sys.stdin.read() == "", os.environ["GREETING"])
        print("to stderr", file=sys.stderr)
        os.write(1, b"past Python\\n")
        sys.exit(3)
    """,
        GREETING="hello",
    )
    assert (ended.status, ended.timed_out) == (3, False)
    assert 0 < ended.seconds < 10
    assert lines == [b"first", b"second", b""]
    assert sorted(log.splitlines()) == ["['one', 'two words'] True hello", "past Python", "to stderr"]
    assert capfd.readouterr() == ("", "")


def test_child_does_not_import_from_the_current_directory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "wave.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path / "here")
    assert run("import wave")[0].status == 0


def test_many_lines_arrive_whole_and_in_order(run: Run) -> None:
    ended, lines, _ = run("""
        for number in range(20000):
            os.write(fd, b"line %d\\n" % number)
    """)
    assert ended.status == 0
    assert lines == [b"line %d" % number for number in range(20_000)]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, 40])
def test_signal_is_the_negative_status(number: int, run: Run) -> None:
    ended, _, _ = run(f"os.kill(os.getpid(), {int(number)})")
    assert ended.status == -number
    assert ended.how == f"killed by {getattr(number, 'name', 'signal 40')}"


def test_timeout(run: Run) -> None:
    ended, lines, log = run(
        """
        os.write(fd, b"begun\\n")
        print("begun", flush=True)
        time.sleep(600)
    """,
        timeout_s=1.0,
    )
    assert ended.timed_out
    assert 1.0 <= ended.seconds < 6
    assert (lines, log) == ([b"begun"], "begun\n")


def test_timeout_of_one_that_ignores_term(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "TERM_WAIT_S", 0.2)
    ended, _, _ = run(
        """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    """,
        timeout_s=1.0,
    )
    assert ended.timed_out
    assert ended.seconds < 5


@pytest.mark.parametrize("then", ["time.sleep(600)", "pass", "os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_grandchildren_end_with_the_child(then: str, run: Run) -> None:
    """Those in its process group: they hold its log and its pipe, and would go on computing."""
    ended, lines, _ = run(
        f"""
        import subprocess
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
        os.write(fd, b"%d\\n" % sleeper.pid)
        {then}
    """,
        timeout_s=1.0,
    )
    assert ended.timed_out == ("600" in then)
    assert gone(int(lines[0]))


def test_child_ends_when_the_listener_fails(run: Run) -> None:
    pids: list[int] = []

    def fail(line: bytes) -> None:
        pids.append(int(line))
        raise BrokenPipeError("nobody reads any more")

    with pytest.raises(BrokenPipeError):
        run('os.write(fd, b"%d\\n" % os.getpid()); time.sleep(600)', on_line=fail)
    assert gone(pids[0])


def test_second_interrupt_does_not_wait_and_leaves_nothing_behind(run: Run) -> None:
    """The child ignores SIGTERM; a user who presses Ctrl-C again must not get an orphan."""
    pids: list[int] = []

    def interrupt(line: bytes) -> None:
        pids.append(int(line))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(
            """
            import signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(fd, b"%d\\n" % os.getpid())
            time.sleep(600)
        """,
            on_line=interrupt,
        )
    assert time.monotonic() - start < 0.9 * child.TERM_WAIT_S
    assert gone(pids[0])


def test_parent_sleeps_while_it_waits(run: Run) -> None:
    before = time.process_time()
    ended, _, _ = run("time.sleep(1.5)")
    assert ended.seconds > 1.5
    assert time.process_time() - before < 0.1


def test_without_an_exit_signal_the_child_is_asked_now_and_then(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    before = time.process_time()
    ended, lines, _ = run('os.write(fd, b"x\\n"); os.close(fd); time.sleep(0.3)')
    assert (ended.status, lines) == (0, [b"x"])
    assert ended.seconds < 3
    assert time.process_time() - before < 0.1


@pytest.mark.parametrize("timeout_s", [1e9, 1e15, float("inf")])
def test_limits_beyond_any_timer(timeout_s: float, run: Run) -> None:
    assert run("pass", timeout_s=timeout_s)[0].status == 0


def test_no_descriptor_is_left_open(run: Run) -> None:
    run("pass")
    before = psutil.Process().num_fds()
    run("pass")
    with pytest.raises(OSError, match="No such file"):
        run_child("x", [], log=Path("/no/such/place"), timeout_s=1, on_line=print, environment={})
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize("closed", ["1", "1,2", "0,1,2"])
def test_parent_without_standard_streams(closed: str, tmp_path: Path) -> None:
    """As under some schedulers: the pipe must not get the number of the child's stdout."""
    (tmp_path / "made_child.py").write_text(
        "import os, sys\nos.write(int(sys.argv[-1]), b'event\\n')\nprint('chatter')\n"
    )
    script = f"""
import os
for fd in ({closed},):
    os.close(fd)
from pathlib import Path
from harness.execute.child import run_child
lines = []
ended = run_child("made_child", [], log=Path("log.txt"), timeout_s=20, on_line=lines.append, environment={{}})
Path("seen.txt").write_text(repr((ended.status, lines)))
"""
    environment = environment_with(tmp_path)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, timeout=30, check=False)
    assert (tmp_path / "seen.txt").read_text() == "(0, [b'event'])"
    assert (tmp_path / "log.txt").read_text() == "chatter\n"
