"""``harness report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options

if TYPE_CHECKING:
    from harness.types import RunRecord

_FILTERS = ("task", "dataset", "model", "backend", "device", "precision")


@click.command(short_help="The comparison table of the results.")
@click.option(
    "--format", "format_", default="text", metavar="FORMAT", help="text, markdown, csv, json or a plugin's [text]."
)
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write to a file instead of stdout.")
@options.results
@click.option("--all-ratios", is_flag=True, help="Also between rows that a parity check found to differ.")
@options.price_per_hour
@options.names("--task", "Only these tasks.")
@options.names("--dataset", "Only these datasets.")
@options.names("--model", "Only these models.")
@options.names("--backend", "Only these backends; ratios are to the first of them that ran.")
@options.names("--device", "Only these devices.")
@options.names("--precision", "Only these precisions.")
def report(
    format_: str,
    output: str | None,
    results: str | None,
    all_ratios: bool,
    price_per_hour: float | None,
    **filters: tuple[str, ...],
) -> None:
    """Compare the runs of a results directory: a row for each task, dataset, model, backend, device and precision,
    over its seeds.

    A record that cannot be read is named on stderr; the others are shown.

    \b
    Examples:
      harness report
      harness report --task nlp --backend torch,tensorflow
      harness report --format markdown --output comparison.md
      harness report --results results/reference --format csv
    """
    from harness.errors import RecordError, UsageError
    from harness.parity.verdict import load as load_verdicts
    from harness.plugins import discover, resolve
    from harness.store import Store, results_dir
    from harness.tabulate import tabulate

    render = resolve(discover().reporter(format_).render)
    directory = results_dir(results)
    loaded = Store(directory).load()
    for problem in loaded.problems:
        click.echo(f"Warning: left out: {problem}", err=True)
    if loaded.problems and not loaded.runs:
        raise RecordError(f"{directory}: none of {len(loaded.problems)} records could be read")
    if not loaded.runs:
        state = "holds no runs" if directory.is_dir() else "does not exist"
        raise UsageError(
            f"results directory {str(directory)!r} {state}; make some with `harness run --task ...`, "
            "or name another with --results DIR"
        )
    records = _selected([run.record for run in loaded.runs], filters)
    verdicts = list(load_verdicts(directory).values())
    text = render(tabulate(records, verdicts, all_ratios=all_ratios, price_per_hour=price_per_hour))
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
    else:
        _write(Path(output), text)


def _selected(records: list[RunRecord], filters: dict[str, tuple[str, ...]]) -> list[RunRecord]:
    from harness.errors import CombinationError, UsageError

    for name in _FILTERS:
        present = {getattr(record.spec, name) for record in records}
        for wanted in filters[name]:
            if wanted not in present:
                raise UsageError(
                    f"none of these results has the {name} {wanted!r}; they have: {', '.join(sorted(present))}"
                )
    chosen = [r for r in records if all(not filters[n] or getattr(r.spec, n) in filters[n] for n in _FILTERS)]
    if not chosen:
        raise CombinationError("no run matches all of these filters; leave some out")
    order = {name: position for position, name in enumerate(filters["backend"])}
    return sorted(chosen, key=lambda record: order.get(record.spec.backend, 0))


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a file that is there already survives a full disk. A pipe or device is written to as is."""
    import os
    import tempfile

    from harness.errors import HarnessError

    path, scratch = path.resolve(), None
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=path.parent, prefix=f".{path.name}-", delete=False
        ) as file:
            scratch = Path(file.name)
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        scratch.chmod(0o666 & ~mask)
        scratch.replace(path)
    except OSError as error:
        if scratch is not None:
            scratch.unlink(missing_ok=True)
        raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None
