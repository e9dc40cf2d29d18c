"""Which runs make up a row of the comparison table, and which rows are compared with each other."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.analysis.differences import machine_of, software_of
from harness.records import Failure, RunRecord, Success


def group_runs(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """The runs of each row, in the order of the rows' first runs."""
    records = _with_known_devices(without_split_digests(records))
    described = [(record, _setting(record), software_of(record)) for record in records]
    succeeded: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for record, setting, software in described:
        known = succeeded.setdefault(setting, [])
        if isinstance(record.outcome, Success) and software not in known:
            known.append(software)
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for record, setting, software in described:
        if isinstance(record.outcome, Failure):
            # A run that broke off early may know only some of its packages: it joins the row that these agree with.
            agreeing = [known for known in succeeded[setting] if software.items() <= known.items()]
            software = agreeing[0] if len(agreeing) == 1 else software
        versions = [f"{name} {version}" for name, version in sorted(software.items())]
        groups.setdefault((*setting, *versions), []).append(record)
    return list(groups.values())


def without_split_digests(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Published splits of one dataset have digests of their own; told apart are only two that one split has."""
    digests: dict[tuple[str, int | None], set[str]] = {}
    for record in records:
        if record.provenance.dataset_digest:
            known = digests.setdefault((_dataset_key(record), record.spec.split), set())
            known.add(record.provenance.dataset_digest)
    changed = {key for (key, split), known in digests.items() if split is None or len(known) > 1}
    return [
        record
        if _dataset_key(record) in changed
        else msgspec.structs.replace(record, provenance=msgspec.structs.replace(record.provenance, dataset_digest=None))
        for record in records
    ]


def _dataset_key(record: RunRecord) -> str:
    """What determines the prepared data, the published split apart."""
    spec = record.spec
    options = {name: value for name, value in spec.dataset_options.items() if name != "split"}
    return msgspec.json.encode([spec.task, spec.dataset, spec.task_options, options], order="sorted").decode()


def _with_known_devices(records: Sequence[RunRecord]) -> list[RunRecord]:
    """A run that failed before it chose its device joins its siblings, where all of those ran on one."""
    if all(record.spec.device != "auto" for record in records):
        return list(records)
    devices: dict[str, set[str]] = {}
    for record in records:
        if record.spec.device != "auto":
            undecided = msgspec.structs.replace(record.spec, device="auto")
            devices.setdefault(undecided.group_key, set()).add(record.spec.device)
    placed = []
    for record in records:
        known = devices.get(record.spec.group_key, set()) if record.spec.device == "auto" else set()
        spec = msgspec.structs.replace(record.spec, device=next(iter(known))) if len(known) == 1 else record.spec
        placed.append(msgspec.structs.replace(record, spec=spec))
    return placed


def representative(runs: list[RunRecord]) -> RunRecord:
    """The first run that succeeded, else the first."""
    return next((record for record in runs if isinstance(record.outcome, Success)), runs[0])


def _setting(record: RunRecord) -> tuple[str, ...]:
    """The spec without its seed and split, and the machine."""
    return (record.spec.group_key, *machine_of(record).values())


def rival_key(record: RunRecord) -> tuple[str, ...]:
    """What rows share that are compared: all but the backend and its packages."""
    return (msgspec.structs.replace(record.spec, backend="").group_key, *machine_of(record).values())
