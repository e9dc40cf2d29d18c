"""Warnings about whole runs, with links to the run pages that explain them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.analysis.flags import run_flags
from harness.analysis.formatting import one_line
from harness.analysis.learning import ONE_CLASS
from harness.records import Success
from harness.records.store import StoredRun


class Notice(NamedTuple):
    """A warning with a link."""

    text: str
    link: str
    """Address of the page of the first run to which the warning applies."""


def notices(runs: Sequence[StoredRun], addresses: Mapping[str, str], up: str) -> list[Notice]:
    """Return the number of warnings about each dataset, and the number of runs that predict only one class.

    `addresses` maps run ids to run pages. `up` is the relative path of the site's folder, such as ``../``.
    """
    found: dict[tuple[str, ...], Notice] = {}
    one_class: dict[str, list[str]] = {}
    for run in runs:
        record, data = run.record, run.record.provenance.data
        link = f"{up}{addresses[record.run_id]}"
        task = one_line(record.spec.task)
        if data is not None and data.warnings:
            count = f"{len(data.warnings)} {'warning' if len(data.warnings) == 1 else 'warnings'}"
            text = f"{task} · {one_line(record.spec.dataset)}: {count} about the data"
            found.setdefault((task, record.spec.dataset, *data.warnings), Notice(text, f"{link}#data"))
        if isinstance(record.outcome, Success) and any(flag.kind == ONE_CLASS for flag in run_flags(record)):
            one_class.setdefault(task, []).append(link)
    return [
        *found.values(),
        *(
            Notice(
                f"{task}: {len(links)} {'run predicts' if len(links) == 1 else 'runs predict'} only one class", links[0]
            )
            for task, links in one_class.items()
        ),
    ]
