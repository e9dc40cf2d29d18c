"""Checks of a run's identity, weights, raw samples and plugins."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.audit.check import Check, NotCheckedError, Result, Subject
from harness.checks.audit.compare import differences
from harness.checks.results.verify import lock_problems
from harness.errors import RecordError
from harness.plugins.code import with_digest
from harness.records import RunSpec
from harness.records.arrays import digest
from harness.records.files import real_path
from harness.records.reading import MAX_JSON_BYTES, is_stored, read_stored
from harness.records.store import PREPROCESSING, earlier_run_id, run_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXPECTED = {
    "train_batch_size": ("i", 0),
    "train_window_steps": ("i", 1),
    "train_window_s": ("f", 1),
    "train_losses": ("f", 1),
    "sampling_window_steps": ("i", 1),
    "sampling_window_s": ("f", 1),
    "inference_window_batches": ("i", 1),
    "inference_window_s": ("f", 1),
    "latencies_s": ("f", 1),
    "test_outputs": ("f", None),
    "test_targets": (None, None),
    "validation_outputs": ("f", None),
    "validation_targets": (None, None),
    "test_rows": ("iU", 1),
}
"""NumPy dtype kind and number of axes of each array. None indicates that the dtype kind or the number of axes depends
on the task."""
ADDED_LATER = {"train_batch_size", "validation_outputs", "validation_targets"}
"""Arrays that are missing from older records. If a record contains a digest of its arrays, these arrays are
required."""
ADDED_IN_2 = {"sampling_window_steps", "sampling_window_s"}
"""Arrays that are missing from records with schema version 1."""
OF_TRAINING = ("train_", "sampling_")
"""Name prefixes of the arrays that are omitted when a run uses trained weights."""
OF_PREDICTIONS = ("_outputs", "_targets")
"""Name suffixes of the arrays that are omitted when metrics are computed batch by batch."""
OPTIONAL = {"test_rows"}
"""Arrays that exist only for some datasets."""


def _identity(subject: Subject) -> Result:
    record, spec = subject.record, subject.spec
    expected = run_id(spec, record.key, record.repeat)
    problems = []
    if record.key != subject.spec_key:
        problems.append(f"the key in the record is {record.key[:8]}, but the key of the spec is {subject.spec_key[:8]}")
    if record.run_id not in (expected, earlier_run_id(spec, record.key, record.repeat)):
        problems.append(f"the run id in the record is {record.run_id}, but should be {expected}")
    requested = record.batch_size_reduced_from
    if requested is not None:
        recipe = msgspec.structs.replace(spec.recipe, batch_size=requested)
        spec = msgspec.structs.replace(spec, recipe=recipe)
        if not record.request_key:
            problems.append("the batch size was reduced, but the record does not contain the key of the requested run")
    if record.request_key and record.request_key not in _requests(spec):
        problems.append(
            f"the requested key is {record.request_key[:8]}, but the spec does not have this key on any device"
        )
    directory = real_path(subject.run.path).name
    if record.run_id != directory:
        problems.append(f"the run id is {record.run_id}, but the directory is named {directory}")
    return Result(problems, f"key {record.key[:8]}, repeat {record.repeat}")


def _requests(spec: RunSpec) -> set[str]:
    """Return the key of each spec that may have been requested before a worker selected the device."""
    devices = {spec.device, "auto", spec.device.partition(":")[0]}
    return {msgspec.structs.replace(spec, device=device).key for device in devices}


def _samples(subject: Subject) -> Result:
    import numpy as np

    try:
        arrays = subject.samples
    except RecordError as error:
        return Result([str(error)], "")
    recorded = "" if subject.migrated_from == 1 else subject.evidence.arrays_digest
    absent = ADDED_LATER | ADDED_IN_2 if subject.migrated_from == 1 else ADDED_LATER
    trained = subject.spec.weights is None
    expected = EXPECTED
    if subject.outcome.scores.streamed:
        expected = {name: each for name, each in EXPECTED.items() if not name.endswith(OF_PREDICTIONS)}
    required = [name for name in expected if name not in OPTIONAL and (trained or not name.startswith(OF_TRAINING))]
    problems = [f"{name} is missing" for name in required if name not in arrays and (recorded or name not in absent)]
    problems += [
        f"{name} is not expected"
        for name in arrays
        if name not in expected or (name.startswith(OF_TRAINING) and not trained)
    ]
    info = subject.record.provenance.data
    of_targets = "f" if info is not None and info.objective == "regression" else "i"
    for name, array in arrays.items():
        kind, axes = EXPECTED.get(name, (None, None))
        kind = of_targets if name.endswith("_targets") else kind
        if array.dtype.kind not in (kind or "") or (axes is not None and array.ndim != axes):
            problems.append(f"{name} is {array.dtype} {array.shape}")
        elif array.dtype.kind != "U" and not np.isfinite(array).all():
            problems.append(f"{name} contains values that are not finite")
        elif (name.endswith(("_s", "_steps", "_batches", "_size"))) and not (array > 0).all():
            problems.append(f"{name} contains values that are not positive")
    problems += _lengths(arrays)
    if problems:
        return Result(problems, "")
    count = f"{len(arrays)} arrays"
    if not recorded and "validation_outputs" in arrays:
        return Result(["the record lacks the digest of its arrays"], "")
    if not recorded:
        return Result((), f"{count}; the record was written by an older version, which did not record their digest")
    actual = digest(arrays)
    if actual != recorded:
        problems.append(f"the SHA-256 of the arrays is {actual[:8]}, but the record contains {recorded[:8]}")
    return Result(problems, count)


def _lengths(arrays: Any) -> list[str]:
    """Return a description of each pair of arrays whose lengths differ although they should be equal."""
    pairs = (
        ("train_window_steps", "train_window_s"),
        ("sampling_window_steps", "sampling_window_s"),
        ("inference_window_batches", "inference_window_s"),
        ("test_outputs", "test_targets"),
        ("validation_outputs", "validation_targets"),
        ("test_rows", "test_targets"),
    )

    def length(array: NDArray[Any]) -> int:
        return len(array) if array.ndim else -1

    return [
        f"{one} has {length(arrays[one])} items, {other} has {length(arrays[other])}"
        for one, other in pairs
        if one in arrays and other in arrays and length(arrays[one]) != length(arrays[other])
    ]


def _weights(subject: Subject) -> Result:
    record, outcome = subject.record, subject.outcome
    initial, final = record.provenance.initial_weights_digest, record.provenance.final_weights_digest
    evaluated = subject.evidence.evaluated_weights_digest
    used = subject.spec.weights
    if not outcome.model.parameters:
        # Models without weights have digest({}) in older records.
        if not {initial, final, evaluated} - {None, "", digest({})}:
            raise NotCheckedError("the model has no canonical weights")
        network = subject.catalog.network(subject.catalog.model(subject.spec.model)[0].name, subject.spec.backend)
        if network is None or not network.fitted_weights:
            return Result(["the model has no parameters, but the record has a digest of its weights"], "")
        if used is None:
            shown = f"initial {(initial or 'none')[:8]}, fitted {(final or 'none')[:8]}, evaluated {evaluated[:8]}"
            return Result([] if not initial and final == evaluated else [shown], shown)
    if used is not None and used.exported is not None:
        if final or evaluated or used.digest != initial:
            return Result(["the run executed an exported model, but the record contains different weights"], "")
        return Result((), f"exported by {used.exported.exporter} from {used.digest[:8]}")
    if not (initial and final and evaluated):
        return Result(["the record contains no digest of the weights"], "")
    if used is not None:
        shown = f"used {used.digest[:8]}, initial {initial[:8]}, final {final[:8]}, evaluated {evaluated[:8]}"
        return Result([] if used.digest == initial == final == evaluated else [shown], shown)
    shown = f"initial {initial[:8]}, trained {final[:8]}, evaluated {evaluated[:8]}"
    return Result([] if initial != final == evaluated else [shown], shown)


def has_same_plugins(subject: Subject) -> bool:
    """Check that the code of the installed plugins is the same as in the run."""
    refs = subject.record.provenance.plugins
    return all(ref.code_digest for ref in refs) and refs == [
        with_digest(ref) for ref in subject.catalog.refs_for(subject.spec)
    ]


def _plugins(subject: Subject) -> Result:
    installed = [with_digest(ref) for ref in subject.catalog.refs_for(subject.spec)]
    recorded = subject.record.provenance.plugins
    if not recorded:
        return Result(["the record lists no plugins, but every run uses at least one"], "")
    if not all(ref.code_digest for ref in recorded):
        raise NotCheckedError(
            "the record was written by an older version, which did not record digests of the plugins' code"
        )
    problems = differences(recorded, installed, "plugins")
    if problems:  # a record remains valid if a plugin is upgraded
        raise NotCheckedError("the installed plugins differ from the run's plugins: " + "; ".join(problems))
    return Result((), f"{len(installed)} plugins with the same code")


def _lock(subject: Subject) -> Result:
    digest = subject.record.environment.lock_digest
    problems = lock_problems(subject.run)
    if digest and not subject.spec.env:
        problems.append(
            "the record contains the digest of a lock file, but the run was not executed in a named environment"
        )
    return Result(problems, f"lock {digest[:8]}" if digest else "no named environment")


def _preprocessing(subject: Subject) -> Result:
    """Compare the fitted preprocessing, which is used to prepare new data, with its digest."""
    recorded, path = subject.record.provenance.preprocessing_digest, subject.run.path / PREPROCESSING
    if recorded is None:
        raise NotCheckedError("the record does not contain the digest of the preprocessing")
    if not is_stored(path):
        raise NotCheckedError(f"{PREPROCESSING} is missing")
    try:
        content = read_stored(path, MAX_JSON_BYTES)
    except RecordError as error:
        return Result([str(error)], "")
    problems = [] if hashlib.sha256(content).hexdigest() == recorded else [f"{PREPROCESSING} has changed since the run"]
    return Result(problems, f"preprocessing {recorded[:8]}")


CHECKS = (
    Check(
        "the key and the run id match the spec",
        ("run_id", "key", "request_key", "batch_size_reduced_from", "repeat", "spec"),
        _identity,
    ),
    Check("the raw samples are complete", ("outcome.evidence.arrays_digest", "outcome.scores.streamed"), _samples),
    Check(
        "training changed the weights, and the trained weights were evaluated",
        (
            "provenance.initial_weights_digest",
            "provenance.final_weights_digest",
            "outcome.evidence.evaluated_weights_digest",
        ),
        _weights,
    ),
    Check("the installed plugins match those of the run", ("provenance.plugins",), _plugins),
    Check("the lock file of the environment matches its digest", ("environment.lock_digest",), _lock),
    Check("the saved preprocessing matches its digest", ("provenance.preprocessing_digest",), _preprocessing),
)
