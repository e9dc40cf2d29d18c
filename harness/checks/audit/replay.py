"""Checks that repeat parts of a run in a child process.

The checks recompute the run's data, its initial weights, its first training steps and the predictions of its saved
weights. Another check tests whether the backend caches results.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.audit.check import Check, NotCheckedError, Result, Subject
from harness.checks.audit.compare import LIBRARIES, differences
from harness.checks.audit.finding import Finding
from harness.checks.audit.quality import judge
from harness.checks.audit.training import monitored_scores, steps_per_epoch
from harness.checks.parity.tolerances import tolerance
from harness.errors import HarnessError, RecordError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.declarations import declared_flops
from harness.execute.exporting import executable_model
from harness.execute.preparation import Preparation, fit_at_once, opened_session, prepare, starting_weights
from harness.execute.ranks import GROUP_NOTES, differs_from_one_device
from harness.execute.teacher import provide_logits
from harness.execute.variables import child_environment
from harness.interfaces import PreparedData, Session
from harness.interfaces.execution import EXECUTOR_NOTE
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.records import DataInfo, ModelInfo, PluginRef, RunRecord
from harness.records.arrays import digest
from harness.records.store import WEIGHTS, StoredRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

FASTER = 1.1
"""Maximum ratio of the time for new batches to the time for a repeated batch, as in MLPerf's TEST04."""
STEPS = 3
"""Number of training steps that are repeated on every machine."""
MORE_STEPS, MORE_S = 50, 20.0
"""Maximum number of training steps that are repeated on a machine with the same processor and packages, and time limit,
in seconds, for the steps after the first `STEPS` steps. On other machines, only `STEPS` steps are repeated, because
rounding errors grow during training."""
PAIRS = 12
"""Number of timed windows of each kind: windows with new batches, and windows with a repeated batch. The two kinds of
windows alternate."""
WINDOW_S = 0.1
"""Approximate duration of a window, in seconds."""
BATCHES = 64
"""Maximum number of batches in a window."""


@dataclass(frozen=True)
class Replay:
    """Results of the parts of a run that an audit repeats."""

    prepared: Preparation
    weights: dict[str, Any]
    """Initial weights."""
    notes: dict[str, str]
    session: Session
    """Session opened with the initial weights."""

    @property
    def data(self) -> PreparedData:
        return self.prepared.data


@contextlib.contextmanager
def opened(record: RunRecord, plugins: tuple[PluginRef, ...]) -> Iterator[Replay]:
    """Prepare the run's data and open a session with its initial weights. The session is closed on exit."""
    prepared = prepare(record.spec, plugins, executable_model)
    weights, notes = starting_weights(prepared)
    with opened_session(prepared, weights) as session:
        reported = session.notes() | dict(prepared.notes) | notes
        fit_at_once(session, prepared)
        yield Replay(prepared, weights, reported, session)


def as_recorded(info: DataInfo, subject: Subject) -> DataInfo:
    """Return the description of the data without fields that are missing from records of older versions."""
    recorded, evidence = subject.record.provenance.data, subject.outcome.evidence
    if recorded is not None and recorded.columns is None:
        info = msgspec.structs.replace(info, columns=None)
    if recorded is not None and not recorded.counts:
        splits = {name: msgspec.structs.replace(split, counted=0.0) for name, split in info.splits.items()}
        info = msgspec.structs.replace(info, counts="", splits=splits)
    if recorded is None or recorded.splits or (evidence is not None and evidence.arrays_digest):
        return info
    known = {name: value for name, value in info.details.items() if name in recorded.details}
    warnings = tuple(warning for warning in info.warnings if warning in recorded.warnings)
    return msgspec.structs.replace(info, details=known, warnings=warnings, splits={})


def _data(subject: Subject, replay: Replay) -> Result:
    recorded, provenance = subject.record.provenance.dataset_digest or "", subject.record.provenance
    problems = [] if replay.data.digest == recorded else [_digests(replay.data.digest, recorded)]
    problems += differences(provenance.data, as_recorded(replay.data.info, subject), "data")
    splits = {"train": replay.data.train, "validation": replay.data.validation, "test": replay.data.test}
    examples = {name: len(split) for name, split in splits.items()}
    problems += differences(subject.outcome.examples, examples, "examples")
    return Result(problems, _digests(replay.data.digest, recorded))


def _targets(subject: Subject, replay: Replay) -> Result:
    import numpy as np

    subject.require_outputs()
    samples, checked = subject.samples, []
    for name, split in (("test", replay.data.test), ("validation", replay.data.validation)):
        stored = samples.get(f"{name}_targets")
        if stored is None:
            continue
        if not np.array_equal(stored, split.targets):
            return Result([f"the stored targets of the {name} split differ from the data"], "")
        checked.append(name)
    return Result((), f"targets of the splits {', '.join(checked)}")


def _initial(subject: Subject, replay: Replay) -> Result:
    if not replay.weights:
        raise NotCheckedError("the model has no canonical weights")
    actual, recorded = digest(replay.weights), subject.record.provenance.initial_weights_digest or ""
    return Result([] if actual == recorded else [_digests(actual, recorded)], _digests(actual, recorded))


def _model(subject: Subject, replay: Replay) -> Result:
    import numpy as np

    prepared = replay.prepared
    expected = ModelInfo(
        parameters=sum(int(np.prod(p.shape)) for p in prepared.request.parameters if p.trainable),
        flops_per_sample=declared_flops(prepared.model, prepared.request.config, prepared.data.info),
    )
    return Result(
        differences(subject.outcome.model, expected, "model"),
        f"{expected.parameters} parameters, {expected.flops_per_sample:.15g} FLOPs per sample",
    )


def _elsewhere(subject: Subject, replay: Replay) -> str:
    """Return the name of a property in which this machine or environment differs from that of the run, or an empty
    string."""
    from harness.measure.environment import collect

    recorded, here = subject.record.environment, collect(replay.prepared.backend.packages)
    names = ("cpu", "cores", "gpus", "packages")
    return next((name for name in names if getattr(here, name) != getattr(recorded, name)), "")


def _settings(subject: Subject, replay: Replay) -> Result:
    """Compare the device and settings reported by the backend with those in the record. The device and settings depend
    on the machine and the package versions."""
    if differing := _elsewhere(subject, replay):
        raise NotCheckedError(
            f"the run was executed on a different machine or with different packages ({differing} differ)"
        )
    provenance, notes = subject.record.provenance, subject.record.provenance.notes
    notes = {name: value for name, value in notes.items() if value and name != EXECUTOR_NOTE}
    if subject.spec.devices > 1:  # the audit repeats the run in one process
        notes = {name: value for name, value in notes.items() if name not in GROUP_NOTES}
    problems = differences(provenance.device_name, replay.prepared.device.description, "device_name")
    recomputed = {name: value for name, value in replay.notes.items() if value}
    problems += differences(notes, recomputed, "notes")
    return Result(problems, f"{len(recomputed)} settings")


def _first_steps(subject: Subject, replay: Replay) -> Result:
    """Train for a few steps from the initial weights and compare the losses to detect changes to the recipe or data.

    With dropout, the package versions must be the same, because the framework draws the dropout masks. More steps are
    compared on a machine with the same processor and packages. If a loss differs on such a machine, the steps are
    repeated, because rounding errors may vary even between training runs on one machine.
    """
    import numpy as np

    from harness.measure.distance import relative

    subject.require_training()
    spec, recorded = subject.spec, subject.samples["train_losses"]
    if not replay.prepared.backend.trains_by_steps:
        raise NotCheckedError("the backend does not train in steps")
    elsewhere = _elsewhere(subject, replay)
    if spec.devices > 1 and (differs := differs_from_one_device(subject.record)):
        raise NotCheckedError(f"on {spec.devices} devices, {differs}")
    if spec.recipe.dropout and elsewhere == "packages":
        raise NotCheckedError("the run used different package versions, which may generate different dropout masks")
    allowed = tolerance("curve", spec.precision, subject.outcome.model.parameters).value
    count = min(STEPS if elsewhere else MORE_STEPS, len(recorded))
    losses = _losses(replay.session, replay, count, subject)
    error = relative(losses[:STEPS], recorded[:STEPS][: len(losses)])
    if error > allowed:
        return Result([f"{len(losses[:STEPS])} losses differ by {error:.1e} (allowed {allowed:.0e})"], "")
    expected = recorded[: len(losses)]
    errors = abs(losses - expected) / np.maximum(abs(expected), 0.01 * abs(expected).mean())
    worst = int(errors.argmax())
    if errors[worst] <= allowed:
        return Result((), f"{len(losses)} losses differ by at most {errors[worst]:.1e} (allowed {allowed:.0e})")
    with opened_session(replay.prepared, replay.weights) as session:
        again = _losses(session, replay, len(losses), subject)
    if len(again) < len(losses) or relative(again, losses) > allowed / 10:
        return Result(
            (), f"{STEPS} losses differ by {error:.1e} (allowed {allowed:.0e}); later losses are not reproducible"
        )
    return Result([f"the loss at step {worst + 1} differs by {errors[worst]:.1e} (allowed {allowed:.0e})"], "")


def _losses(session: Session, replay: Replay, count: int, subject: Subject) -> NDArray[Any]:
    """Return the losses of the first `count` training steps of the run.

    With dropout, only steps of the first epoch are run. Predictions between epochs may advance the random number
    generator.
    """
    import numpy as np

    from harness.data.batches import training_batches
    from harness.measure.schedule import learning_rate, planned_steps, reductions

    spec, data, scores = replay.prepared.spec, replay.data, monitored_scores(subject)
    epochs = range(1, 2 if spec.recipe.dropout else spec.recipe.epochs + 1)
    steps = planned_steps(spec.recipe, steps_per_epoch(subject))
    batches = (
        (batch, reductions(spec.recipe, epoch - 1, scores[: epoch - 1]))
        for epoch in epochs
        for batch in training_batches(data.train, spec.recipe.batch_size, spec.seed, epoch, data.augment)
    )
    losses: list[float] = []
    deadline = time.perf_counter() + MORE_S
    for step, (batch, reduced) in zip(range(count), batches, strict=False):
        if step == STEPS:
            deadline = time.perf_counter() + MORE_S
        if step > STEPS and time.perf_counter() > deadline:
            break
        rate = learning_rate(spec.recipe, step, steps, reduced)
        losses.append(float(session.fetch(session.train_step(batch, rate))))
    return np.array(losses)


def _slices(subject: Subject, replay: Replay) -> Result:
    from harness.measure.quality.scorer import Scorer
    from harness.measure.quality.slices import with_intersections

    recorded, test = subject.outcome.scores.slices, subject.scored("test")
    scorer: Scorer = judge(subject)
    groups = with_intersections(replay.data.test.groups, subject.spec.slice_columns)
    computed = scorer.scores(test, test, None, groups).slices
    if not any(one.class_support for one in recorded):  # older records have no counts
        computed = [
            msgspec.structs.replace(one, class_support=[], class_predicted=[], class_correct=[]) for one in computed
        ]
    return Result(differences(recorded, computed, "slices", LIBRARIES), f"{len(computed)} slices of the data")


def _closed_form(subject: Subject, replay: Replay) -> Result:
    from harness.measure.inference import predict

    prepared, data, recorded = replay.prepared, replay.data, subject.outcome.scores.reference
    if prepared.backend.executes:
        return Result([] if recorded is None else ["an exported model has no closed-form scores"], "exported model")
    solution = prepared.model.solve(prepared.request.config, data.info, data.train)
    if solution is None:
        return Result([] if recorded is None else ["the model has no closed-form solution"], "no closed-form solution")
    replay.session.set_weights(solution)
    outputs = predict(replay.session, data.test, subject.spec.recipe.batch_size, data.info.outputs)
    allowed = max(LIBRARIES, 10 * tolerance("logits", subject.spec.precision, subject.outcome.model.parameters).value)
    computed = judge(subject).score(data.test.targets, outputs)
    return Result(differences(recorded, computed, "reference", allowed), f"{len(computed)} scores")


def _saved(subject: Subject, replay: Replay) -> Result:
    """Compare the stored predictions with new predictions from the saved weights."""
    from harness.execute.weights import load
    from harness.measure.distance import relative
    from harness.measure.inference import predict

    path = subject.run.path / WEIGHTS
    if not path.is_file():
        raise NotCheckedError("no weights were saved (harness run --save-weights)")
    subject.require_outputs()
    try:
        weights = load(path)
    except RecordError as problem:  # the file is damaged, so the check fails even though nothing is compared
        return Result([str(problem)], "")
    if digest(weights) != subject.record.provenance.final_weights_digest:
        return Result(["the saved weights differ from the trained weights"], "")
    replay.session.set_weights(weights)
    allowed = tolerance("logits", subject.spec.precision, subject.outcome.model.parameters).value
    problems, details = [], []
    for name, split in (("test", replay.data.test), ("validation", replay.data.validation)):
        stored = subject.samples.get(f"{name}_outputs")
        if stored is None:
            continue
        outputs = predict(replay.session, split, subject.spec.recipe.batch_size, replay.data.info.outputs)
        error = relative(outputs, stored)
        details.append(f"{len(outputs)} {name} predictions differ by {error:.1e} (allowed {allowed:.0e})")
        problems += [] if error <= allowed else details[-1:]
    return Result(problems, "; ".join(details))


def _no_cache(subject: Subject, replay: Replay) -> Result:
    """Compare the time for one repeated batch with the time for new batches drawn from the training split."""
    import numpy as np

    from harness.measure.steady import median_interval

    session, data = replay.session, replay.data
    size = min(subject.spec.recipe.batch_size, len(data.test))
    rng = np.random.default_rng(0)

    def draw() -> dict[str, NDArray[Any]]:
        index = np.sort(rng.integers(0, len(data.train), size))
        return {name: np.ascontiguousarray(array[index]) for name, array in data.train.inputs.items()}

    def seconds(batches: list[dict[str, NDArray[Any]]]) -> float:
        start = time.perf_counter()
        for batch in batches:
            session.fetch(session.predict(batch))
        return time.perf_counter() - start

    one = draw()
    seconds([one] * 3)
    count = max(1, min(BATCHES, round(WINDOW_S / max(seconds([one]), 1e-6))))
    ratios = []
    for pair in range(PAIRS):
        fresh = [draw() for _ in range(count)]
        times: dict[str, float] = {}
        kinds = [("repeated", [one] * count), ("fresh", fresh)]
        for kind, batches in kinds if pair % 2 else reversed(kinds):
            times[kind] = seconds(batches)
        ratios.append(times["fresh"] / times["repeated"])
    ends = median_interval(np.array(ratios))
    assert ends is not None
    low, high = ends
    detail = (
        f"a repeated batch is {float(np.median(ratios)):.2f} times as fast as new batches (within-run "
        f"range {low:.2f} to {high:.2f}; allowed {FASTER:g})"
    )
    return Result([] if low <= FASTER else [detail], detail)


def _digests(actual: str, recorded: str) -> str:
    if actual == recorded:
        return f"the recomputed SHA-256 {actual[:8]} is the recorded one"
    return f"the recomputed SHA-256 is {actual[:8]}, but the record contains {recorded[:8]}"


CHECKS: tuple[Check, ...] = (
    Check("the data match the record", ("provenance.dataset_digest", "provenance.data", "outcome.examples"), _data),
    Check("the stored targets match the data", (), _targets),
    Check("the initial weights match the seed", ("provenance.initial_weights_digest",), _initial),
    Check("the size and cost of the model match the record", ("outcome.model",), _model),
    Check(
        "the device and settings of the backend match the record",
        ("provenance.device_name", "provenance.notes"),
        _settings,
    ),
    Check("repeating the first training steps gives the recorded losses", (), _first_steps),
    Check("scores by slice match the predictions", ("outcome.scores.slices",), _slices),
    Check("closed-form scores match the data", ("outcome.scores.reference",), _closed_form),
    Check("the saved weights reproduce the predictions", ("provenance.final_weights_digest",), _saved),
    Check("no results are cached between batches", (), _no_cache),
)
"""Checks in execution order.

The order matters because some checks change the session's weights.
"""


class ReplayJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a child process that repeats parts of a run."""

    record: RunRecord
    plugins: tuple[PluginRef, ...]
    run: str
    """Path of the run's directory."""


def replay(run: StoredRun, catalog: Catalog, timeout_s: float) -> list[Finding]:
    """Return a finding for each check in `CHECKS`. If the child process could not perform a check, the finding contains
    the reason."""
    findings: list[Finding] = []
    try:
        spec = run.record.spec
        provide_logits([spec], catalog)
        failure = call_in_child(
            make_checks,
            ReplayJob(record=run.record, plugins=catalog.refs_for(spec), run=str(run.path.absolute())),
            timeout_s=timeout_s,
            environment=child_environment(spec),
            interpreter=interpreter(spec.env),
            event_type=Finding,
            on_event=findings.append,
            limit_option="--timeout",
        )
        reason = failure.message if failure else "the child process did not send a result"
    except HarnessError as error:
        reason = str(error)
    missing = CHECKS[len(findings) :]
    return [
        *findings,
        *(Finding(check=check.name, passed=None, detail=reason, fields=check.fields) for check in missing),
    ]


def make_checks(job: ReplayJob, context: ChildContext) -> None:
    """Send each finding as soon as it is available. The findings are in the order of `CHECKS`."""
    with opened(job.record, job.plugins) as repeated:
        subject = Subject(StoredRun(Path(job.run), job.record), repeated.prepared.catalog)
        for check in CHECKS:
            context.send(check.finding(subject, repeated))
