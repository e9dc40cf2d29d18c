"""Computation of the teacher's logits for the training examples in knowledge distillation.

The backend that trained the teacher computes the logits once, in a child process. The logits are stored in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from harness.errors import DataError, HarnessError, RecordError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import opened_session, prepare, saved_weights
from harness.execute.resume import package_versions
from harness.execute.teacher_logits import is_distilled, logits_path, stored_logits
from harness.execute.variables import child_environment
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.plugins.environments import interpreter
from harness.records import Failure, PluginRef, RunSpec, TrainedWeights
from harness.records.arrays import digest, write_arrays
from harness.records.recipe import for_inference
from harness.records.scratch import temporary
from harness.records.store import ARRAYS, RECORD, WEIGHTS, read_record

TIMEOUT_S = 3600.0
"""Time limit for computing the logits of one teacher, in seconds."""


class TeacherJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that computes the logits of a teacher."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    teacher: TrainedWeights
    code: str
    """Description of the code that computes the logits. The description is stored with the logits."""


class Computed(msgspec.Struct, frozen=True, kw_only=True):
    """Result returned by the child process. The child process saves the logits in the file `ARRAYS`."""

    examples: int
    device: str


def provide_logits(specs: Iterable[RunSpec], catalog: Catalog, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Compute the logits of the specs' teachers that are not in the cache.

    Raises `harness.HarnessError` if the run of a teacher is missing or damaged, if the teacher's data have changed, or
    if the teacher's backend fails.
    """
    for teacher in dict.fromkeys(spec.teacher for spec in specs if is_distilled(spec)):
        assert teacher is not None
        stored = stored_logits(teacher)
        try:
            record = read_record(Path(teacher.path) / RECORD)
        except RecordError:
            if stored is not None:  # The run was removed after the logits were computed.
                continue
            raise
        if record.provenance.final_weights_digest != teacher.digest:
            raise RecordError(
                f"{teacher.path}: the weights of the teacher {teacher.run!r} have changed since the run was planned"
            )
        own = catalog.for_run(record.provenance.plugins)
        code = _code(record.spec, own)
        if stored is None or str(stored.get("code")) != code:
            say(f"computing the logits of the teacher {teacher.run}")
            _compute(teacher, record.spec, own, code)


def _code(spec: RunSpec, catalog: Catalog) -> str:
    """Return a description of the code that computes a teacher's logits.

    The description consists of the plugins and the backend's packages.
    """
    digests = [with_digest(ref).code_digest for ref in catalog.refs_for(spec)]
    return msgspec.json.encode([digests, package_versions(spec, catalog)], order="sorted").decode()


def _compute(teacher: TrainedWeights, spec: RunSpec, catalog: Catalog, code: str) -> None:
    spec = msgspec.structs.replace(
        spec, device="auto", devices=1, precision="fp32", compile=False, recipe=for_inference(spec.recipe)
    )
    path = logits_path(teacher)
    try:
        with temporary(path.parent) as directory:
            computed = call_in_child(
                compute_logits,
                TeacherJob(spec=spec, plugins=catalog.refs_for(spec), teacher=teacher, code=code),
                timeout_s=TIMEOUT_S,
                environment=child_environment(spec),
                interpreter=interpreter(spec.env),
                directory=directory,
            )
            if isinstance(computed, Failure):
                raise HarnessError(f"the logits of the teacher {teacher.run!r} were not computed: {computed.message}")
            os.replace(directory / ARRAYS, path)  # noqa: PTH105 - atomic
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None
    if stored_logits(teacher) is None:
        raise HarnessError(f"{path}: the logits of the teacher {teacher.run!r} were written, but cannot be read")


def compute_logits(job: TeacherJob, context: ChildContext) -> Computed:
    """Compute the teacher's logits for the training examples in a child process.

    Raises `harness.DataError` if the data or the weights differ from those of the teacher's run.
    """
    import numpy as np

    from harness.measure.inference import predict

    teacher, prepared = job.teacher, prepare(job.spec, job.plugins)
    data = prepared.data
    if data.digest != teacher.dataset_digest:
        raise DataError(
            f"the teacher {teacher.run!r} was trained on different data; restore that version of the data, or train "
            "the teacher again"
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
        "code": np.array(job.code),
    }
    write_arrays(context.directory / ARRAYS, arrays | {"digest": np.array(digest(arrays))})
    return Computed(examples=len(logits), device=prepared.device.name)
