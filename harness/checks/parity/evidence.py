"""The child process of a parity check, in which one backend computes arrays stage by stage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.parity.computations import Computations
from harness.checks.parity.gate import wait_at
from harness.checks.parity.report import ARRAYS, ParityReport
from harness.execute.child import ChildContext
from harness.execute.preparation import Preparation, opened_session, prepare, starting_weights
from harness.records import PluginRef, RunSpec
from harness.records.arrays import write_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LATE = "late.npz"
"""File with the trained weights of the first backend (*late* weights). The arrays are named ``K/NAME``, where K is the
index of the set of weights, starting at 1."""
LAST_BITS = 8
"""Maximum perturbation of a weight, in units in the last place. The perturbation is a few times the rounding error of a
float32 layer. For example, if the sign of a ReLU's input depends on rounding, the sign changes under about
half of the perturbations."""


class ParityJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a child process that runs one backend's computations."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    steps: int
    """Number of training steps in the loss curve."""
    reference: bool = False
    """True if the backend computes the float64 reference. If True, computations whose results are not compared with the
    reference are skipped."""
    roundings: tuple[int, ...] = ()
    """Seeds of the weight perturbations in `compute_roundings`."""
    turn: str = ""
    """Path of the gate at which the child process waits after it has prepared its data and before it computes."""
    late: str = ""
    """Path of a file that contains the trained weights of another backend (*late* weights). If the path is empty, this
    backend uses the weights from its own training and writes them to `LATE`."""
    late_gate: str = ""
    """Path of the gate at which the child process waits before it reads the file `late`."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Event sent by a child process after it has prepared its data. The process then waits until it may start
    computing."""

    device: str
    """Name of the selected device."""


class Handed(msgspec.Struct, frozen=True, tag="handed"):
    """Event sent by a child process after it has written its late weights."""


class StageStarted(msgspec.Struct, frozen=True, tag="stage"):
    """Event sent by a child process when it starts a part of its computations."""

    stage: str


def compute_evidence(job: ParityJob, context: ChildContext) -> ParityReport:
    """Run one backend's computations, and save the arrays as `ARRAYS` in the call's directory."""
    import numpy as np

    prepared = prepare(job.spec, job.plugins)
    context.send(Ready(device=prepared.device.name))
    wait_at(job.turn)

    def late() -> Mapping[str, Array]:
        wait_at(job.late_gate)
        return dict(np.load(job.late))

    def hand_over(weights: Mapping[str, Array]) -> None:
        write_arrays(context.directory / LATE, weights)
        context.send(Handed())

    def started(stage: str) -> None:
        context.send(StageStarted(stage))

    report, arrays = gather(job, prepared, late if job.late else None, hand_over, started)
    write_arrays(context.directory / ARRAYS, arrays)
    return report


def compute_roundings(job: ParityJob, context: ChildContext) -> tuple[int, ...]:
    """Compute the float64 reference from perturbed weights and save the arrays as `ARRAYS` in the call's directory.
    Return the seeds of the perturbations."""
    import numpy as np

    prepared = prepare(job.spec, job.plugins)

    def started(stage: str) -> None:
        context.send(StageStarted(stage))

    write_arrays(context.directory / ARRAYS, roundings(job, prepared, dict(np.load(job.late)), started))
    return job.roundings


Received = Callable[[], Mapping[str, "Array"]]


def gather(
    job: ParityJob,
    prepared: Preparation,
    late: Received | None = None,
    hand_over: Callable[[Mapping[str, Array]], None] = lambda _: None,
    started: Callable[[str], None] = lambda _: None,
) -> tuple[ParityReport, dict[str, Array]]:
    """Run one backend's computations. Return the report and a dictionary of arrays.

    `late` is a function that returns the late weights of another backend, that is, the weights of that backend after
    training. The function is called only when the late weights are needed. If `late` is None, the weights of this
    backend after training are used and passed to `hand_over`. `started` is called with the name of each stage when the
    stage starts.

    Arrays computed at the probe weights:

    - ``start/NAME``: the weights that the session returns,
    - ``logits`` and ``logits_again``, ``[B, outputs]``: two predictions for the first test batch in evaluation mode,
    - ``loss``, ``[1]``: the loss of the first training batch in training mode without dropout,
    - ``gradients/NAME``: the gradients for this batch,
    - ``step/NAME``: the parameters after one optimizer step,
    - ``masks/...``: statistics of dropout (`harness.checks.parity.masks.mask_statistics`).

    Arrays computed while training:

    - ``curve``, ``[steps]``: the losses when training from the initial weights,
    - ``trained``, ``[K, B, outputs]``: the logits for the test batch at `CHECKPOINTS`,
    - ``replay/SEGMENT/...``: predicted and actual steps (`harness.checks.parity.replay.Replay.arrays`). The segments
      are the training run from the initial weights (``curve``), a longer run on small batches (``long``), a run with a
      different clipping norm (``clip``) and, in fp16, a run in which gradients overflow (``scaled``).

    Arrays computed at the late weights. Each of the training runs ``curve`` and ``long`` provides one set of late
    weights, unless it diverges. K is the number of a set, starting at 1:

    - ``late/K/logits``, ``late/K/loss``, ``late/K/gradients/NAME``: the logits, loss and gradients, as at the probe
      weights,
    - ``late/K/step loss``, ``late/K/statistics/NAME``: the loss of a training step, and the running statistics after
      it.
    """
    from harness.measure.environment import CORE_PACKAGES, versions
    from harness.records.arrays import digest

    spec, data, parameters = prepared.spec, prepared.data, prepared.request.parameters
    run, weights, initial = _computations(job, prepared)
    arrays: dict[str, Array] = {}
    started("outputs, gradients and one optimizer step")
    with contextlib.ExitStack() as stack:
        # Open the trained session first, because a run also trains the first session of its process.
        trained = stack.enter_context(opened_session(prepared, weights, dropout=0.0))
        probe = stack.enter_context(opened_session(prepared, weights, dropout=0.0)) if job.steps else trained
        returned = {name: array.copy() for name, array in trained.get_weights().items()}
        arrays.update({f"start/{name}": array for name, array in returned.items()})
        if not prepared.model.has_dropout:
            arrays.update(run.evaluate(trained))
        arrays.update(run.step(probe, weights))
        if job.steps:
            started(f"{job.steps} training steps")
        reached = run.train(trained, probe, initial, arrays)
        if job.steps and not job.reference:
            started("training on small batches")
            reached += run.train_long(trained, probe, arrays)
            run.train_clipped(probe, arrays)
            run.train_scaled(trained, probe, arrays)
        if late is None:
            hand_over({f"{k}/{name}": array for k, point in enumerate(reached, 1) for name, array in point.items()})
        if job.steps:
            started("outputs and gradients after training")
        points = reached if late is None else _points(late(), weights)
        for number, point in enumerate(points, 1):
            arrays.update({f"late/{number}/{name}": array for name, array in run.late(trained, probe, point).items()})
        if prepared.model.has_dropout:
            started("dropout")
            arrays.update(run.dropout(probe))
        notes = trained.notes()
    backend = prepared.backend
    return (
        ParityReport(
            spec=spec,
            device_name=prepared.device.description,
            packages=versions((*CORE_PACKAGES, *backend.packages)),
            notes=notes,
            data=data.info,
            dataset_digest=data.digest,
            weights_digest=digest(initial),
            batches_digest=run.batches_digest(),
            cpu_precisions=next((d.precisions for d in backend.devices() if d.name == "cpu"), ()),
            parameters={name: tuple(array.shape) for name, array in returned.items()},
            changed_on_the_way=_changes(weights, returned),
            statistics=tuple(parameter.name for parameter in parameters if not parameter.trainable),
            decayed=tuple(parameter.name for parameter in parameters if parameter.decay),
        ),
        arrays,
    )


def roundings(
    job: ParityJob,
    prepared: Preparation,
    late: Mapping[str, Array],
    started: Callable[[str], None] = lambda _: None,
) -> dict[str, Array]:
    """Repeat the reference's computations from weights with perturbed last bits.

    Return the arrays ``loss``, ``gradients``, ``step``, ``curve`` and ``trained`` (see `gather`), and the arrays
    computed at the weights `late`. All arrays are stored under ``rounding/K/`` for each number K in
    `ParityJob.roundings`.
    """
    run, weights, initial = _computations(job, prepared)
    points = _points(late, weights)
    arrays: dict[str, Array] = {}
    for number in job.roundings:
        started(f"perturbation {number}")
        rounded: dict[str, Array] = {}
        perturbed = _perturbed(weights, number)
        with opened_session(prepared, perturbed, dropout=0.0) as session:
            rounded.update(run.step(session, perturbed))
            run.train(session, session, _perturbed(initial, number), rounded)
            for late_number, point in enumerate(points, 1):
                results = run.late(session, session, _perturbed(point, number))
                rounded.update({f"late/{late_number}/{name}": array for name, array in results.items()})
        arrays.update({f"rounding/{number}/{name}": array for name, array in rounded.items()})
    return arrays


def _computations(
    job: ParityJob, prepared: Preparation
) -> tuple[Computations, Mapping[str, Array], Mapping[str, Array]]:
    """Return a job's computations, the probe weights and the initial weights."""
    from harness.checks.parity.probe_weights import probe_weights
    from harness.data.batches import inference_batches

    spec = prepared.spec
    weights = probe_weights(prepared.request.parameters, spec.seed)
    test, valid = next(inference_batches(prepared.data.test, spec.recipe.batch_size))
    run = Computations(prepared, job.steps, weights, test, valid, reference=job.reference)
    return run, weights, starting_weights(prepared)[0]


def _points(late: Mapping[str, Array], weights: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Return the sets of late weights of another backend, in order. A set is omitted if its parameter names differ from
    those in `weights`."""
    points: dict[int, dict[str, Array]] = {}
    for key, array in late.items():
        number, _, name = key.partition("/")
        points.setdefault(int(number), {})[name] = array
    return [points[number] for number in sorted(points) if points[number].keys() == weights.keys()]


def _perturbed(weights: Mapping[str, Array], number: int) -> dict[str, Array]:
    """Return the float32 weights, each changed at random by up to `LAST_BITS` units in the last place."""
    import numpy as np

    rng = np.random.default_rng(number)
    units = {name: rng.integers(-LAST_BITS, LAST_BITS + 1, array.shape) for name, array in weights.items()}
    return {
        name: np.asarray(array + units[name] * np.spacing(np.abs(array)), np.float32) for name, array in weights.items()
    }


def _changes(sent: Mapping[str, Array], returned: Mapping[str, Array]) -> dict[str, float]:
    """Return the largest difference for each parameter that the session did not return exactly as it was set."""
    import numpy as np

    changes = {}
    for name, array in returned.items():
        if name in sent and sent[name].shape == array.shape and not np.array_equal(sent[name], array):
            changes[name] = float(np.abs(np.subtract(sent[name], array, dtype=np.float64)).max())
    return changes
