"""The fields of a record, and the reasons why changes in some of them cannot be detected."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from harness.checks.audit.check import is_part_of
from harness.records import RunRecord, Success

UNCHECKABLE: dict[str, str] = {
    "request_key": "removing the key from the record cannot be detected, but its value is checked if it is present",
    "started_at": "no other field depends on the start time",
    "wall_s": "the duration is measured only once; it must be at least the sum of the phase durations",
    "spec.dataset": "the name of the user's data file, which is not part of the key; the run id contains only a "
    "shortened form",
    "spec.source.path": "the path of the user's data file; the key contains only the digest of its content",
    "spec.source.memory": "the type of the object in memory; the key contains only the digest of the data",
    "spec.source.warnings.*": "warnings issued during planning, which are not part of the key",
    "spec.source.guessed.*": "the names of the inferred options; the key contains only their values",
    "spec.source.training_examples": "the planned number of training examples, which may differ from the number in a "
    "fold",
    "spec.source.defaults.*": "how default settings were chosen; the key contains only their values",
    "spec.weights.path": "the path of the run with the weights, which is not part of the key",
    "submission": "how the run was submitted cannot be determined after the run",
    "spec.weights.exported.path": "the path of the exported model, which is not part of the key",
    "spec.teacher.path": "the path of the teacher's run, which is not part of the key",
    "spec.teacher.exported.path": "the path of the exported model, which is not part of the key",
    "placement.*": "the cores and the GPU of a run cannot be determined after the run",
    **dict.fromkeys(
        (
            *(
                f"environment.{name}"
                for name in ("os", "kernel", "python", "cpu", "cores", "memory_bytes", "cpu_quota")
            ),
            *("environment.gpus.*", "environment.packages.*", "environment.load_1min", "environment.git_commit"),
        ),
        "the state of the machine cannot be examined after the run",
    ),
    "provenance.plugins.*": "another version of a plugin may be installed; the difference is only reported",
    "provenance.data.columns": "removing the layout of the columns cannot be detected, but its values are checked if "
    "it is present",
    "provenance.preprocessing_digest": "removing the digest cannot be detected, but the preprocessing is compared with "
    "the digest if both are present",
    "outcome.curves[].validation[]": "validation scores other than the last ones cannot be recomputed from stored "
    "predictions",
    "outcome.memory.host_peak_by_phase_bytes[]": "each peak is measured once, and only the largest peak is also "
    "stored in another field",
    "outcome.memory.host_counter": "the name of the counter is not stored in any other field",
    "outcome.memory.tree_peak_bytes": "the peak is measured only once; it must be at least the host peak",
    "outcome.memory.ranks[].*": "each peak is measured once, and only the host peak of the first process is also "
    "stored in another field",
    "outcome.memory.device.*": "each peak is measured only once; the audit compares only allocated and reserved memory",
    "outcome.phases_s[]": "each duration is measured only once; it must be at least the total duration of the "
    "phase's windows",
    "outcome.flags.*": "flags for throttling and competing load are derived from counters that are not stored",
    "outcome.energy.*": "energy is measured only once; its ratio to power is checked with a wide tolerance",
    "outcome.selection": "removing the selection from the record cannot be detected, but its values are checked if "
    "it is present",
    **dict.fromkeys(
        ("outcome.checkpoints.written", "outcome.checkpoints.write_s", "outcome.checkpoints.problems.*"),
        "the checkpoints no longer exist; the audit only checks that the interruptions match the windows",
    ),
    "outcome.checkpoints.every.*": "a checkpoint interval in epochs or seconds does not affect the windows",
    "outcome.checkpoints.earlier_s[]": "each duration is measured only once; together with the duration of the phase "
    "in the last process, it must be at least the total duration of the windows",
    "outcome.evidence.timed_error": "the predictions from the timed phase are not stored, so the audit only checks "
    "that their recorded difference from the scored predictions is within the limit",
    "outcome.evidence.clock_s": "the duration is measured only once; it must agree with the wall clock within 1%",
    "outcome.evidence.wall_s": "the duration is measured only once; it must agree with the step timer within 1%",
    "parity": "removing a verdict from the record cannot be detected",
    "parity[].verdict": "a verdict that is not in the results directory cannot be compared",
    "tuning.*": "the cost of tuning was measured in other runs and is stored in `study.json`",
    "peak": "removing the roofline from the record cannot be detected",
    "peak.matrix_flops_per_s": "the rate is measured by `harness doctor --roofline`, not during the run",
    "peak.copy_bytes_per_s": "the rate is measured by `harness doctor --roofline`, not during the run",
    "peak.measured_at": "no other field depends on the time of the measurement",
}
"""Fields in which an audit cannot detect every change, and the reasons. ``.*`` includes all nested fields.
"""


def is_listed(path: str, entry: str) -> bool:
    """Return True if an entry of `UNCHECKABLE` matches the field `path`."""
    return is_part_of(path, entry.removesuffix(".*")) if entry.endswith(".*") else path == entry


def record_fields() -> dict[str, msgspec.inspect.Type]:
    """Return the types of all fields in the record of a successful run. The keys are paths, such as
    ``outcome.curves[].step``.

    A path uses the names in ``record.json``. A path that ends in ``[]`` refers to an item of a list or dictionary.
    """
    return dict(_below("", msgspec.inspect.type_info(RunRecord)))


def _below(path: str, kind: msgspec.inspect.Type) -> Iterator[tuple[str, msgspec.inspect.Type]]:
    """Yield the path and type of a field and of all fields nested in it."""
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
