"""Faulty backends. Most of them fail in training step `BAD_STEP`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_toy import NumpyBackend, NumpySession

import harness
from harness import Batch, DeviceInfo, NetworkRef, SessionRequest, UnsupportedError

BAD_STEP = 5


def segfault() -> None:
    ctypes.string_at(0)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    print("hanging", flush=True)
    time.sleep(3600)


def hang_ignoring_term() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang()


def hang_with_grandchild() -> None:
    _start_grandchild()
    hang()


def leave_grandchild() -> None:
    _start_grandchild()


def _start_grandchild() -> None:
    """Start a process that sleeps, and write the IDs of this process and of it to the file ``TOY_PID_FILE``."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    path = Path(os.environ["TOY_PID_FILE"])
    path.with_suffix(".new").write_text(f"{os.getpid()} {sleeper.pid}")
    path.with_suffix(".new").rename(path)


def raise_value_error() -> None:
    raise ValueError("the toy broke\nand this is its second line")


def raise_memory_error() -> None:
    raise MemoryError


def raise_unsupported() -> None:
    raise UnsupportedError("the toy does not support this")


def exit_silently() -> None:
    os._exit(0)


def exit_with_status() -> None:
    os._exit(3)


def sys_exit() -> None:
    sys.exit("the toy exits")


def write_garbage() -> None:
    """Write an incomplete result and incomplete arrays, and exit with status 0."""
    Path(sys.argv[2], "arrays.npz").write_bytes(b"PK")
    os.write(int(sys.argv[3]), b'{"type": "result", "body": {"run_id": "nonsense"')
    os._exit(0)


def send_garbage() -> None:
    """Send lines that are not messages, an invalid event, a result that is replaced later, and an incomplete line."""
    event, result = b'{"type": "event", "body": {"type": "epoch"}}', b'{"type": "result", "body": 1}'
    lines = [b"not json", event, b"\xff\xfe", result]
    os.write(int(sys.argv[3]), b"\n".join([*lines, b"cut o"]))


def close_pipe() -> None:
    os.close(int(sys.argv[3]))


def chatter() -> None:
    for number in range(2000):
        print(f"toy chatter on stdout, line {number}")
        print(f"toy chatter on stderr, line {number}", file=sys.stderr)
    os.write(1, b"toy chatter past Python\n")


def change_directory() -> None:
    os.chdir("/")


def remove_job() -> None:
    Path(sys.argv[2], "job.json").unlink()


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def endless_output() -> None:
    print("first line", flush=True)
    while True:
        os.write(1, 1000 * b"endless output\n")


def endless_events() -> None:
    event = b'{"type":"event","body":{"type":"phase","phase":"endless"}}\n'
    while True:
        os.write(int(sys.argv[3]), 1000 * event)


def endless_results() -> None:
    while True:
        os.write(int(sys.argv[3]), 1000 * b'{"type":"result","body":{"run_id":"flood"}}\n')


def endless_line() -> None:
    while True:
        os.write(int(sys.argv[3]), (1 << 20) * b"x")


def long_event() -> None:
    """Send an event of 80 MiB, which is longer than the limit of a line, and continue."""
    os.write(int(sys.argv[3]), b'{"type":"event","body":"')
    for _ in range(80):
        os.write(int(sys.argv[3]), (1 << 20) * b"x")
    os.write(int(sys.argv[3]), b'"}\n')


def much_output() -> None:
    print("first line", flush=True)
    for _ in range(3000):
        os.write(1, 1000 * b"much output\n")
    print("last line", flush=True)


def holding_daemon() -> None:
    """Start a process in a separate session that holds the channel and the log open, and write its process ID."""
    _start_daemon("import time; time.sleep(3600)")


def flooding_daemon() -> None:
    _start_daemon(f"import os\nwhile True: os.write({sys.argv[3]}, 1000 * b'line\\n')")


def _start_daemon(code: str) -> None:
    channel = int(sys.argv[3])
    daemon = subprocess.Popen([sys.executable, "-c", code], pass_fds=(channel,), start_new_session=True)
    Path(os.environ["TOY_PID_FILE"]).write_text(str(daemon.pid))


def exhaust_memory() -> None:
    import resource

    import numpy as np

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    np.ones(1 << 30)


def use_memory() -> None:
    """Use 20 MB more every 50 ms in this process and in another one, up to 2 GB."""
    import numpy as np

    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", "held = bytearray(b'x') * 100_000_000; input()"])
    held = []
    for _ in range(100):
        held.append(np.ones(20_000_000, np.uint8))
        time.sleep(0.05)


def exhaust_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    globals()["_files"] = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]


def fork_and_continue() -> None:
    """Continue in a forked process, which also sends, while this process exits."""
    if os.fork():
        os._exit(0)


def leave_streams() -> None:
    for fd in (0, 1, 2):
        os.close(fd)


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def leave_thread() -> None:
    """Start a thread that keeps the process alive after its result."""
    threading.Thread(target=time.sleep, args=(3600,)).start()


def _results() -> Path:
    return Path(sys.argv[2]).parent


def remove_results() -> None:
    shutil.rmtree(_results())


def rename_results() -> None:
    _results().rename(_results().with_name("renamed"))


def results_become_a_link() -> None:
    rename_results()
    _results().with_name("elsewhere").mkdir()
    _results().symlink_to("elsewhere")


def results_become_a_file() -> None:
    rename_results()
    _results().write_text("in the way")


def results_become_a_dangling_link() -> None:
    rename_results()
    _results().symlink_to("/nonexistent/place")


def results_become_read_only() -> None:
    """Mount an empty, read-only file system over the results directory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(_results())], check=True)


def results_become_unwritable() -> None:
    _results().chmod(0o555)


def plant_pipe() -> None:
    """Replace the log by a pipe, and end without output."""
    Path(sys.argv[2], "log.txt").unlink()
    os.mkfifo(Path(sys.argv[2], "log.txt"))
    killed()


def _victim() -> Path:
    victim = _results().with_name("victim")
    victim.write_text("precious")
    return victim


def plant_log_link() -> None:
    Path(sys.argv[2], "log.txt").unlink()
    Path(sys.argv[2], "log.txt").symlink_to(_victim())
    killed()


def plant_dangling_log() -> None:
    Path(sys.argv[2], "log.txt").unlink()
    Path(sys.argv[2], "log.txt").symlink_to(_results().with_name("absent"))
    print("a line")


def plant_record_link() -> None:
    Path(sys.argv[2], "record.json").symlink_to(_victim())


def plant_directory_link() -> None:
    """Replace the directory of the run by a link to another directory."""
    elsewhere = _results().with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "record.json").write_text("precious")
    scratch = Path(sys.argv[2])
    scratch.rename(scratch.with_name("moved"))
    scratch.symlink_to(elsewhere)


def fill_disk() -> None:
    """Fill the file system of the results directory, which a test has mounted there."""
    with contextlib.suppress(OSError), Path(sys.argv[2], "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def fill_disk_from_outside() -> None:
    """Fill the file system with a file that is not removed with the run."""
    with contextlib.suppress(OSError), (_results() / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def fill_disk_and_die() -> None:
    fill_disk_from_outside()
    killed()


def fill_disk_and_print() -> None:
    fill_disk_from_outside()
    for number in range(5000):
        print("output on a full disk", number, flush=True)


def _hang_if_requested() -> None:
    """Write the process ID of a child to the directory ``TOY_HANG`` and sleep, if the variable is set."""
    if "TOY_HANG" in os.environ and sys.argv[0].endswith("child_main.py"):
        path = Path(os.environ["TOY_HANG"], sys.argv[1])
        new = path.with_name(f"{os.getpid()}.new")  # unique, because several children write at the same time
        new.write_text(str(os.getpid()))
        new.rename(path)
        hang()


_hang_if_requested()


FAULTS = {
    "toy-segfault": segfault,
    "toy-killed": killed,
    "toy-hang": hang,
    "toy-hang-ignoring-term": hang_ignoring_term,
    "toy-hang-with-grandchild": hang_with_grandchild,
    "toy-leave-grandchild": leave_grandchild,
    "toy-value-error": raise_value_error,
    "toy-memory-error": raise_memory_error,
    "toy-unsupported": raise_unsupported,
    "toy-exit-silently": exit_silently,
    "toy-exit-with-status": exit_with_status,
    "toy-sys-exit": sys_exit,
    "toy-write-garbage": write_garbage,
    "toy-send-garbage": send_garbage,
    "toy-close-pipe": close_pipe,
    "toy-chatter": chatter,
    "toy-change-directory": change_directory,
    "toy-remove-job": remove_job,
    "toy-abort": os.abort,
    "toy-stopped": stopped,
    "toy-endless-output": endless_output,
    "toy-endless-events": endless_events,
    "toy-endless-results": endless_results,
    "toy-endless-line": endless_line,
    "toy-long-event": long_event,
    "toy-much-output": much_output,
    "toy-holding-daemon": holding_daemon,
    "toy-flooding-daemon": flooding_daemon,
    "toy-exhaust-memory": exhaust_memory,
    "toy-use-memory": use_memory,
    "toy-exhaust-files": exhaust_files,
    "toy-fork-and-continue": fork_and_continue,
    "toy-leave-thread": leave_thread,
    "toy-leave-streams": leave_streams,
    "toy-raise-interrupt": raise_interrupt,
    "toy-remove-results": remove_results,
    "toy-rename-results": rename_results,
    "toy-results-link": results_become_a_link,
    "toy-results-file": results_become_a_file,
    "toy-results-dangling": results_become_a_dangling_link,
    "toy-results-read-only": results_become_read_only,
    "toy-results-unwritable": results_become_unwritable,
    "toy-plant-pipe": plant_pipe,
    "toy-plant-log-link": plant_log_link,
    "toy-plant-dangling-log": plant_dangling_log,
    "toy-plant-record-link": plant_record_link,
    "toy-plant-directory-link": plant_directory_link,
    "toy-fill-disk": fill_disk,
    "toy-fill-disk-outside": fill_disk_from_outside,
    "toy-fill-disk-and-die": fill_disk_and_die,
    "toy-fill-disk-and-print": fill_disk_and_print,
}


class FaultySession(NumpySession):
    def __init__(self, request: SessionRequest, fault: str) -> None:
        super().__init__(request)
        self.fault = fault
        if fault == "toy-small-batches" and request.recipe.batch_size > 4:
            raise MemoryError("the batch is too large")
        self.cached_outputs: dict[bytes, Any] = {}
        self.weights_were_read = False

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        loss = super().train_step(batch, learning_rate)
        if self.steps == BAD_STEP:
            if self.fault == "toy-nan-loss":
                return loss * float("nan")
            if self.fault in FAULTS:
                FAULTS[self.fault]()
        if self.fault == "toy-idle":
            self.network.module.values.update({name: value.copy() for name, value in self.untrained.items()})
        return loss

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        if self.fault == "toy-remembers":
            key = inputs["features"].tobytes()
            if key not in self.cached_outputs:
                time.sleep(0.001)
                self.cached_outputs[key] = super().predict(inputs)
            return self.cached_outputs[key]
        outputs = super().predict(inputs)
        match self.fault:
            case "toy-writes-inputs":
                inputs["features"][:] *= 0.5
            case "toy-nan-predictions":
                outputs[0] = float("nan")
            case "toy-few-predictions":
                return outputs[:-1]
            case "toy-flat-predictions":
                return outputs[:, 0]
            case "toy-hasty" if not self.weights_were_read:  # during the timed loops
                return outputs * 0
        return outputs

    def get_weights(self) -> dict[str, Any]:
        self.weights_were_read = True
        weights = super().get_weights()
        if self.fault == "toy-lost-weight":
            del weights["linear.bias"]
        if self.fault == "toy-restless":
            self.network.module.values["bias"] += 1
        return weights

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        super().set_weights(weights)
        self.untrained = {name: value.copy() for name, value in self.network.module.values.items()}


class FaultyBackend(NumpyBackend):
    summary = "a faulty backend"
    checkpoints = False

    def __init__(self, fault: str) -> None:
        self.name = fault  # type: ignore[misc] # the name of an instance is its fault

    def open(self, request: SessionRequest) -> NumpySession:
        return FaultySession(request, self.name)

    def devices(self) -> Sequence[DeviceInfo]:
        match self.name:
            case "toy-no-devices":
                return []
            case "toy-odd-device":
                return [DeviceInfo(name="cpu", description="the host", precisions=("fp8",))]  # type: ignore[arg-type]
            case "toy-segfault-in-devices":
                segfault()
        return super().devices()


NAMES = (
    *FAULTS,
    "toy-nan-loss",
    "toy-nan-predictions",
    "toy-writes-inputs",
    "toy-few-predictions",
    "toy-flat-predictions",
    "toy-lost-weight",
    "toy-remembers",
    "toy-hasty",
    "toy-small-batches",
    "toy-restless",
    "toy-idle",
    "toy-no-devices",
    "toy-odd-device",
    "toy-segfault-in-devices",
)


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    for name in NAMES:
        yield FaultyBackend(name)


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    for name in NAMES:
        yield NetworkRef(model="toy", backend=name, build="harness_toy:build")
