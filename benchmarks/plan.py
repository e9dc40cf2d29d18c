"""Measure the time needed to plan many runs, all of which are then skipped: ``python -m benchmarks.plan [--runs
10000]``.

Each plan has 10,000 runs of real tasks. The runs differ in their seeds, in their settings or in both. All runs of the
plan are already in the results directory, so no run is executed. Each stored record is a copy of a record in
``results/reference``, with the settings, plugins and environment of a planned run. The measured time is the user-mode
CPU time of this process. The index of the results directory is written in the first round.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import median

import msgspec
from tabulate import tabulate

from benchmarks.reference import DEFAULTS
from harness.execute.resume import decide
from harness.execute.trial import crashing
from harness.measure import environment
from harness.plan.expand import expand_all
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.records import RunRecord, RunSpec, Success
from harness.records.store import ARRAYS, RECORD, Store, run_id


def plans(runs: int) -> dict[str, Selection]:
    """Return selections of `runs` runs each, keyed by name."""
    side = int(runs**0.5)
    sizes = f"recipe.batch_size={','.join(map(str, range(1, side + 1)))}"
    epochs = f"recipe.epochs={','.join(map(str, range(1, runs // side + 1)))}"
    both = f"recipe.batch_size={','.join(map(str, range(1, side // 2 + 1)))}"
    return {
        "regression, seeds": Selection(tasks=("regression",), backends=("baseline",), seeds=tuple(range(runs))),
        "vision, settings": Selection(tasks=("vision",), backends=("torch",), overrides=(sizes, epochs)),
        "nlp, backends, settings and seeds": Selection(
            tasks=("nlp",), backends=("torch", "tensorflow"), overrides=(both,), seeds=tuple(range(runs // side))
        ),
    }


def write(directory: Path, specs: Sequence[RunSpec], catalog: Catalog) -> None:
    """Write a record for each of `specs`, as if these runs had been executed on this machine."""
    sample = next(run.record for run in Store(DEFAULTS).load().runs if run.record.spec.task == specs[0].task)
    assert isinstance(sample.outcome, Success)
    digest = cache(with_digest)
    machine = environment.collect()
    packages = {
        name: environment.versions((*environment.CORE_PACKAGES, *catalog.backend(name).packages))
        for name in {spec.backend for spec in specs}
    }
    for record in _records(sample, specs, catalog):
        refs = list(map(digest, catalog.refs_for(record.spec)))
        here = msgspec.structs.replace(machine, packages=packages[record.spec.backend])
        record = msgspec.structs.replace(
            record, environment=here, provenance=msgspec.structs.replace(record.provenance, plugins=refs)
        )
        folder = directory / record.run_id
        folder.mkdir(parents=True)
        (folder / ARRAYS).touch()
        (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))


def _records(sample: RunRecord, specs: Sequence[RunSpec], catalog: Catalog) -> Iterator[RunRecord]:
    for spec in specs:
        resolved = msgspec.structs.replace(spec, device="cpu")
        key = resolved.key
        yield msgspec.structs.replace(
            sample, spec=resolved, key=key, request_key=spec.key, repeat=1, run_id=run_id(resolved, key, 1)
        )


def measure(selection: Selection, catalog: Catalog, store: Store) -> tuple[float, float]:
    """Return the user-mode CPU times for planning the runs and for deciding to skip all of them."""
    start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    specs = expand_all([selection], catalog)
    middle = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    decisions = decide(specs, catalog, store)
    end = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert all(decision.stored for decision in decisions), next(each for each in decisions if not each.stored).reason
    return middle - start, end - middle


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="number of runs in each plan [10000]")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds [3]")
    options = parser.parse_args()
    catalog = discover((), crashing)
    rows = []
    for name, selection in plans(options.runs).items():
        with tempfile.TemporaryDirectory() as made:
            os.environ["HARNESS_CACHE"] = str(Path(made, "cache"))
            store = Store(Path(made, "results"))
            specs = expand_all([selection], catalog)
            write(store.path, specs, catalog)
            time.sleep(3)  # wait, because files that have just been changed are not indexed
            rounds = [measure(selection, catalog, store) for _ in range(options.rounds + 1)][1:]
            planning, deciding = (median(values) for values in zip(*rounds, strict=True))
            rows.append([name, len(specs), f"{planning:.2f}", f"{deciding:.2f}", f"{planning + deciding:.2f}"])
    headers = ["plan", "runs", "planning, s", "decisions, s", "both, s"]
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
