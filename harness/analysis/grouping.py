"""Grouping of runs into the rows of the comparison table, and grouping of comparable rows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.analysis.differences import machine_of, software_of
from harness.records import Failure, RunRecord, Success


def group_runs(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Group runs into the rows of the comparison table. Rows appear in the order of their first runs."""
    records = with_known_devices(without_split_digests(records))
    described = [(record, _setting(record), software_of(record)) for record in records]
    succeeded: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for record, setting, software in described:
        known = succeeded.setdefault(setting, [])
        if isinstance(record.outcome, Success) and software not in known:
            known.append(software)
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for record, setting, software in described:
        if isinstance(record.outcome, Failure):
            # The record of a run that failed early may lack packages. If only one row is consistent with the record,
            # the run belongs to this row.
            agreeing = [known for known in succeeded[setting] if software.items() <= known.items()]
            software = agreeing[0] if len(agreeing) == 1 else software
        versions = [f"{name} {version}" for name, version in sorted(software.items())]
        groups.setdefault((*setting, *versions), []).append(record)
    return list(groups.values())


def without_split_digests(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records, omitting dataset digests that differ only because the splits differ.

    Each published split of a dataset has a separate digest. Digests are kept if they can reveal a change in the data:
    if one split has several digests, or if the dataset has no numbered splits.
    """
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
    """Return a key for the settings that determine the prepared data, except for the split."""
    spec = record.spec
    parts = [spec.task, spec.dataset, spec.task_options, spec.options_of_all_splits]
    return msgspec.json.encode(parts, order="sorted").decode()


def overlap(records: Sequence[RunRecord]) -> float:
    """Return the ratio of the number of test examples to the number of other examples, averaged over the runs. Return 0
    unless the runs used several folds or random splits of the same examples.

    Pass this ratio to `harness.measure.stats.mean` as the argument `overlap`.
    """
    done = [record for record in records if isinstance(record.outcome, Success) and record.spec.split_count]
    if len({record.spec.split for record in done}) < 2:
        return 0.0
    ratios = []
    for record in done:
        assert isinstance(record.outcome, Success)
        examples = record.outcome.examples
        others = sum(count for name, count in examples.items() if name != "test")
        ratios.append(examples.get("test", 0) / max(1, others))
    return sum(ratios) / len(ratios)


def with_known_devices(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records, and fill in the device of runs that failed before a device was selected.

    If all other runs with the same setting used the same device, this device is filled in.
    """
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
    """Return the first successful run, or the first run if none succeeded."""
    return next((record for record in runs if isinstance(record.outcome, Success)), runs[0])


def _setting(record: RunRecord) -> tuple[str, ...]:
    """Return a key that identifies the machine and the setting, except for the seed and the split."""
    return (record.spec.group_key, *machine_of(record).values())


def one_device_key(record: RunRecord) -> tuple[str, ...]:
    """Return a key that is the same for all rows that differ only in the number of devices."""
    spec = msgspec.structs.replace(record.spec, devices=1)
    versions = [f"{name} {version}" for name, version in sorted(software_of(record).items())]
    return (spec.group_key, *machine_of(record).values(), *versions)


def rival_key(record: RunRecord) -> tuple[str, ...]:
    """Return a key that is the same for all rows that are compared with each other.

    The backend, its packages and the named environment are not part of the key. For runs without training, the key also
    excludes the loaded weights.
    """
    spec = msgspec.structs.replace(record.spec, backend="", env="", weights=None)
    return (spec.group_key, *machine_of(record).values())
