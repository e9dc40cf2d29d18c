"""Runs one after another, each in a child process of its own. What goes wrong in one is a record; the others go on."""

from __future__ import annotations

import contextlib
import datetime
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from harness.errors import RecordError, UsageError
from harness.execute.child import Ended, run_child
from harness.execute.worker import Job
from harness.measure.environment import collect
from harness.measure.roofline import lookup
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.plugins.events import Events
from harness.records import EpochEnded, Event, Failure, ParityMark, Provenance, RunRecord, RunSpec
from harness.records.store import ARRAYS, LOG, RECORD, WEIGHTS, Store, read_record, write_json

DEFAULT_TIMEOUT_S = 3600.0
LOG_TAIL_LINES = 40


class Listener:
    """Receives the progress of runs. This base class keeps the finished records and shows nothing."""

    def __init__(self) -> None:
        self.records: list[RunRecord] = []

    def message(self, text: str) -> None:
        """Receive a line about work that is not part of a run."""

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        pass

    def event(self, spec: RunSpec, event: Event) -> None:
        pass

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        self.records.append(record)

    def close(self) -> None:
        """Receive the end of all runs, also where an exception ended them."""


def run_all(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    listener: Listener | None = None,
    marks: Mapping[str, list[ParityMark]] | None = None,
    save_weights: bool = False,
) -> list[RunRecord]:
    """Carry out `specs` in order and keep every record in `store`, with what `marks` has for its spec's key, and the
    trained weights where `save_weights` asks for them.

    Raises KeyboardInterrupt after the interrupted run was ended and recorded, `harness.RecordError` when the store
    cannot be written, and `harness.UsageError` for a time limit that is not positive.
    """
    if not timeout_s > 0:
        raise UsageError(f"the time limit of a run must be positive, got {timeout_s}")
    listener = listener or Listener()
    store.prepare()
    events = Events(catalog)
    records = []
    for index, spec in enumerate(specs, start=1):
        listener.run_started(index, len(specs), spec)
        events.notify("harness_run_started", spec=spec)
        found = (marks or {}).get(spec.key, [])
        record = run_one(
            spec,
            catalog,
            store,
            timeout_s=timeout_s,
            listener=listener,
            events=events,
            marks=found,
            save_weights=save_weights,
        )
        records.append(record)
        listener.run_finished(index, len(specs), record)
        events.notify("harness_run_finished", record=record)
        if isinstance(record.outcome, Failure) and record.outcome.kind == "interrupted":
            raise KeyboardInterrupt
    return records


def run_one(
    spec: RunSpec,
    catalog: Catalog,
    store: Store,
    *,
    timeout_s: float,
    listener: Listener,
    events: Events,
    marks: Sequence[ParityMark] = (),
    save_weights: bool = False,
) -> RunRecord:
    """One run in one child process; always ends in a stored record, whatever becomes of the child."""

    def on_line(line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=Event)
        except (msgspec.DecodeError, UnicodeDecodeError):  # a plugin wrote to the pipe: its run goes on all the same
            return
        listener.event(spec, event)
        if isinstance(event, EpochEnded):
            events.notify("harness_epoch_ended", spec=spec, epoch=event)

    with store.scratch() as scratch:
        plugins = tuple(map(with_digest, catalog.refs_for(spec)))
        job = Job(spec=spec, plugins=plugins, save_weights=save_weights)
        write_json(scratch / "job.json", job)
        start = time.monotonic()
        started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        kills_before = _kernel_oom_kills()
        try:
            ended = run_child(
                "harness.execute.worker",
                [str((scratch / name).absolute()) for name in ("job.json", RECORD)],
                log=scratch / LOG,
                timeout_s=timeout_s,
                on_line=on_line,
                environment=child_environment(spec),
            )
        except KeyboardInterrupt:
            ended = None
        (scratch / "job.json").unlink(missing_ok=True)
        written = _written_record(scratch / RECORD) if ended is not None and ended.status == 0 else None
        if written is not None and ended is not None:
            record = msgspec.structs.replace(written, wall_s=ended.seconds)
        else:
            for name in (ARRAYS, WEIGHTS):
                (scratch / name).unlink(missing_ok=True)  # cut off, perhaps
            oom = _kernel_oom_kills() > kills_before
            record = RunRecord(
                run_id="",
                key="",
                repeat=0,
                started_at=started_at,
                wall_s=time.monotonic() - start,
                spec=spec,
                environment=collect(catalog.backend(spec.backend).packages),
                provenance=Provenance(plugins=list(job.plugins)),
                outcome=explain_end(ended, timeout_s, scratch / LOG, oom=oom),
            )
        roofline = lookup(record, tuple(catalog.backend(spec.backend).packages))
        record = msgspec.structs.replace(_with_log_tail(record, scratch / LOG), parity=list(marks), roofline=roofline)
        return store.commit(scratch, record).record


def child_environment(spec: RunSpec) -> dict[str, str]:
    """What must be set before a numerical library loads, the same for every backend."""
    return thread_environment(spec.threads)


def thread_environment(threads: int) -> dict[str, str]:
    count = str(threads)
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
    return {
        **dict.fromkeys(pools, count),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # so that cuda:0 is the driver's first, whose energy and memory are read
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }


def _written_record(path: Path) -> RunRecord | None:
    try:
        return read_record(path)
    except RecordError:
        return None


def explain_end(ended: Ended | None, timeout_s: float, log: Path, *, oom: bool = False) -> Failure:
    """Why a child left no result; None stands for the user's interruption."""
    if ended is None:
        return Failure(kind="interrupted", message="stopped by the user")
    if ended.timed_out:
        return Failure(kind="timeout", message=f"did not end within {timeout_s:g} s; --timeout gives it more")
    if ended.status < 0:
        if ended.status == -signal.SIGKILL and oom:
            return Failure(kind="oom", message=f"{ended.how}: the kernel ran out of memory")
        hint = " (the kernel sends it when memory runs out)" if ended.status == -signal.SIGKILL else ""
        return Failure(kind="crash", message=f"{ended.how}{hint}")
    if ended.status == 0:
        return Failure(kind="crash", message="ended with status 0 but left no valid record")
    lines = [line for line in tail(log).splitlines() if line.strip()]
    return Failure(kind="error", message=lines[-1][:500] if lines else ended.how)


def _with_log_tail(record: RunRecord, log: Path) -> RunRecord:
    if not isinstance(record.outcome, Failure):
        return record
    return msgspec.structs.replace(record, outcome=msgspec.structs.replace(record.outcome, log_tail=tail(log)))


def tail(log: Path) -> str:
    """The log's last lines; of a long log only the end is read."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 16_384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])
    return ""


def _kernel_oom_kills() -> int:
    """How often the kernel's out-of-memory killer has struck since boot (``oom_kill`` in /proc/vmstat); 0 elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
