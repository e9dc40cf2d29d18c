"""The command ``harness reproduce``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import counted, echo, say, show

if TYPE_CHECKING:
    from harness.records import RunSpec
    from harness.records.store import StoredRun
    from harness.report.bundle.reproduce import Reproduced


REPRODUCED = "reproduced"
"""Folder for new runs inside the results directory. Other commands that read the results directory ignore this
folder.
"""


@click.command(short_help="Repeat a published comparison and compare the results.")
@options.plugins
@click.argument("bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@options.filters("task", "model", "backend")
@click.option("--verify", is_flag=True, help="Check the bundle against its manifest without executing runs.")
@click.option(
    "--data",
    multiple=True,
    metavar="[OLD=]NEW",
    help=options.with_default(
        "File or folder with your copy of the data, which must be identical to the original data. If the runs used "
        "several datasets, OLD (the recorded path or its last part) selects the one to replace. Can be repeated.",
        "the recorded path, or a file of this name in the current folder or next to the bundle",
    ),
)
@click.option(
    "--create-envs",
    is_flag=True,
    help="Create missing named environments of the runs, with the exact versions in their lock files.",
)
@options.results_in("Directory for the new runs.", "the folder 'reproduced' in HARNESS_RESULTS or ./results")
@options.wait
@options.timeout("Maximum duration of a run, in seconds.")
@options.quiet
@options.format_
def reproduce(
    bundle: Path,
    verify: bool,
    data: tuple[str, ...],
    create_envs: bool,
    wait: bool,
    results: str | None,
    timeout: float,
    quiet: bool,
    format_: str,
    **filters: tuple[str, ...],
) -> None:
    """Verify a BUNDLE, repeat its runs on this machine, and compare the results. The quality must match within its
    confidence interval, and the data and the initial weights must be identical. Speed, latency and memory are shown
    side by side.

    If a file does not match the manifest, the bundle is rejected with a message that names the file. No code in a
    bundle is executed. The runs are repeated from their specs by the installed plugins. To keep the new runs separate
    from the original runs, they are saved in the "reproduced" folder of the results directory, or in the directory
    given by --results. Runs in named environments are repeated in environments with the same names; see `harness env`.
    The exit status is 1 if the quality, the data or the initial weights do not match.

    \b
    Examples:
      harness reproduce comparison.zip
      harness reproduce comparison.zip --verify
      harness reproduce comparison.zip --task nlp --results elsewhere
      harness reproduce comparison.zip --data wine.csv
      harness reproduce comparison.zip --data wine.csv=copies/wine.csv --data iris.csv=copies/iris.csv
    """
    import tempfile

    from harness.cli.progress import carry_out
    from harness.errors import RecordError, UsageError
    from harness.records import Success
    from harness.records.store import Store, results_dir
    from harness.report.bundle.manifest import RECORDS
    from harness.report.bundle.reproduce import judge
    from harness.report.bundle.unpack import unpack

    with tempfile.TemporaryDirectory(prefix="harness-bundle-") as folder:
        manifest, digest = unpack(bundle, Path(folder))
        loaded = Store(Path(folder) / RECORDS).load()
        locks = _locks(loaded.runs)
    if loaded.problems:
        raise RecordError(f"{bundle}: {loaded.problems[0]}")
    inform = say if format_ == "json" else echo
    inform(
        f"{bundle}: {counted(len(manifest.files), 'file')} verified against the manifest (SHA-256 {digest}), "
        f"{counted(len(loaded.runs), 'run')}, created by harness {manifest.harness_version}"
    )
    if verify:
        return
    chosen = [
        run.record
        for run in loaded.runs
        if isinstance(run.record.outcome, Success) and options.matches(run.record.spec, filters)
    ]
    if not chosen:
        raise UsageError(f"{bundle}: no successful run matches the filters; the bundle contains {_named(loaded.runs)}")
    using = [record for record in chosen if record.spec.weights or record.spec.teacher]
    chosen = [record for record in chosen if record not in using]
    if using:
        text = "cannot be repeated, because the trained weights that were used are not in the bundle"
        if not chosen:
            raise UsageError(f"{bundle}: the selected runs {text}")
        inform(f"{counted(len(using), 'run')} {text}")
    catalog = options.catalog()
    for record in chosen:  # Check that all plugins are available before any run starts.
        own = catalog.for_run(record.provenance.plugins)
        own.refs_for(record.spec)
        own.metrics_of(record.spec)
    copies = _copies(data, [record.spec for record in chosen])
    specs = [_with_data(spec, copies, bundle) for spec in {r.spec.key: r.spec for r in chosen}.values()]
    envs = sorted({spec.env for spec in specs if spec.env})
    absent = [env for env in envs if _is_absent(env, locks.get(env, ""), create=create_envs)]
    for env in absent:
        _create(env, locks[env])
    store = Store(Path(results) if results else results_dir() / REPRODUCED)
    inform(f"the new runs are saved in {store.path}")
    records = carry_out(specs, catalog, store, quiet=quiet, timeout_s=timeout, wait=wait)
    here = {spec.key: record for spec, record in zip(specs, records, strict=True)}
    outcomes = []
    for record in {record.spec.key: record for record in chosen}.values():
        siblings = [other for other in chosen if other.spec.group_key == record.spec.group_key]
        outcomes.append(judge(record, here[record.spec.key], siblings))
    show(outcomes, format_, render)
    if not all(outcome.agrees for outcome in outcomes):
        raise click.exceptions.Exit(1)


def _locks(runs: Sequence[StoredRun]) -> dict[str, str]:
    """Return the lock file of each named environment that the runs used, keyed by name."""
    from harness.plugins.environments import LOCK, MAX_LOCK_BYTES
    from harness.records.reading import is_stored, read_stored

    return {
        run.record.spec.env: read_stored(run.path / LOCK, MAX_LOCK_BYTES).decode(errors="replace")
        for run in runs
        if run.record.spec.env and is_stored(run.path / LOCK)
    }


def _is_absent(env: str, lock: str, *, create: bool) -> bool:
    """Return whether the named environment `env` has to be created from its lock file, because it does not exist on
    this machine.

    Raises `harness.UsageError` if the environment does not exist and `create` is false, or if its lock file is not in
    the bundle.
    """
    import shlex

    from harness.cli.root import ARGUMENTS
    from harness.errors import UsageError
    from harness.plugins import environments

    environments.check_name(env)  # the name comes from the bundle
    if env in environments.names():
        if lock and environments.load(env).lock != lock:
            say(f"Warning: the packages in environment {env!r} differ from those in the bundle; see the list below")
        return False
    if not lock:
        raise UsageError(
            f"the environment {env!r}, which the runs of the bundle used, does not exist here, and its lock file is "
            f"not in the bundle; create it with: harness env create {env} --with 'PACKAGE==VERSION'"
        )
    if not create:
        raise UsageError(
            f"the runs of the bundle used the environment {env!r}, which does not exist here; create it with: "
            f"{shlex.join(['harness', *click.get_current_context().meta[ARGUMENTS], '--create-envs'])}"
        )
    return True


def _create(env: str, lock: str) -> None:
    """Create the named environment `env` from its lock file."""
    from harness.analysis.differences import changes
    from harness.errors import HarnessError
    from harness.execute import environment_lock
    from harness.execute import environments as creation
    from harness.plugins.environments import locked_packages

    pins, others = environment_lock.pins(lock)
    if others:
        say(f"Warning: environment {env!r} is created without {', '.join(others)}: not available from a package index")
    interpreter, warning = environment_lock.interpreter_of(lock)
    if warning:
        say(f"Warning: environment {env!r}: {warning}")
    try:
        made = creation.create(
            env, pins, interpreter=interpreter, upgrade="eager", say=lambda text: say(f"{env}: {text}")
        )
    except HarnessError as error:
        raise HarnessError(f"environment {env!r} could not be created: {error}") from None
    differing = changes(locked_packages(lock), locked_packages(made.lock))
    if differing:
        listed = "; ".join(f"{package} {then} -> {now}" for package, then, now in differing)
        say(f"Warning: the packages of environment {env!r} are not exactly those of the bundle: {listed}")


def _copies(values: Sequence[str], specs: Sequence[RunSpec]) -> dict[str, Path]:
    """Return the paths that the user passed with ``--data``, keyed by recorded path. A path that applies to all runs
    has an empty string as its key.

    Raises `harness.UsageError` if a path does not exist, or if a value replaces data that no run used.
    """
    from harness.errors import UsageError

    recorded = {spec.source.path for spec in specs if spec.source}
    copies: dict[str, Path] = {}
    for value in values:
        old, equals, new = value.partition("=")
        if not equals or Path(value).exists():
            old, new = "", value
        matching = {path for path in recorded if old in ("", path, Path(path).name)}
        if not matching:
            used = ", ".join(sorted(recorded)) or "no user data"
            raise UsageError(
                f"--data {value}: no selected run of the bundle used {old or 'such data'}; the selected runs used "
                f"{used}"
            )
        if not Path(new).exists():
            raise UsageError(f"--data {value}: {new} does not exist; pass the path of your copy of the data")
        copies |= dict.fromkeys(matching if old else [""], Path(new))
    return copies


def _with_data(spec: RunSpec, copies: Mapping[str, Path], bundle: Path) -> RunSpec:
    """Return the spec with the path of the user's data on this machine. The content is verified when the data are read.

    `copies` contains the paths that the user passed; see `_copies`. Raises `harness.UsageError` if the data cannot be
    found.
    """
    import msgspec

    from harness.errors import UsageError

    if spec.source is None:
        return spec
    recorded = Path(spec.source.path)
    given = copies.get(spec.source.path) or copies.get("")
    found = [given] if given else [recorded, Path(recorded.name), bundle.parent / recorded.name]
    path = next((candidate for candidate in found if candidate.exists()), None)
    if path is None and spec.source.memory:
        raise UsageError(
            f"the runs of the bundle used a {spec.source.memory} in memory, which was saved as {recorded.name} on "
            "another machine; save the same data with harness.save_data, and pass the returned path with --data"
        )
    if path is None:
        raise UsageError(
            f"the runs of the bundle used the file or folder {recorded}, which does not exist here; pass its path with "
            "--data"
        )
    return msgspec.structs.replace(spec, source=msgspec.structs.replace(spec.source, path=str(path.absolute())))


def render(outcomes: Sequence[Reproduced]) -> str:
    from tabulate import tabulate

    rows = []
    for outcome in outcomes:
        marks = (outcome.quality, outcome.dataset, outcome.initial_weights, outcome.final_weights)
        rows.append([outcome.run, outcome.metric, _number(outcome.then), _number(outcome.now), *marks])
    headers = ["run", "metric", "bundle", "here", "quality", "data", "initial weights", "trained weights"]
    align = ["left", "left", "right", "right", *["left"] * 4]
    parts = [tabulate(rows, headers=headers, tablefmt="simple", colalign=align, disable_numparse=True)]
    costs = [
        [outcome.run, cost.title, _number(cost.then), _number(cost.now), f"{cost.now / cost.then:.2f}×", cost.unit]
        for outcome in outcomes
        for cost in outcome.costs
        if cost.then
    ]
    if costs:
        headers = ["run", "", "bundle", "here", "ratio", ""]
        align = ["left", "left", "right", "right", "right", "left"]
        parts.append(tabulate(costs, headers=headers, tablefmt="simple", colalign=align, disable_numparse=True))
    then, here = (dict.fromkeys(outcome.machines[side] for outcome in outcomes) for side in (0, 1))
    parts.append("\n".join(["machines", *(f"  bundle: {one}" for one in then), *(f"  here:   {one}" for one in here)]))
    differing = dict.fromkeys(difference for outcome in outcomes for difference in outcome.differences)
    if differing:
        lines = [f"  {name}: {then} -> {now}" for name, then, now in differing]
        parts.append("\n".join(["differences (bundle -> here)", *lines]))
    wrong = [f"{outcome.run}: {outcome.why}" for outcome in outcomes if outcome.quality != "agrees"]
    if wrong:
        parts.append("\n".join(["quality does not match", *(f"  {line}" for line in wrong)]))
    agreeing = sum(outcome.agrees for outcome in outcomes)
    parts.append(f"{agreeing} of {len(outcomes)} runs match in quality, data and initial weights")
    return "\n\n".join(parts)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.4g}"


def _named(runs: Sequence[StoredRun]) -> str:
    names = dict.fromkeys(f"{r.record.spec.task}/{r.record.spec.model}/{r.record.spec.backend}" for r in runs)
    return ", ".join(list(names)[:8]) + (" ..." if len(names) > 8 else "")
