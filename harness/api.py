"""The harness from Python: `run` and `load`, for notebooks and scripts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from harness.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.table import Table
    from harness.checks.parity.verdict import ParityVerdict
    from harness.execute.runner import Listener
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.store import Store


class Results(Sequence[RunRecord]):
    """Records in the order in which they started, with their comparison.

    `problems` names each file that could not be read, and why.
    """

    def __init__(
        self, records: Iterable[RunRecord], problems: Iterable[str] = (), verdicts: Iterable[ParityVerdict] = ()
    ) -> None:
        self.records = tuple(records)
        self.problems = tuple(problems)
        self._verdicts = tuple(verdicts)

    @overload
    def __getitem__(self, index: int) -> RunRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> RunRecord | Results:
        if isinstance(index, slice):
            return Results(self.records[index], self.problems, self._verdicts)
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self.records)

    def table(self, *, price_per_hour: float | None = None) -> Table:
        """Return the comparison, a row per task, dataset, model, backend, device and precision, over seeds and splits.

        `price_per_hour`, that of the machine in any currency, adds the cost of a million samples.
        """
        from harness.analysis.comparison_table import build_table

        return build_table(self.records, self._verdicts, price_per_hour=price_per_hour)

    def to_frame(self) -> pd.DataFrame:
        """Return the comparison as a pandas DataFrame: numbers, with half-widths of 95% intervals next to them."""
        return self.table().frame()

    def __repr__(self) -> str:
        """Return the comparison as text, so that a notebook shows it."""
        from harness.report.text import render

        return render(self.table()) if self.records else "no runs"


def run(
    task: str | Iterable[str],
    backend: str | Iterable[str] = (),
    *,
    dataset: str | os.PathLike[str] | Iterable[str] = (),
    model: str | Iterable[str] = (),
    device: str | Iterable[str] = "auto",
    precision: str | Iterable[str] = "fp32",
    deterministic: bool = False,
    parity: bool = False,
    pretrained: str | os.PathLike[str] | None = None,
    compile: bool = False,  # noqa: A002 - the field's word, and the option's name on the command line
    seed: int | Iterable[int] = (),
    split: int | Iterable[int] | Literal["all"] = (),
    threads: int | None = None,
    repeat: int | None = None,
    protocol: str = "standard",
    overrides: Mapping[str, Any] | Iterable[str] = (),
    results: str | os.PathLike[str] | None = None,
    timeout_s: float | None = None,
    plugins: Iterable[str] = (),
) -> Results:
    """Carry out runs as ``harness run`` does, each in its own process, and return their records.

    Where several values are given, all combinations are run. `dataset` also takes paths of files and folders with your
    own data. `overrides` is a mapping such as ``{"recipe.epochs": 3}``, or strings such as ``"recipe.epochs=3"``. A run
    that fails is a record with a `Failure`, not an exception.

    `pretrained` is the checkpoint to start from: a folder or a hub id.

    `repeat` is the number of times to do every run, interleaved. `protocol` is ``quick``, ``standard`` or ``publish``;
    the last one takes seeds 0 to 2 and 5 repeats, unless these are given.

    `parity` first checks that the backends compute the same, and marks the records with the verdict.

    `plugins` are files or modules to load next to the installed plugins.

    Raises `harness.UsageError` for a wrong request and `harness.RecordError` when results cannot be written.

    Example::

        results = harness.run(task="nlp", backend=["torch", "tensorflow"])
        results.to_frame()
    """
    from harness.data.checkpoint import locate
    from harness.plan.expand import expand_all
    from harness.plan.overrides import as_overrides
    from harness.plan.selection import Selection
    from harness.plugins import discover
    from harness.records.store import Store, results_dir

    selection = Selection.from_values(
        {
            "task": task,
            "dataset": dataset,
            "model": model,
            "backend": backend,
            "device": device,
            "precision": precision,
            "seed": seed,
            "threads": threads,
            "protocol": protocol,
            "pretrained": pretrained,
            "split": split,
            "compile": compile,
            "deterministic": deterministic,
            "set": as_overrides(overrides),
            "repeat": repeat,
        }
    )
    catalog = discover(plugins)
    specs = expand_all([selection.resolved(locate)], catalog)
    return carry_out(specs, catalog, Store(results_dir(results)), parity=parity, timeout_s=timeout_s)


def carry_out(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    *,
    parity: bool = False,
    timeout_s: float | None = None,
    save_weights: bool = False,
    listener: Listener | None = None,
    show: Callable[[Results], None] | None = None,
) -> Results:
    """Carry out planned runs, after a parity check where `parity` asks for one, and return their records.

    `show` is called with the finished runs, if there are any, also where Ctrl-C or an error, such as a full disk, ends
    the series early.

    Raises what `harness.execute.runner.run_all` raises, and `harness.UsageError` where `parity` has nothing to compare.
    """
    from harness.checks.parity.check import marks_for
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.execute.runner import DEFAULT_TIMEOUT_S, Listener, run_all

    listener = listener or Listener()
    limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
    try:
        marks = None
        if parity:
            store.prepare()
            marks = marks_for(specs, catalog, store, say=lambda text: listener.message(f"parity: {text}"))
        run_all(specs, catalog, store, timeout_s=limit_s, listener=listener, marks=marks, save_weights=save_weights)
    finally:
        listener.close()
        results = Results(listener.records, verdicts=load_verdicts(store.path).values())
        if show is not None and results:
            show(results)
    return results


def load(path: str | os.PathLike[str] | None = None) -> Results:
    """Return every run of a results directory (default: ``HARNESS_RESULTS`` or ``results``).

    Raises `harness.UsageError` where there is no such directory.

    Example::

        harness.load("results/").to_frame()
    """
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.errors import UsageError
    from harness.records.store import Store, results_dir

    directory = Path(results_dir(path))
    if not directory.is_dir():
        raise UsageError(f"{directory}: there is no such results directory")
    loaded = Store(directory).load()
    return Results([run.record for run in loaded.runs], loaded.problems, load_verdicts(directory).values())
