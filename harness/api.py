"""The harness from Python: `run` and `load`, for notebooks and scripts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import msgspec

from harness.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.table import Table
    from harness.checks.parity.verdict import ParityVerdict


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

    def table(self) -> Table:
        """The comparison: a row per task, dataset, model, backend, device and precision, over its seeds and splits."""
        from harness.analysis.comparison_table import build_table

        return build_table(self.records, self._verdicts)

    def to_frame(self) -> pd.DataFrame:
        """The comparison as a pandas DataFrame, numbers as numbers, half-widths of 95% intervals beside them."""
        return self.table().frame()

    def __repr__(self) -> str:
        """The comparison as text, so that a notebook shows it."""
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
    """Carry out runs as ``harness run`` does, each in a process of its own, and return their records.

    Every selection takes one name or several; all their combinations are run. `dataset` takes the paths of files and
    folders of your own as well. `overrides` is a mapping such as ``{"recipe.epochs": 3}``, or strings such as
    ``"recipe.epochs=3"``. A run that fails is a record with a `Failure`, not an exception.

    `pretrained`, a folder or a hub id, is the checkpoint to start from.

    `repeat` does every run so many times, in turns. `protocol` is ``quick``, ``standard`` or ``publish``; the last
    takes seeds 0 to 2 and 5 repeats, unless these are given.

    `parity` checks first that the backends compute the same, and marks the records by what it found.

    `plugins` are files or modules to load beside what is installed.

    Raises `harness.UsageError` for a wrong request and `harness.RecordError` when results cannot be written.

    Example::

        results = harness.run(task="nlp", backend=["torch", "tensorflow"])
        results.to_frame()
    """
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.execute.runner import DEFAULT_TIMEOUT_S, run_all
    from harness.plan import Selection, expand, named_protocol
    from harness.plugins import discover
    from harness.records.store import Store, results_dir

    catalog = discover(plugins)
    selection = Selection(
        tasks=_names(task),
        backends=_names(backend),
        datasets=_names(dataset),
        models=_names(model),
        devices=_names(device),
        precisions=_names(precision),
        compile=compile,
        deterministic=deterministic,
        seeds=(seed,) if isinstance(seed, int) else tuple(seed),
        pretrained=None if pretrained is None else os.fspath(pretrained),
        splits="all" if split == "all" else (split,) if isinstance(split, int) else tuple(split),
        threads=threads,
        protocol=protocol,
        overrides=_overrides(overrides),
    )
    specs = expand(selection, catalog) * (repeat or named_protocol(protocol).repeats)
    store = Store(results_dir(results))
    marks = None
    if parity:
        from harness.checks.parity.check import marks_for

        store.prepare()
        marks = marks_for(specs, catalog, store)
    limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
    records = run_all(specs, catalog, store, timeout_s=limit_s, marks=marks)
    return Results(records, verdicts=load_verdicts(store.path).values())


def load(path: str | os.PathLike[str] | None = None) -> Results:
    """Every run of a results directory (default: ``HARNESS_RESULTS`` or ``results``).

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


def _names(value: str | os.PathLike[str] | Iterable[str]) -> tuple[str, ...]:
    return (os.fspath(value),) if isinstance(value, str | os.PathLike) else tuple(map(os.fspath, value))


def _overrides(values: Mapping[str, Any] | Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, Mapping):
        return tuple(f"{key}={msgspec.json.encode(value).decode()}" for key, value in values.items())
    return tuple(values)
