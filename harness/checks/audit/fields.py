"""The fields of a record, and those in which an audit cannot notice every change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from harness.records import RunRecord, Success

UNCHECKABLE: dict[str, str] = {
    "started_at": "nothing else records the time of the start",
    "wall_s": "measured; only known to be at least the sum of the phases",
    "spec.dataset": "for a user's data file, a name that is not part of the key",
    "spec.source": "where a user's data file was; its content is identified by the digest in dataset_options",
    "spec.pretrained.path": "where the checkpoint was; its content is identified by the digest",
    "environment": "facts of the machine at the time of the run",
    "provenance.plugins": "compared with the installed plugins, but another version is not a fault of the record",
    "provenance.device_name": "compared only on a machine with the same hardware and packages",
    "provenance.notes": "compared only on a machine with the same hardware and packages",
    "outcome.curves[].validation": "the predictions are kept for the last epoch only",
    "outcome.memory.host_peak_by_phase_bytes": "measured; only the largest peak is recorded twice",
    "outcome.memory.host_counter": "named by the machine",
    "outcome.memory.tree_peak_bytes": "measured; only known to be at least the host peak",
    "outcome.memory.device": "measured; only the order of allocated and reserved memory is known",
    "outcome.phases_s": "measured; only known to be at least the sum of the windows",
    "outcome.flags": "throttling and other load are read from counters, which are not kept",
    "outcome.energy": "measured; only the ratio of energy and power is known, roughly",
    "outcome.evidence.timed_error": "the predictions from the timed phase are not kept; only the limit is checked",
    "outcome.evidence.clock_s": "measured; only known to agree with the wall clock within 1%",
    "outcome.evidence.wall_s": "measured; only known to agree with the step timer within 1%",
    "peak": "measured by `harness doctor --roofline`; only the device it belongs to is checked",
}
"""Fields in which at least one change remains unnoticed, with the reason. A field includes the fields below it."""


def record_fields() -> list[str]:
    """Return the path of every field in the record of a successful run, such as ``outcome.curves[].step``.

    A path that ends in ``[]`` is an item of a list or dictionary. Names are those in ``record.json``.
    """
    return sorted(set(_below("", RunRecord)))


def _below(path: str, kind: Any) -> Iterator[str]:
    """Yield the paths of `kind`, given as a type or as its description by msgspec, and of everything below it."""
    known = kind if isinstance(kind, msgspec.inspect.Type) else msgspec.inspect.type_info(kind)
    if isinstance(known, msgspec.inspect.UnionType):
        options = [one for one in known.types if not isinstance(one, msgspec.inspect.NoneType)]
        structs = [one for one in options if isinstance(one, msgspec.inspect.StructType)]
        chosen = [one for one in structs if one.cls is Success] or options
        for one in chosen:
            yield from _below(path, one)
        return
    if path:
        yield path
    if isinstance(known, msgspec.inspect.StructType):
        for field in known.fields:
            name = field.encode_name
            yield from _below(f"{path}.{name}" if path else name, field.type)
    elif isinstance(known, msgspec.inspect.DictType):
        yield from _below(f"{path}[]", known.value_type)
    elif isinstance(known, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        yield from _below(f"{path}[]", known.item_type)
    elif isinstance(known, msgspec.inspect.TupleType):
        yield from _below(f"{path}[]", known.item_types[0])
