"""The ``harness data`` commands, which manage datasets and their files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import console, echo, print_json, show

if TYPE_CHECKING:
    from harness.data.describe import DatasetInfo
    from harness.data.download import Report
    from harness.data.summary import DataSummary
    from harness.data.user_files.column_info import ColumnInfo
    from harness.interfaces import Dataset, RawInput
    from harness.plugins.catalog import Catalog

SHOWN_NAMES = 12
"""Maximum number of class names that ``info`` prints as text."""


@click.group(cls=options.SuggestingGroup, short_help="List, download, verify and delete datasets.")
def data() -> None:
    """List, download, verify and delete datasets.

    Embedded datasets do not need to be downloaded. Other datasets are downloaded from their publishers, verified, and
    stored in the cache. A dataset is downloaded by `harness data fetch` or by the first run that uses it.

    \b
    Environment variables:
      HARNESS_CACHE        cache directory
                           [default: the platform's, such as ~/.cache/harness]
      HARNESS_OFFLINE      if 1, do not use the network
      HARNESS_DATA_MIRROR  directory or URL with copies of the publishers' files
                           as <host>/<path>, which is tried first

    \b
    Examples:
      harness data list
      harness data fetch mnist sst2
      HARNESS_DATA_MIRROR=/srv/mirror harness data fetch imdb
    """


@data.command("list", short_help="List datasets with their task, size, state and license.")
@options.plugins
@options.format_
def list_(format_: str) -> None:
    """List datasets with their tasks, download size, state and license.

    The state is `embedded` if the dataset is part of an installed package, and `cached` if it has been downloaded and
    verified. The state `to fetch` means that the dataset will be downloaded when a run first uses it.

    \b
    Examples:
      harness data list
      harness data list --format json
    """
    from harness.data.describe import describe

    catalog = options.catalog()
    infos = [describe(catalog, catalog.dataset(name)) for name in sorted(catalog.datasets)]
    if format_ == "json":
        print_json(infos)
        return
    from tabulate import tabulate

    rows = [[info.name, ", ".join(info.tasks), _size(info), info.state, info.license] for info in infos]
    echo(tabulate(rows, headers=["name", "task", "download", "state", "license"], disable_numparse=True))


@data.command(short_help="Describe a dataset or your own data: splits, classes, columns, warnings.")
@options.plugins
@click.argument("name", metavar="NAME|PATH")
@click.option("--task", metavar="NAME", help="Load the data, prepare them for a task, and describe the result.")
@options.own_data
@options.format_
def info(name: str, task: str | None, overrides: tuple[str, ...], format_: str) -> None:
    """Describe a dataset, or a file or directory with your own data.

    With --task, load and prepare the data as in a run, but do not train a model. --task is required for your own data.
    Print the number of examples per split and class, the role and type of each column, and a few examples. Also print
    missing values, duplicates, lengths, the shapes after preparation, and warnings.

    Without --task, print the published facts about a dataset: splits, inputs, classes, the metric used in the
    literature, license, citation, options and files. Without --task, no data are downloaded or loaded.

    \b
    Examples:
      harness data info digits
      harness data info digits --format json
      harness data info digits --task vision
      harness data info houses.csv --task regression --target-column price
      harness data info photos/ --task vision --set task.image_size=128
    """
    from harness.data.describe import describe

    catalog = options.catalog()
    if task is not None:
        from harness.report.data_text import render as render_summary

        show(_summary(task, name, overrides, catalog), format_, render_summary)
        return
    from harness.data.user_files.location import is_path
    from harness.errors import UsageError

    if is_path(name, catalog.datasets):
        tasks = [f"{each.value.name} ({each.value.kind})" for each in catalog.tasks.values()]
        raise UsageError(f"{name} is a path; add --task TASK, where TASK is one of: {', '.join(tasks)}")
    if overrides:
        raise UsageError(f"{', '.join(overrides)} applies only when the data are loaded; add --task to load them")
    show(describe(catalog, catalog.dataset(name)), format_, render)


def _summary(task_name: str, name: str, overrides: Sequence[str], catalog: Catalog) -> DataSummary:
    """Load and prepare a dataset or the user's own data, and return a summary of the result."""
    from harness.data.cache import state
    from harness.data.summary import summarize
    from harness.data.user_files.dataset import UserDataset
    from harness.errors import UsageError
    from harness.execute.preparation import load_and_prepare
    from harness.plan.data import data_plan

    plan = data_plan(task_name, name, overrides, catalog)
    dataset, settings = plan.dataset, plan.settings
    columns: tuple[ColumnInfo, ...] = ()
    if isinstance(dataset, UserDataset):
        columns = dataset.columns(settings.dataset_options)
    elif state(dataset) == "to fetch":
        raise UsageError(f"dataset {name!r} has not been downloaded; run: harness data fetch {name}")
    raw, prepared = load_and_prepare(plan.task, dataset, settings.dataset_options, plan.task_options)
    return summarize(
        raw,
        prepared,
        dataset=dataset.name,
        task=plan.task.name,
        dataset_options=settings.dataset_options,
        task_options=plan.task_options,
        path=settings.source.path if settings.source else None,
        inferred=settings.source.guessed if settings.source else (),
        columns=columns,
    )


@data.command(short_help="Download and verify datasets.")
@options.plugins
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def fetch(names: tuple[str, ...]) -> None:
    """Download datasets to the cache and verify them. Datasets that are already in the cache are skipped.

    If a dataset cannot be downloaded, the remaining datasets are still downloaded, and the exit status is 1.

    \b
    Examples:
      harness data fetch mnist
      harness data fetch mnist sst2
    """
    from harness.data.install import install

    def act(dataset: Dataset) -> str:
        with _progress(dataset) as report:
            return f"{dataset.name}: {install(dataset, report)}"

    _for_each(names, act)


@data.command(short_help="Check downloaded files against their digests.")
@options.plugins
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def verify(names: tuple[str, ...]) -> None:
    """Check that the files of datasets in the cache have not changed since they were downloaded.

    The exit status is 1 if a file is missing or has changed.

    \b
    Examples:
      harness data verify mnist
      harness data verify mnist sst2
    """
    from harness.data import install
    from harness.errors import DataError

    def act(dataset: Dataset) -> str:
        problems = install.verify(dataset)
        if problems:
            remedy = f"run: harness data clear {dataset.name} && harness data fetch {dataset.name}"
            raise DataError("\n  ".join([f"dataset {dataset.name!r} is damaged; {remedy}", *problems]))
        return f"{dataset.name}: unchanged since the download"

    _for_each(names, act)


@data.command(short_help="Print the path of the cache or of a dataset.")
@options.plugins
@click.argument("name", required=False)
def path(name: str | None) -> None:
    """Print the path of the cache directory. If a dataset is given, print the path of its directory in the cache.
    Nothing is downloaded.

    \b
    Examples:
      harness data path
      harness data path mnist
    """
    from harness.data.cache import cache_dir
    from harness.data.install import require_installed

    echo(cache_dir() if name is None else require_installed(options.catalog().dataset(name)))


@data.command(short_help="Delete a dataset's files from the cache.")
@options.plugins
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def clear(names: tuple[str, ...]) -> None:
    """Delete datasets from the cache, including unfinished downloads. Deleted datasets are downloaded again when
    needed.

    \b
    Examples:
      harness data clear mnist
      harness data clear mnist sst2
    """
    from harness.data import install
    from harness.interfaces.remote import megabytes

    _for_each(names, lambda dataset: f"{dataset.name}: freed {megabytes(install.clear(dataset))}")


def _for_each(names: Sequence[str], act: Callable[[Dataset], str]) -> None:
    """Look up all names, then call `act` on each dataset. Report failures and continue with the other datasets."""
    from harness.errors import DataError

    catalog = options.catalog()
    failed = False
    for dataset in [catalog.dataset(name) for name in dict.fromkeys(names)]:
        if not dataset.files:
            echo(f"{dataset.name}: embedded in the package; no files in the cache")
            continue
        try:
            echo(act(dataset))
        except DataError as error:
            echo(f"Error: {error}", err=True)
            failed = True
    if failed:
        raise click.exceptions.Exit(1)


@contextlib.contextmanager
def _progress(dataset: Dataset) -> Iterator[Report]:
    """Show progress on stderr: a progress bar on a terminal, plain lines otherwise."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        from harness.data.install import Log

        yield Log(dataset)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from harness.interfaces.remote import total_bytes

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    done_of: dict[str, int] = {}
    with Progress(*columns, console=console(), transient=True) as bars:
        bar = bars.add_task(dataset.name, total=total_bytes(dataset.files))

        def report(name: str, done: int, total: int | None) -> None:
            done_of[name] = done
            bars.update(bar, description=f"{dataset.name}: {name}", completed=sum(done_of.values()))

        yield report


def render(dataset: DatasetInfo) -> str:
    from tabulate import tabulate

    facts = {
        "tasks": ", ".join(dataset.tasks) or "no installed task",
        "data": f"{dataset.kind}, {dataset.objective}",
        "examples": ", ".join(f"{count:,} {split}" for split, count in dataset.examples.items())
        + (", with the default options" if dataset.examples and dataset.options else ""),
        "splits": f"{len(dataset.splits)} published; pass --split all to use all of them" if dataset.splits else "",
        "inputs": ", ".join(f"{name}: {_form(each)}" for name, each in dataset.inputs.items()),
        _outputs(dataset): _some(dataset.label_names),
        "metric": dataset.metric,
        "license": dataset.license,
        "homepage": dataset.homepage,
        "citation": dataset.citation,
        "notes": dataset.notes,
        "options": ", ".join(f"dataset.{name}={_shown(value)}" for name, value in dataset.options.items()),
        "state": dataset.state,
        "download": _size(dataset),
        "path": dataset.path or "",
    }
    rows = [[name, value] for name, value in facts.items() if value]
    text = f"{dataset.name}: {dataset.summary}\n\n{tabulate(rows, tablefmt='plain', disable_numparse=True)}"
    if dataset.files:
        header = ["file", "bytes", "verified by", "URL"]
        files = [[file.name, file.download_bytes, file.verified_by, file.url] for file in dataset.files]
        text += f"\n\n{tabulate(files, headers=header, missingval='unknown')}"
    if dataset.tasks:
        text += f"\n\nharness run --task {dataset.tasks[0]} --dataset {dataset.name}"
    return text


def _form(each: RawInput) -> str:
    """Return the type of an input, such as ``str``, ``uint8 [28, 28, 1]`` or ``float32 [any]``."""
    lengths = ", ".join("any" if length is None else str(length) for length in each.shape)
    return f"{each.dtype} [{lengths}]" if each.shape else each.dtype


def _outputs(dataset: DatasetInfo) -> str:
    if dataset.objective == "regression":
        return "target" if len(dataset.label_names) == 1 else "targets"
    return f"{len(dataset.label_names)} classes"


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _shown(value: object) -> str:
    import msgspec

    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _size(dataset: DatasetInfo) -> str:
    from harness.interfaces.remote import megabytes

    return megabytes(dataset.download_bytes) if dataset.files else ""
