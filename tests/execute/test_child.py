"""Tests of child processes: results, events, output, exit, and clean-up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import child_functions as functions
import msgspec
import psutil
import pytest
from processes import gone
from toy_plugin import TOY, environment_with

from harness.errors import RecordError
from harness.execute import channel, child
from harness.execute.child import call_in_child, calls_in_children, run_process, run_program
from harness.execute.failures import Ended
from harness.records import Failure

Run = Callable[..., tuple[Ended, list[bytes], str]]
HELPERS = str(Path(functions.__file__).parent)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a script as a child and returns its end, the lines that it sent, and its log."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def run(script: str, *, timeout_s: float = 30, on_line: Any = None, **environment: str) -> Any:
        (tmp_path / "made_child.py").write_text(
            "import os, sys, time\nfd = int(sys.argv[-3])\n" + textwrap.dedent(script)
        )
        lines: list[bytes] = []
        ended = run_process(
            "made_child",
            ["one", "two words"],
            log=tmp_path / "log.txt",
            timeout_s=timeout_s,
            on_line=on_line or lines.append,
            environment=environment,
        )
        return ended, lines, (tmp_path / "log.txt").read_text()

    return run


def test_run_process_collects_lines_log_and_status(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    ended, lines, log = run(
        """
        os.write(fd, b"first\\nsec")
        time.sleep(0.05)
        os.write(fd, b"ond\\n\\nlast, cut o")
        print(sys.argv[1:-3], sys.stdin.read() == "", os.environ["GREETING"])
        print("to stderr", file=sys.stderr)
        os.write(1, b"past Python\\n")
        sys.exit(3)
    """,
        GREETING="hello",
    )
    assert (ended.status, ended.timed_out) == (3, False)
    assert 0 < ended.seconds < 10
    assert lines == [b"first", b"second"]
    assert sorted(log.splitlines()) == ["['one', 'two words'] True hello", "past Python", "to stderr"]
    assert capfd.readouterr() == ("", "")


def test_child_never_imports_from_the_current_directory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "wave.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path / "here")
    assert run("import wave")[0].status == 0


def test_many_lines_arrive_complete_and_in_order(run: Run) -> None:
    ended, lines, _ = run("""
        for number in range(20000):
            os.write(fd, b"line %d\\n" % number)
    """)
    assert ended.status == 0
    assert lines == [b"line %d" % number for number in range(20_000)]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, 40])
def test_signal_gives_its_negative_number_as_status(number: int, run: Run) -> None:
    ended, _, _ = run(f"os.kill(os.getpid(), {int(number)})")
    assert ended.status == -number
    assert ended.how == f"killed by {getattr(number, 'name', 'signal 40')}"


def test_timeout_ends_the_child(run: Run) -> None:
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


def test_timeout_ends_a_child_that_ignores_sigterm(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Grandchildren in the process group hold the log and the channel open, and would continue computing."""
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


def test_child_ends_if_the_callback_raises(run: Run) -> None:
    pids: list[int] = []

    def fail(line: bytes) -> None:
        pids.append(int(line))
        raise BrokenPipeError("the reader is gone")

    with pytest.raises(BrokenPipeError):
        run('os.write(fd, b"%d\\n" % os.getpid()); time.sleep(600)', on_line=fail)
    assert gone(pids[0])


def test_second_interrupt_kills_the_child_without_waiting(run: Run) -> None:
    """The child ignores SIGTERM; pressing Ctrl-C again must not leave an orphan."""
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


def test_child_without_an_exit_signal_is_polled(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    before = time.process_time()
    ended, lines, _ = run('os.write(fd, b"x\\n"); os.close(fd); time.sleep(0.3)')
    assert (ended.status, lines) == (0, [b"x"])
    assert ended.seconds < 3
    assert time.process_time() - before < 0.1


@pytest.mark.parametrize("timeout_s", [1e9, 1e15, float("inf")])
def test_timeout_beyond_any_timer_is_accepted(timeout_s: float, run: Run) -> None:
    assert run("pass", timeout_s=timeout_s)[0].status == 0


def test_run_process_leaves_no_descriptor_open(run: Run) -> None:
    run("pass")
    before = psutil.Process().num_fds()
    run("pass")
    with pytest.raises(OSError, match="No such file"):
        run_process("x", [], log=Path("/no/such/place"), timeout_s=1, on_line=print, environment={})
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize("closed", ["1", "1,2", "0,1,2"])
def test_parent_without_standard_streams_receives_lines(closed: str, tmp_path: Path) -> None:
    """Some schedulers close the standard streams; the channel must not take a descriptor of the child's stdout."""
    (tmp_path / "made_child.py").write_text(
        "import os, sys\nos.write(int(sys.argv[-3]), b'event\\n')\nprint('chatter')\n"
    )
    script = f"""
import os
for fd in ({closed},):
    os.close(fd)
from pathlib import Path
from harness.execute.child import run_process
lines = []
ended = run_process("made_child", [], log=Path("log.txt"), timeout_s=20, on_line=lines.append, environment={{}})
Path("seen.txt").write_text(repr((ended.status, lines)))
"""
    environment = environment_with(tmp_path)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, timeout=30, check=False)
    assert (tmp_path / "seen.txt").read_text() == "(0, [b'event'])"
    assert (tmp_path / "log.txt").read_text() == "chatter\n"


# ---- lines on the channel ---------------------------------------------------------------------------------


def test_overlong_line_is_ignored_and_the_next_one_arrives(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_LINE_BYTES", 100_000)
    _, lines, _ = run("""
        for part in range(10):
            os.write(fd, b"x" * 50_000)
        os.write(fd, b"\\nshort\\n" + b"y" * 100_000 + b"\\n")
    """)
    assert lines == [b"short", b"y" * 100_000]


def test_endless_lines_do_not_delay_the_timeout(run: Run) -> None:
    ended, _, _ = run("while True: os.write(fd, 1000 * b'line\\n')", timeout_s=1.0)
    assert ended.timed_out
    assert ended.seconds < 6


def test_grandchild_that_keeps_writing_does_not_delay_the_end(run: Run) -> None:
    """The grandchild is in another process group, so it outlives the child until the channel has no reader."""
    ended, lines, _ = run("""
        import subprocess
        code = f"import os\\nwhile True: os.write({fd}, 1000 * b'line\\\\n')"
        writer = subprocess.Popen([sys.executable, "-c", code], close_fds=False, start_new_session=True)
        os.write(fd, b"%d\\n" % writer.pid)
        time.sleep(0.5)
    """)
    assert (ended.status, ended.timed_out) == (0, False)
    assert ended.seconds < 10
    assert gone(int(next(line for line in lines if line != b"line")))


# ---- functions in children --------------------------------------------------------------------------------

NUMBERS = functions.Numbers((1, 2, 3))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that calls a function of `child_functions` in a child, in the directory `tmp_path`."""
    monkeypatch.setenv("PYTHONPATH", HELPERS)

    def call(function: Callable[[functions.Numbers, child.ChildContext], functions.Total], **options: Any) -> Any:
        return call_in_child(function, NUMBERS, **{"timeout_s": 30, "environment": {}, "directory": tmp_path} | options)

    return call


@pytest.mark.parametrize("function", [functions.add, functions.add_with_noise])
def test_call_returns_the_result_and_reports_events(function: Any, call: Callable[..., Any], tmp_path: Path) -> None:
    events: list[functions.Seen] = []
    result = call(function, event_type=functions.Seen, on_event=events.append)
    assert result == functions.Total(6, f"child_functions:{function.__name__}")
    assert events == [functions.Seen(1), functions.Seen(3), functions.Seen(6)]
    assert (tmp_path / "large").read_text() == "6"
    assert (tmp_path / "log.txt").read_text() == "adding\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "log.txt"]


def test_events_from_several_threads_arrive_complete(call: Callable[..., Any]) -> None:
    events: list[functions.Text] = []
    call(functions.send_from_threads, event_type=functions.Text, on_event=events.append)
    assert sorted(event.text for event in events) == sorted(str(n) * 100_000 for n in (1, 2, 3) for _ in range(20))


@pytest.mark.parametrize(("users", "expected"), [(None, "PCI_BUS_ID"), ("FASTEST_FIRST", "FASTEST_FIRST")])
def test_child_numbers_gpus_in_bus_order_unless_the_user_chose_another(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, users: str | None, expected: str
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if users:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", users)
    assert call(functions.device_order).argument == expected


def test_call_without_a_directory_leaves_no_file(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert call(functions.add, directory=None).value == 6
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("function", "kind", "message", "logged"),
    [
        (functions.fail, "error", "ValueError: it broke", "and this is its second line"),
        (functions.refuse, "unsupported", "not on this machine", "UnsupportedError: not on this machine"),
        (functions.return_another_type, "bad_result", "returned an invalid result: Expected `int`, got `str`", ""),
        (functions.leave, "crash", "exited with status 0 but returned no result", ""),
        (functions.crash_after_the_result, "crash", "killed by SIGABRT", ""),
    ],
)
def test_call_without_a_valid_result_is_a_failure(
    function: Any, kind: str, message: str, logged: str, call: Callable[..., Any]
) -> None:
    failure = call(function)
    assert isinstance(failure, Failure)
    assert failure.kind == kind
    assert failure.message.startswith(message)
    assert "\n" not in failure.message
    assert logged in failure.log_tail


def test_call_beyond_its_time_limit_is_a_timeout(call: Callable[..., Any], tmp_path: Path) -> None:
    failure = call(functions.report_group, timeout_s=2)
    assert (failure.kind, failure.message) == ("timeout", "did not finish within 2 s")
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_job_that_cannot_be_written_raises_record_error(call: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"job\.json: cannot be written"):
        call(functions.add, directory=tmp_path / "none")


# ---- several children, and other programs -----------------------------------------------------------------


@pytest.fixture
def with_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", HELPERS)


@pytest.mark.usefixtures("with_helpers")
def test_calls_in_children_give_results_in_the_order_of_the_jobs() -> None:
    jobs = [functions.Numbers((1, 2)), functions.Numbers((4,)), functions.Numbers(())]
    before = psutil.Process().num_fds()
    with calls_in_children(functions.add, jobs, timeout_s=60, environment={}) as calls:
        results = [call.result() for call in calls]
    assert [result.value for result in results if isinstance(result, functions.Total)] == [3, 4, 0]
    assert psutil.Process().num_fds() == before


@pytest.mark.usefixtures("with_helpers")
def test_calls_in_children_give_failures() -> None:
    with calls_in_children(functions.fail, [NUMBERS] * 2, timeout_s=60, environment={}) as calls:
        failures = [call.result() for call in calls]
    messages = [failure.message for failure in failures if isinstance(failure, Failure)]
    assert [message.partition(" (child_functions.py, line ")[0] for message in messages] == ["ValueError: it broke"] * 2


@pytest.mark.usefixtures("with_helpers")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, GeneratorExit])
def test_calls_in_children_end_the_children_if_the_context_ends_early(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pids: list[int] = []

    def interrupted() -> None:
        with calls_in_children(functions.report_group, [NUMBERS] * 2, timeout_s=60, environment={}):
            pids.extend(pids_of_groups(tmp_path, 2))
            raise error

    with pytest.raises(error):
        interrupted()
    assert len(pids) == 4
    assert all(gone(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []


def pids_of_groups(folder: Path, count: int) -> list[int]:
    """Wait until `count` children that run `report_group` have written their process IDs, and return these."""
    end = time.monotonic() + 30
    while len(files := list(folder.glob("*/pids"))) < count and time.monotonic() < end:
        time.sleep(0.01)
    return [pid for file in files for pid in pids_in(file)]


def test_killed_parent_ends_all_calls_in_children(tmp_path: Path) -> None:
    script = """
import child_functions as functions
from harness.execute.child import calls_in_children
jobs = [functions.Numbers(())] * 2
with calls_in_children(functions.hold_the_interpreter, jobs, timeout_s=60, environment={}) as calls:
    calls[0].result()
"""
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment_with(Path(HELPERS), TMPDIR=str(tmp_path)))
    pids = pids_of_groups(tmp_path, 2)
    parent.kill()
    parent.wait()
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_run_program_returns_status_and_output() -> None:
    script = "import sys; print(sys.stdin.read() + 'out'); print('err', file=sys.stderr); sys.exit(3)"
    done = run_program([sys.executable, "-c", script], timeout_s=30)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_run_program_past_its_time_limit_raises() -> None:
    with pytest.raises(TimeoutError, match=r"python\S* did not finish within 0.2 s"):
        run_program([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)


def test_run_program_that_does_not_exist_raises() -> None:
    with pytest.raises(OSError, match="no-such-program"):
        run_program(["no-such-program"], timeout_s=1)


# ---- the death of the parent ------------------------------------------------------------------------------


def pids_in(path: Path, within_s: float = 30) -> list[int]:
    end = time.monotonic() + within_s
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return [int(pid) for pid in path.read_text().split()]


def test_closed_lifeline_ends_the_child_and_its_group(tmp_path: Path) -> None:
    """The parent, this process, stays alive, so the kernel sends no signal."""
    (tmp_path / "job.json").write_bytes(msgspec.json.encode(NUMBERS))
    with Path(os.devnull).open("wb") as channel:
        lifeline, held = os.pipe()
        descriptors = (channel.fileno(), lifeline)
        arguments = ["child_functions:report_group", str(tmp_path), *map(str, descriptors), str(os.getpid())]
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.execute.child_main", *arguments],
            env=environment_with(Path(HELPERS)),
            pass_fds=descriptors,
            start_new_session=True,
        )
    os.close(lifeline)
    try:
        pids = pids_in(tmp_path / "pids")
        assert not gone(pids[0], within_s=0.2)
    finally:
        os.close(held)
    assert process.wait(5) == -signal.SIGKILL
    assert all(gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
def test_killed_parent_ends_a_child_that_holds_the_interpreter(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
import child_functions as functions
from harness.execute.child import call_in_child
job = functions.Numbers(())
call_in_child(functions.hold_the_interpreter, job, timeout_s=60, environment={{}}, directory=Path({str(tmp_path)!r}))
"""
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment_with(Path(HELPERS)))
    (pid,) = pids_in(tmp_path / "pids")
    parent.kill()
    parent.wait()
    assert gone(pid)


KINDS = {
    "harness.execute.worker:carry_out": "run_all([spec], catalog, Store(folder / 'results'))",
    "harness.execute.devices:find_devices": "probe('toy-hang', FAULTS_REF)",
    "harness.checks.parity.evidence:compute_evidence": (
        "gather(ParityJob(spec=spec, plugins=catalog.refs_for(spec), steps=1), folder / 'parity', 60)"
    ),
    "harness.checks.parity.evidence:compute_roundings": (
        "gather_roundings(ParityJob(spec=spec, plugins=catalog.refs_for(spec), steps=1), [1], folder, 60)"
    ),
    "harness.checks.audit.replay:make_checks": "replay(run, catalog, 60)",
    "harness.checks.evaluate:predict_test_split": "evaluate(run, 'toy-hang', catalog, device='cpu', timeout_s=60)",
    "harness.checks.latency.child:measure_latency": (
        "measure(run, settings(run, 'single-stream', seconds=1), catalog, timeout_s=60)"
    ),
    "harness.checks.latency.target_child:measure_target": (
        "call_in_child(target_child.measure_target, target_child.TargetJob(run_id='', spec=spec, "
        "plugins=catalog.refs_for(spec), run='', dataset_digest='', settings=settings(run, 'server', seconds=1), "
        "backend='', device='', threads=1, find_qps=False), timeout_s=60, environment={})"
    ),
    "harness.checks.selftest:check": (
        "selftest._in_child(selftest.SelftestJob(backend='toy-hang', plugin=FAULTS_REF, device='cpu'), {})"
    ),
    "harness.checks.roofline:measure_rates": (
        "roofline.measure('toy-hang', catalog, device=catalog.backend('toy-numpy').devices()[0], precision='fp32', "
        "threads=1, environment=collect())"
    ),
    "harness.execute.teacher:compute_logits": (
        "call_in_child(teacher.compute_logits, teacher.TeacherJob(spec=spec, plugins=catalog.refs_for(spec), "
        "teacher=TrainedWeights(run='', backend='', digest='', dataset_digest=''), code=''), timeout_s=60, "
        "environment={})"
    ),
    "harness.execute.trial:load_each": (
        "call_in_child(trial.load_each, trial.TrialJob(plugins=(FAULTS_REF,), path=tuple(sys.path), "
        "arguments=('child_main.py', 'harness.execute.trial:load_each')), timeout_s=600, environment={})"
    ),
    "harness.testing.check:check_rules": "check(Subject('model', 'toy'), catalog)",
    "harness.tuning.lr_range:measure": "range_test(spec, catalog, 1e-6, 1.0, timeout_s=60)",
    "harness.execute.exporting:write": (
        "call_in_child(exporting.write, exporting.ExportJob(spec=spec, plugins=catalog.refs_for(spec), "
        "format='safetensors'), timeout_s=60, environment={})"
    ),
    "harness.execute.exporting:convert": (
        "call_in_child(exporting.convert, exporting.ConversionJob(spec=spec, plugins=catalog.refs_for(spec), "
        "exported=''), timeout_s=60, environment={})"
    ),
    "harness.deploy.predict:answer": (
        "call_in_child(predict.answer, predict.PredictJob(model=opened, inputs=''), timeout_s=60, environment={})"
    ),
    "harness.deploy.importance:compute": (
        "call_in_child(importance.compute, importance.ImportanceJob(model=opened, split='test', metric='', repeats=1, "
        "seed=0, together=()), timeout_s=60, environment={})"
    ),
    "harness.deploy.attributions:compute": (
        "call_in_child(attributions.compute, attributions.AttributionJob(model=opened, method='', examples={}, "
        "target=None, steps=1), timeout_s=60, environment={})"
    ),
    "harness.execute.option_checks:check_in_child": (
        "call_in_child(option_checks.check_in_child, option_checks.OptionsJob(specs=(spec,), "
        "plugins=catalog.refs_for(spec)), timeout_s=60, environment={})"
    ),
    "harness.deploy.serving.model:serve_model": (
        "call_in_child(serving.serve_model, serving.ServeJob(model=opened, preprocessing=preprocessing, "
        "limits=serving.Limits(), connection=pair[1].fileno()), timeout_s=60, environment={}, "
        "pass_fds=(pair[1].fileno(),))"
    ),
}
"""Code that calls each function that runs in a child process, by the function's name."""


def test_kinds_lists_every_kind_of_child() -> None:
    package = Path(child.__file__).parents[1]
    called = {
        name
        for path in package.rglob("*.py")
        for name in re.findall(r"call_in_child\(\s*(\w+),", path.read_text())
        if path != Path(child.__file__)
    }
    assert called == {kind.partition(":")[2] for kind in KINDS}


@pytest.fixture(scope="module")
def orphans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Return the ids of children of every kind, whose parent was killed while they ran a plugin."""
    folder = tmp_path_factory.mktemp("orphans")
    (folder / "hanging").mkdir()
    calls = "\n".join(f"calls.append(lambda: {code})" for code in KINDS.values())
    script = f"""
import os, socket, sys, threading, time
from pathlib import Path
import msgspec
from sample_records import record, success
from toy_plugin import FAULTS_REF, TOY_REF
from harness.checks import roofline, selftest
from harness.checks.audit.replay import replay
from harness.checks.evaluate import evaluate
from harness.checks.latency import target_child
from harness.checks.latency.measure import measure, settings
from harness.checks.parity.children import gather, gather_roundings
from harness.checks.parity.evidence import ParityJob
from harness.deploy import attributions, importance, predict
from harness.deploy.serving import model as serving
from harness.execute import exporting, option_checks, teacher, trial
from harness.execute.child import call_in_child
from harness.execute.devices import probe
from harness.execute.runner import run_all
from harness.measure.environment import collect
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load
from harness.records import Preprocessing, TrainedWeights
from harness.records.store import WEIGHTS, Store, StoredRun
from harness.testing.check import Subject, check
from harness.tuning.lr_range import range_test

folder = Path({str(folder)!r})
catalog = load([TOY_REF, FAULTS_REF])
(spec,) = expand(Selection(tasks=("toy-regress",), backends=("toy-hang",), threads=1), catalog)
run = StoredRun(folder / "run", msgspec.structs.replace(record(success()), spec=spec))
run.path.mkdir()
(run.path / WEIGHTS).touch()
info, pair = run.record.provenance.data, socket.socketpair()
opened = predict.ModelJob(spec=spec, plugins=catalog.refs_for(spec), info=info)
preprocessing = Preprocessing(
    task='', input_kind='text', task_options={{}}, dataset_options={{}}, info=info, fitted={{}}, reading={{}}
)
calls = []
{calls}
for call in calls:
    threading.Thread(target=call).start()
"""
    environment = environment_with(Path(HELPERS), TOY_HANG=str(folder / "hanging"), HARNESS_PLUGIN_TIMEOUT="600")
    environment["PYTHONPATH"] = os.pathsep.join([str(TOY), environment["PYTHONPATH"]])
    with (folder / "log.txt").open("wb") as log:
        parent = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=log, stderr=log)
    try:
        pids = {name: pids_in(folder / "hanging" / name)[0] for name in KINDS}
        assert parent.poll() is None
        assert not any(gone(pid, within_s=0.01) for pid in pids.values())
    finally:
        parent.kill()
        parent.wait()
        print((folder / "log.txt").read_text())
    return pids


@pytest.mark.parametrize("kind", KINDS)
def test_killed_parent_leaves_no_child(kind: str, orphans: dict[str, int]) -> None:
    assert gone(orphans[kind])
