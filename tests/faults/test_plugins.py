"""Faults of plugins in the command-line process.

Each fault is contained and reported, and none looks like a success.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from harmful_text import harmful
from toy_plugin import FAST, TOY_REF

from harness.execute import trial
from harness.execute.runner import run_all
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.find import named
from harness.records import Failure, Success
from harness.records.store import Store

from .conftest import CommandLine, wait_for

AT_IMPORT = {
    "exits": ("import os; os._exit(0)", "the plugin called os._exit(0), which would have terminated this process"),
    "exits_in_c": (
        "import ctypes; ctypes.CDLL(None).exit(0)",
        "it terminated the process that loaded it: exited with status 0 but returned no result",
    ),
    "crashes": ("import ctypes; ctypes.string_at(0)", "it terminated the process that loaded it: killed by SIGSEGV"),
    "aborts": ("import os; os.abort()", "it terminated the process that loaded it: killed by SIGABRT"),
    "kills": ("import os; os.kill(os.getpid(), 9)", "it terminated the process that loaded it: killed by SIGKILL"),
    "leaves": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "parses": ("import argparse; argparse.ArgumentParser().parse_args()", "SystemExit: 2"),
    "interrupts": ("raise KeyboardInterrupt", "it raised KeyboardInterrupt"),
    "generates": ("raise GeneratorExit", "GeneratorExit"),
    "recurses": ("def f(): f()\nf()", "RecursionError"),
    "runs_out": ("raise MemoryError", "MemoryError"),
    "hangs": ("import time; time.sleep(600)", "did not load within 1.5 s"),
    "floods": ("while True: print('flood')", "did not load within 1.5 s"),
}
HEALTHY = """
import harness
@harness.hookimpl
def harness_metrics():
    yield harness.Metric(
        name="fine", objective="regression", function="math:fsum", higher_is_better=True, summary=""
    )
"""


def write(folder: Path, name: str, source: str) -> Path:
    path = folder / f"plugin_that_{name}.py"
    path.write_text(source + "\n")
    return path


def test_faults_at_import_are_listed_with_their_reasons(command_line: CommandLine) -> None:
    files = [write(command_line.folder, name, source) for name, (source, _) in AT_IMPORT.items()]
    files.append(write(command_line.folder, "works", HEALTHY))
    command_line.environment |= {
        "HARNESS_PLUGINS": ",".join(map(str, files)),
        "HARNESS_PLUGIN_TIMEOUT": "1.5",
        "HARNESS_CACHE": str(command_line.folder / "cache"),
    }
    done = command_line.shell("$HARNESS plugin list --format json")
    assert done.returncode == 0, done.stderr
    listed = {row["name"]: row for row in json.loads(done.stdout)["plugins"]}
    for name, (_, reason) in AT_IMPORT.items():
        assert reason in listed[f"plugin_that_{name}"]["problem"], name
    assert not listed["plugin_that_works"]["problem"]


@pytest.mark.parametrize("name", ["exits", "exits_in_c", "crashes", "leaves", "interrupts"])
def test_run_with_a_faulty_plugin_never_exits_with_zero(name: str, command_line: CommandLine) -> None:
    source, reason = AT_IMPORT[name]
    path = write(command_line.folder, name, source)
    done = command_line.shell(f"$RUN --plugin {path}")
    assert done.returncode == 2
    assert f"plugin 'plugin_that_{name}' ({path}) is not loaded: " in done.stderr
    assert reason in done.stderr
    assert not (command_line.folder / "results").exists()


def test_tried_plugins_are_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    works, crashes = (
        named(str(write(tmp_path, "works", HEALTHY))),
        named(str(write(tmp_path, "aborts", "import os; os.abort()"))),
    )
    assert [failure.ref for failure in trial.crashing([works, crashes])] == [crashes]
    tried: list[object] = []
    monkeypatch.setattr(trial, "_try", lambda refs: tried.extend(refs) or (0, "x"))
    assert [failure.ref for failure in trial.crashing([works, crashes])] == [crashes]
    assert tried == [crashes]
    Path(works.value).write_text(HEALTHY + "# changed")
    trial.crashing([works])
    assert tried == [crashes, works]
    (tmp_path / "cache" / trial.KNOWN).write_text("damaged")
    trial.crashing([works])
    assert tried == [crashes, works, works]


INTRUSIVE = """
import os, sys
import harness
from pathlib import Path
{at_import}
@harness.hookimpl
def harness_run_started(spec):
    {in_hook}
@harness.hookimpl
def harness_run_finished(record):
    Path(os.environ["TOY_PID_FILE"]).write_text(record.run_id)
"""
INTRUSIONS = {
    "prints": ("print('noise'); os.write(1, b'noise')", ""),
    "prints_in_c": ("import ctypes; ctypes.CDLL(None).puts(b'noise')", ""),
    "changes_the_directory": ("os.chdir('/')", "changed the current directory"),
    "closes_stdin": ("os.close(0)", "closed or replaced descriptor 0"),
    "closes_stdout": ("os.close(1)", "closed or replaced descriptor 1"),
    "closes_stderr": ("os.close(2)", "closed or replaced descriptor 2"),
    "replaces_stdout": ("os.dup2(os.open(os.devnull, os.O_WRONLY), 1)", "closed or replaced descriptor 1"),
}


@pytest.mark.parametrize("where", ["at_import", "in_hook"])
@pytest.mark.parametrize("name", INTRUSIONS)
def test_change_of_the_process_is_undone_and_named(name: str, where: str, command_line: CommandLine) -> None:
    code, reason = INTRUSIONS[name]
    path = write(command_line.folder, name, INTRUSIVE.format(**{"at_import": "", "in_hook": "pass"} | {where: code}))
    done = command_line.shell(f"$RUN --plugin {path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("toy-regress")
    assert "noise" not in done.stdout
    assert reason in done.stderr
    (record,) = command_line.stored()
    assert isinstance(record.outcome, Success)
    assert (command_line.folder / "pids").read_text() == record.run_id


MANY_CHANGES = "; ".join(
    [
        "os.umask(0o777)",
        "sys.path.clear()",
        "sys.setrecursionlimit(sys.getrecursionlimit() // 4)",
        "os.environ.clear()",
        "sys.stderr.close()",
        "(os.fork() or os.write(2, b'forked'))",
    ]
)
REASONS = [
    "changed the umask",
    "removed entries of sys.path",
    "lowered the recursion limit",
    "environment variables",
    "closed or removed sys.stderr",
]


@pytest.mark.parametrize("where", ["at_import", "in_hook"])
def test_all_changes_of_the_process_are_undone_and_named(where: str, command_line: CommandLine) -> None:
    """The fork of the process that continues with the plugin's code ends, so the pipes are closed."""
    text = INTRUSIVE.format(**{"at_import": "", "in_hook": "pass"} | {where: MANY_CHANGES})
    text = text.replace('Path(os.environ["TOY_PID_FILE"])', f"Path({str(command_line.folder / 'pids')!r})")
    path = write(command_line.folder, "changes_all", text)
    done = command_line.shell(f"$RUN --plugin {path}")
    assert done.returncode == 0, done.stderr
    assert [reason for reason in REASONS if reason not in done.stderr] == []
    (record,) = command_line.stored()
    assert isinstance(record.outcome, Success)
    assert (command_line.folder / "results" / record.run_id / "record.json").stat().st_mode & 0o777 == 0o644
    assert (command_line.folder / "pids").read_text() == record.run_id


def test_plugin_that_closes_all_descriptors_is_named(command_line: CommandLine) -> None:
    path = write(command_line.folder, "closes_all", INTRUSIVE.format(at_import="", in_hook="os.closerange(0, 200)"))
    done = command_line.shell(f"$RUN --plugin {path}")
    assert done.returncode in (0, 1), done
    assert [type(record.outcome) for record in command_line.stored()] in ([Success], [Failure])


def test_function_at_exit_that_hangs_is_ended(command_line: CommandLine) -> None:
    code = "import atexit, time; atexit.register(time.sleep, 600)"
    path = write(command_line.folder, "never_exits", INTRUSIVE.format(at_import="", in_hook=code))
    done = command_line.shell(f"$RUN --plugin {path}", timeout_s=50)
    assert done.returncode == 0, done.stderr
    assert "a function that was registered with atexit did not return in time" in done.stderr


def test_interrupt_while_functions_at_exit_are_called_does_not_change_the_exit_status(
    command_line: CommandLine,
) -> None:
    """The runs are finished, or submitted with --detach, so the command has succeeded."""
    code = "import atexit, time; atexit.register(time.sleep, 2); atexit.register(Path('exiting').touch)"
    path = write(command_line.folder, "exits_slowly", INTRUSIVE.format(at_import="", in_hook=code))
    process = command_line.start(*command_line.run_words("toy-numpy"), "--plugin", str(path))
    wait_for((command_line.folder / "exiting").exists)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Saved 1 run" in stderr
    assert "Traceback" not in stderr


PRINTING = {
    "warnings": "import warnings; warnings.warn('evil\x1b[2J\x07\u202e')",
    "logging": "import logging; logging.error('evil\x1b[2J\x07\u202e')",
    "thread": "import threading; threading.Thread(target=exec, args=(\"raise OSError('evil\x1b[2J\x07')\",)).start()",
    "exception": "raise OSError('evil\x1b[2J\x07\u202e')",
    "print": "print('evil\x1b[2J\x07\u202e')",
}


def test_text_that_plugins_print_cannot_control_the_terminal(command_line: CommandLine) -> None:
    files = [write(command_line.folder, f"uses_{name}", code) for name, code in PRINTING.items()]
    command_line.environment |= {
        "HARNESS_PLUGINS": ",".join(map(str, files)),
        "HARNESS_CACHE": str(command_line.folder / "cache"),
    }
    done = command_line.shell("$HARNESS plugin list")
    assert done.returncode == 0
    assert done.stderr.count("evil") >= len(PRINTING)
    assert harmful(done.stderr + done.stdout) == []


@pytest.mark.parametrize("command", ["list", "plugin list", "$RUN", "plugin check plugin_that_is_broken"])
def test_plugin_that_is_not_loaded_is_reported_loudly(command: str, command_line: CommandLine) -> None:
    path = write(command_line.folder, "is_broken", "import sys; sys.exit(0)")
    command_line.environment["HARNESS_PLUGINS"] = str(path)
    done = command_line.shell(command if command == "$RUN" else f"$HARNESS {command}")
    assert f"Warning: plugin 'plugin_that_is_broken' ({path}) is not loaded: SystemExit: 0" in done.stderr
    assert done.returncode == (1 if "check" in command else 0), done.stderr


def test_run_that_needs_a_plugin_that_is_not_loaded_fails(command_line: CommandLine) -> None:
    path = write(command_line.folder, "is_broken", "import sys; sys.exit(0)")
    command_line.environment["HARNESS_PLUGINS"] = str(path)
    done = command_line.shell("$HARNESS run --task task-of-the-broken-plugin")
    assert done.returncode == 2
    assert "SystemExit: 0" in done.stderr


@pytest.mark.parametrize("content", [b"damaged", b"\xff", b'["\xff"]', b"[" * 10**5, b"", b"{}", b"[1]", None])
def test_damaged_list_of_tried_plugins_is_ignored(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    if content is None:
        os.mkfifo(tmp_path / trial.KNOWN)
    else:
        (tmp_path / trial.KNOWN).write_bytes(content)
    works = named(str(write(tmp_path, "works", HEALTHY)))
    monkeypatch.setattr(trial, "_try", lambda refs: (len(refs), ""))
    assert trial.crashing([works]) == []


IN_HOOK = {
    "exits": ("os._exit(0)", "the plugin called os._exit(0), which would have terminated this process"),
    "leaves": ("sys.exit(0)", "SystemExit: 0"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "generates": ("raise GeneratorExit", "GeneratorExit"),
    "hangs": ("import time; time.sleep(600)", "did not return within 1 s"),
}


@pytest.mark.parametrize("name", IN_HOOK)
def test_fault_in_a_hook_is_named_and_the_runs_continue(name: str, command_line: CommandLine) -> None:
    code, reason = IN_HOOK[name]
    path = write(command_line.folder, name, INTRUSIVE.format(at_import="", in_hook=code))
    command_line.environment["HARNESS_PLUGIN_TIMEOUT"] = "1"
    done = command_line.shell(f"$RUN --plugin {path}")
    assert done.returncode == 0, done.stderr
    assert f"plugin 'plugin_that_{name}' failed in harness_run_started: {reason}" in done.stderr
    assert [type(record.outcome) for record in command_line.stored()] == [Success]


def test_plugin_that_exits_at_the_end_does_not_change_the_status(command_line: CommandLine) -> None:
    source = "import atexit, os\natexit.register(lambda: os._exit(0))\n" + HEALTHY
    path = write(command_line.folder, "exits_last", source)
    words = " ".join(command_line.run_words("toy-killed"))
    done = command_line.shell(f"{words} --plugin {path}")
    assert done.returncode == 1


def test_thread_of_a_plugin_does_not_keep_the_process_alive(command_line: CommandLine) -> None:
    hook = (
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), name='forever', daemon=False).start()"
    )
    path = write(command_line.folder, "stays", INTRUSIVE.format(at_import="", in_hook=hook))
    done = command_line.shell(f"$RUN --plugin {path}")
    assert done.returncode == 0, done.stderr
    assert "the thread 'forever', which a plugin started, did not finish in time" in done.stderr
    assert [type(record.outcome) for record in command_line.stored()] == [Success]


SLOW = """
import harness, time
received = []
@harness.hookimpl
def harness_epoch_ended(epoch):
    time.sleep(0.8)
    received.append(epoch.epoch)
@harness.hookimpl
def harness_run_finished(record):
    received.append(record.run_id)
"""


def test_slow_listener_does_not_lengthen_the_run(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten epochs would take eight seconds. Those that are not delivered in time are dropped and reported."""
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "2")
    path = write(tmp_path, "is_slow", SLOW)
    catalog = load([TOY_REF, named(str(path))])
    overrides = (*FAST, "recipe.epochs=10")
    selection = Selection(tasks=("toy-regress",), backends=("toy-numpy",), overrides=overrides, threads=1)
    start = time.monotonic()
    (record,) = run_all(expand(selection, catalog), catalog, Store(tmp_path / "results"))
    assert isinstance(record.outcome, Success)
    elapsed_s = time.monotonic() - start
    received = sys.modules.pop(path.stem).received
    assert 1 < elapsed_s - record.wall_s < 6
    assert received[-1] == record.run_id
    assert received[:-1] == list(range(1, len(received)))
    dropped = 10 - len(received[:-1])
    assert dropped > 0
    assert f"plugin '{path.stem}' is too slow, so {dropped} events were not reported to it" in capsys.readouterr().err


def test_hook_that_receives_many_events_has_a_bounded_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.plugins import events as module
    from harness.records import EpochEnded

    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "1")
    path = write(tmp_path, "queues", SLOW)
    dispatcher = module.Events(load([named(str(path))]))
    epoch = EpochEnded(epoch=1, epochs=1, step=1, train_s=1.0, train_loss=1.0, validation={})
    start = time.monotonic()
    for _ in range(50_000):
        dispatcher.notify("harness_epoch_ended", spec=None, epoch=epoch, attempt_id="1")
    assert time.monotonic() - start < 5
    assert max(len(delivery._queue) for delivery in dispatcher._deliveries) == module.MAX_QUEUED
    dispatcher.drain()
    assert all(not delivery._queue for delivery in dispatcher._deliveries)
    sys.modules.pop(path.stem)
