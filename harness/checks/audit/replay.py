"""Checks that run parts of a run again, in a child: its data, its initial weights, its saved weights, and whether its
backend remembers what it was asked before.

The child's main as well: ``python -m harness.checks.audit.replay JOB DIRECTORY FD``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.audit.finding import Finding
from harness.checks.parity.tolerances import tolerance
from harness.errors import HarnessError
from harness.execute.child import run_child
from harness.execute.preparation import (
    choose_device,
    explain,
    load_plugins,
    prepare_data,
    ready,
    session_request,
    starting_weights,
)
from harness.execute.runner import child_environment, explain_end
from harness.interfaces import PreparedData, Session
from harness.plugins.catalog import Catalog
from harness.records import PluginRef, RunRecord, Success
from harness.records.arrays import read_arrays
from harness.records.store import ARRAYS, WEIGHTS, StoredRun, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHECKS = (
    "the data are those of the record",
    "the initial weights follow from the seed",
    "the saved weights give the predictions",
    "nothing is remembered from batch to batch",
)
FASTER = 1.1
"""How much faster a repeated batch may be than fresh ones: the bound of MLPerf's TEST04."""
PAIRS, WINDOW_S, BATCHES = 12, 0.1, 64
"""Windows of either kind, which take turns; about so long; and as many fresh batches at most in one."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    record: RunRecord
    plugins: tuple[PluginRef, ...]
    run: str
    """The run's directory."""


def replay(run: StoredRun, catalog: Catalog, timeout_s: float) -> list[Finding]:
    """All of `CHECKS`; not made where the child cannot make them."""
    try:
        spec = run.record.spec
        with tempfile.TemporaryDirectory(prefix="harness-audit-") as name:
            directory = Path(name)
            job = Job(record=run.record, plugins=catalog.refs_for(spec), run=str(run.path.absolute()))
            write_json(directory / "job.json", job)
            log = directory / "log.txt"
            lines: list[bytes] = []
            ended = run_child(
                "harness.checks.audit.replay",
                [str(directory / "job.json")],
                log=log,
                timeout_s=timeout_s,
                on_line=lines.append,
                environment=child_environment(spec),
            )
            found = [msgspec.json.decode(line, type=Finding) for line in lines]
            why = explain_end(ended, timeout_s, log).message if ended.status or ended.timed_out else "nothing was told"
    except HarnessError as error:
        found, why = [], str(error)
    missing = CHECKS[len(found) :]
    return [*found, *(Finding(check=check, passed=None, detail=why) for check in missing)]


def _checks(job: Job) -> Iterator[Finding]:
    """In the order of `CHECKS`."""
    from harness.records.arrays import digest

    record, spec = job.record, job.record.spec
    catalog = load_plugins(job.plugins)
    backend = catalog.backend(spec.backend)
    os.environ.update(backend.environment)
    device = choose_device(backend, spec)
    data = prepare_data(catalog, spec)
    told = record.provenance.dataset_digest or ""
    yield Finding(
        check=CHECKS[0], passed=data.digest == told, detail=f"SHA-256 {data.digest[:8]}; the record has {told[:8]}"
    )
    model, _, request = session_request(catalog, spec, data, device)
    weights, _ = starting_weights(model, request, spec)
    mine, told = digest(weights), record.provenance.initial_weights_digest or ""
    if weights:
        yield Finding(check=CHECKS[1], passed=mine == told, detail=f"SHA-256 {mine[:8]}; the record has {told[:8]}")
    else:
        yield Finding(check=CHECKS[1], passed=None, detail="the model has no canonical weights")
    session = backend.open(request)
    try:
        ready(session, backend, weights, data)
        yield _saved(Path(job.run), record, session, data)
        yield _remembered(session, data, spec.recipe.batch_size)
    finally:
        session.close()


def _saved(folder: Path, record: RunRecord, session: Session, data: PreparedData) -> Finding:
    """Leaves the saved weights in the session, where there are any."""
    from harness.checks.parity.distance import relative
    from harness.execute.weights import load
    from harness.measure.inference import predict
    from harness.records.arrays import digest

    if not (folder / WEIGHTS).is_file():
        return Finding(check=CHECKS[2], passed=None, detail="none were saved (harness run --save-weights)")
    if not (folder / ARRAYS).is_file():
        return Finding(check=CHECKS[2], passed=None, detail="the predictions were not kept")
    weights = load(folder / WEIGHTS)
    if digest(weights) != record.provenance.final_weights_digest:
        return Finding(check=CHECKS[2], passed=False, detail="the saved weights are not those that were trained")
    session.set_weights(weights)
    outputs = predict(session, data.test, record.spec.recipe.batch_size, data.info.outputs)
    assert isinstance(record.outcome, Success)
    error = relative(outputs, read_arrays(folder / ARRAYS)["test_outputs"])
    allowed = tolerance("logits", record.spec.precision, record.outcome.model.parameters).value
    detail = f"{len(outputs)} predictions differ by {error:.1e} (allowed {allowed:.0e})"
    return Finding(check=CHECKS[2], passed=bool(error <= allowed), detail=detail)


def _remembered(session: Session, data: PreparedData, batch_size: int) -> Finding:
    """One batch over and over against batches that never came before, drawn from the training split."""
    import numpy as np

    from harness.measure.steady import median_interval

    size = min(batch_size, len(data.test))
    rng = np.random.default_rng(0)

    def draw() -> dict[str, NDArray[Any]]:
        index = np.sort(rng.integers(0, len(data.train), size))
        return {name: np.ascontiguousarray(array[index]) for name, array in data.train.inputs.items()}

    def seconds(batches: list[dict[str, NDArray[Any]]]) -> float:
        start = time.perf_counter()
        for batch in batches:
            session.fetch(session.predict(batch))
        return time.perf_counter() - start

    one = draw()
    seconds([one] * 3)
    count = max(1, min(BATCHES, round(WINDOW_S / max(seconds([one]), 1e-6))))
    ratios = []
    for pair in range(PAIRS):
        fresh = [draw() for _ in range(count)]
        times: dict[str, float] = {}
        kinds = [("repeated", [one] * count), ("fresh", fresh)]
        for kind, batches in kinds if pair % 2 else reversed(kinds):
            times[kind] = seconds(batches)
        ratios.append(times["fresh"] / times["repeated"])
    ends = median_interval(np.array(ratios))
    assert ends is not None
    detail = (
        f"a repeated batch is {float(np.median(ratios)):.2f} times as fast as fresh ones, 95% interval "
        f"{ends[0]:.2f} to {ends[1]:.2f} (allowed {FASTER:g})"
    )
    return Finding(check=CHECKS[3], passed=ends[0] <= FASTER, detail=detail)


def main(job_path: str, fd: int) -> None:
    os.set_inheritable(fd, False)
    job = msgspec.json.decode(Path(job_path).read_bytes(), type=Job)
    try:
        for finding in _checks(job):
            os.write(fd, msgspec.json.encode(finding) + b"\n")
    except Exception as error:
        traceback.print_exc()
        print(explain(error, None)[1], file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
