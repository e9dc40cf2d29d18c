"""The teacher's logits for the training examples in knowledge distillation.

The logits are computed once, in a child process, by the backend that trained the teacher, and kept in the cache. They
are those of the examples without augmentation.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import DataError, HarnessError, RecordError
from harness.execute.attempt import child_environment
from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import opened_session, prepare, saved_weights
from harness.interfaces import PreparedData
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.records import Failure, PluginRef, RunSpec, TrainedWeights
from harness.records.arrays import digest, read_arrays, write_arrays
from harness.records.locations import cache_dir
from harness.records.recipe import for_inference
from harness.records.store import ARRAYS, RECORD, WEIGHTS, read_record

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIMEOUT_S = 3600.0
"""Time limit for computing the logits of one teacher, in seconds."""


class TeacherJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a child process that computes the logits of a teacher."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    teacher: TrainedWeights


class Computed(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the child process, which saves the logits in `ARRAYS`."""

    examples: int
    device: str


def is_distilled(spec: RunSpec) -> bool:
    """Return whether a run trains a student with a teacher."""
    return spec.teacher is not None and spec.weights is None and spec.recipe.distillation_alpha > 0


def logits_path(teacher: TrainedWeights) -> Path:
    """Return the path of a teacher's logits in the cache.

    The file name is a digest of the run, its backend, its weights, and the prepared data, which include the
    preprocessing.
    """
    identity = [teacher.run, teacher.backend, teacher.digest, teacher.dataset_digest]
    return cache_dir() / "teachers" / f"{hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]}.npz"


def provide_logits(specs: Iterable[RunSpec], catalog: Catalog, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Compute the logits of the specs' teachers that are not in the cache.

    Raises `harness.HarnessError` if the run of a teacher is missing or damaged, if its data have changed, or if its
    backend fails.
    """
    for teacher in dict.fromkeys(spec.teacher for spec in specs if is_distilled(spec)):
        assert teacher is not None
        if _stored(teacher) is None:
            say(f"computing the logits of the teacher {teacher.run}")
            _compute(teacher, catalog)


def with_logits(data: PreparedData, spec: RunSpec) -> PreparedData:
    """Return the data with the teacher's logits for the training examples, or unchanged data for a run without a
    teacher.

    Raises `harness.DataError` if the logits are not in the cache, or if the teacher was trained on other examples or
    classes.
    """
    if not is_distilled(spec) or spec.teacher is None:
        return data
    name, arrays = spec.teacher.run, _stored(spec.teacher)
    if arrays is None:
        raise DataError(f"the logits of the teacher {name!r} are not in the cache: {logits_path(spec.teacher)}")
    _check_same(arrays, data, name)
    return dataclasses.replace(data, train=dataclasses.replace(data.train, teacher_logits=arrays["logits"]))


def notes(data: PreparedData) -> dict[str, str]:
    """Return notes for the record of a run with a teacher, or an empty dictionary."""
    logits = data.train.teacher_logits
    if logits is None:
        return {}
    return {"teacher_logits": f"SHA-256 {digest({'logits': logits})[:16]}, computed without augmentation"}


def _check_same(arrays: Mapping[str, NDArray[Any]], data: PreparedData, name: str) -> None:
    import numpy as np

    theirs, own = tuple(arrays["label_names"].tolist()), data.info.label_names
    if theirs != own:
        raise DataError(
            f"the classes of the teacher {name!r} are {', '.join(theirs[:8])}, but those of the student are "
            f"{', '.join(own[:8])}; train both on the same version of the data"
        )
    if not np.array_equal(arrays["targets"], data.train.targets):
        raise DataError(
            f"the training examples of the student are not those of the teacher {name!r}: {len(data.train)} and "
            f"{len(arrays['targets'])} examples, or other targets; use the same version of the data and, for token "
            "classification, the same options of the task"
        )


def _stored(teacher: TrainedWeights) -> dict[str, NDArray[Any]] | None:
    """Return the arrays in the cache, or None if they are missing or damaged."""
    try:
        arrays = read_arrays(logits_path(teacher))
        expected = str(arrays.pop("digest"))
        return arrays if digest(arrays) == expected else None
    except (RecordError, KeyError):
        return None


def _compute(teacher: TrainedWeights, catalog: Catalog) -> None:
    record = read_record(Path(teacher.path) / RECORD)
    if record.provenance.final_weights_digest != teacher.digest:
        raise RecordError(f"{teacher.path}: the weights of the teacher {teacher.run!r} have changed since planning")
    catalog = catalog.for_run(record.provenance.plugins)
    spec = msgspec.structs.replace(
        record.spec, device="auto", devices=1, precision="fp32", compile=False, recipe=for_inference(record.spec.recipe)
    )
    path = logits_path(teacher)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as name:
            computed = call_in_child(
                compute_logits,
                TeacherJob(spec=spec, plugins=catalog.refs_for(spec), teacher=teacher),
                timeout_s=TIMEOUT_S,
                environment=child_environment(spec),
                interpreter=interpreter(spec.env),
                directory=Path(name),
            )
            if isinstance(computed, Failure):
                raise HarnessError(f"the logits of the teacher {teacher.run!r} were not computed: {computed.message}")
            os.replace(Path(name) / ARRAYS, path)  # noqa: PTH105 - atomic
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None
    if _stored(teacher) is None:
        raise HarnessError(f"{path}: the logits of the teacher {teacher.run!r} cannot be read after writing them")


def compute_logits(job: TeacherJob, context: ChildContext) -> Computed:
    """Compute the logits of the training examples in a child process.

    Raises `harness.DataError` if the data or the weights are not those of the teacher's run.
    """
    import numpy as np

    from harness.measure.inference import predict

    teacher, prepared = job.teacher, prepare(job.spec, job.plugins)
    data = prepared.data
    if data.digest != teacher.dataset_digest:
        raise DataError(
            f"the data differ from those with which the teacher {teacher.run!r} was trained; restore that version of "
            "the data, or train the teacher again"
        )
    path = Path(teacher.path) / WEIGHTS
    weights = saved_weights(path, prepared)
    if digest(weights) != teacher.digest:
        raise DataError(f"{path}: the weights do not match the record of run {teacher.run!r}")
    with opened_session(prepared, weights) as session:
        logits = predict(session, data.train, job.spec.recipe.batch_size, data.info.outputs)
    arrays = {
        "logits": np.ascontiguousarray(logits, np.float32),
        "targets": np.asarray(data.train.targets),
        "label_names": np.array(data.info.label_names, dtype=str),
    }
    write_arrays(context.directory / ARRAYS, arrays | {"digest": np.array(digest(arrays))})
    return Computed(examples=len(logits), device=prepared.device.name)
