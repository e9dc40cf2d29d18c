"""The fields of a record, and those in which an audit cannot notice every change."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from harness.checks.audit.check import is_part_of
from harness.records import RunRecord, Success

UNCHECKABLE: dict[str, str] = {
    "request_key": "a key that was removed leaves no trace; its value is checked",
    "started_at": "nothing else records the time of the start",
    "wall_s": "measured; only known to be at least the sum of the phases",
    "spec.dataset": "for a user's data file, a name that is not part of the key",
    "spec.source.path": "where a user's data file was; the key contains the digest of its content",
    "spec.source.guessed.*": "which options were inferred; the key contains their values",
    "environment.*": "facts of the machine at the time of the run",
    "provenance.plugins.*": "another version of a plugin is not a fault of the record; the difference is only noted",
    "outcome.curves[].validation[]": "predictions are kept only for the last epoch",
    "outcome.memory.host_peak_by_phase_bytes[]": "measured; only the largest peak is recorded twice",
    "outcome.memory.host_counter": "reported by the operating system",
    "outcome.memory.tree_peak_bytes": "measured; only known to be at least the host peak",
    "outcome.memory.device.*": "measured; only the order of allocated and reserved memory is known",
    "outcome.phases_s[]": "measured; only known to be at least the sum of the windows",
    "outcome.flags.*": "throttling and other load are read from counters, which are not kept",
    "outcome.energy.*": "measured; only the ratio of energy and power is known, roughly",
    "outcome.evidence.timed_error": "predictions from the timed phase are not kept; only the limit is checked",
    "outcome.evidence.clock_s": "measured; only known to agree with the wall clock within 1%",
    "outcome.evidence.wall_s": "measured; only known to agree with the step timer within 1%",
    "parity": "a mark that was removed leaves no trace",
    "parity[].verdict": "a verdict that is not in the results directory cannot be compared",
    "peak": "a roofline that was removed leaves no trace",
    "peak.matrix_flops_per_s": "measured by `harness doctor --roofline`",
    "peak.copy_bytes_per_s": "measured by `harness doctor --roofline`",
    "peak.measured_at": "nothing else records the time of the measurement",
}
"""Fields in which an audit does not notice every change, with the reason. ``.*`` includes all fields below a field."""


def is_listed(path: str, entry: str) -> bool:
    """Return whether an entry of `UNCHECKABLE` includes the field `path`."""
    return is_part_of(path, entry.removesuffix(".*")) if entry.endswith(".*") else path == entry


def record_fields() -> dict[str, msgspec.inspect.Type]:
    """Return the types of all fields in the record of a successful run, by path, such as ``outcome.curves[].step``.

    A path that ends in ``[]`` is an item of a list or dictionary. Names are those in ``record.json``.
    """
    return dict(_below("", msgspec.inspect.type_info(RunRecord)))


def _below(path: str, kind: msgspec.inspect.Type) -> Iterator[tuple[str, msgspec.inspect.Type]]:
    """Yield the path and type of a field and of everything below it."""
    if isinstance(kind, msgspec.inspect.UnionType):
        options = [one for one in kind.types if not isinstance(one, msgspec.inspect.NoneType)]
        successes = [one for one in options if getattr(one, "cls", None) is Success]
        kind = (successes or options)[0]
    if path:
        yield path, kind
    match kind:
        case msgspec.inspect.StructType():
            for field in kind.fields:
                yield from _below(f"{path}.{field.encode_name}" if path else field.encode_name, field.type)
        case msgspec.inspect.DictType():
            yield from _below(f"{path}[]", kind.value_type)
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            yield from _below(f"{path}[]", kind.item_type)
        case msgspec.inspect.TupleType():
            yield from _below(f"{path}[]", kind.item_types[0])
