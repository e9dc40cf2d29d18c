"""The child process of a parity check, in which one backend computes arrays stage by stage."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.parity.computations import Computations
from harness.checks.parity.report import ARRAYS, ParityReport
from harness.execute.child import ChildContext
from harness.execute.preparation import opened_session, prepare, starting_weights
from harness.records import PluginRef, RunSpec
from harness.records.arrays import write_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LAST_BITS = 8
"""Maximum perturbation of a weight, in units in the last place. The perturbation is a few times the rounding error of a
float32 layer, so that a decision that depends on rounding, such as the sign of a ReLU's input, changes in about half of
the perturbations."""


class ParityJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a child process that runs one backend's computations."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    steps: int
    """Number of training steps of the loss curve."""
    reference: bool = False
    """True if the backend computes the float64 reference, which is used only by stages that compare results."""
    roundings: int = 0
    """Number of times that the gradients, the step and the training are recomputed from weights with newly perturbed
    last bits."""
    late: str = ""
    """Path of another backend's archive, which contains the late weights to use. If the path is empty, the late weights
    are those that this backend reached in training.
    """


def compute_evidence(job: ParityJob, context: ChildContext) -> ParityReport:
    """Run one backend's computations, and save the arrays as `ARRAYS` in the call's directory."""
    import numpy as np

    late = dict(np.load(job.late)) if job.late else None
    report, arrays = gather(job, late)
    write_arrays(context.directory / ARRAYS, arrays)
    return report


def gather(job: ParityJob, late: Mapping[str, Array] | None = None) -> tuple[ParityReport, dict[str, Array]]:
    """Run one backend's computations, and return the report and the arrays by name.

    Arrays computed at the probe weights:

    - ``start/NAME``: the weights that the session returns,
    - ``logits`` and ``logits_again``, ``[B, outputs]``: two predictions for the first test batch in evaluation mode,
    - ``loss``, ``[1]``: the loss of the first training batch in training mode without dropout,
    - ``gradients/NAME``: the gradients for this batch,
    - ``step/NAME``: the parameters after one optimizer step,
    - ``masks/...``: statistics of dropout (`harness.checks.parity.masks.mask_statistics`).

    Arrays computed while training:

    - ``curve``, ``[steps]``: the losses of the training from the initial weights,
    - ``trained``, ``[K, B, outputs]``: the logits for the test batch at `CHECKPOINTS`,
    - ``replay/SEGMENT/...``: predicted and actual steps (`harness.checks.parity.replay.Replay.arrays`) of this training
      (``curve``), of a longer one on small batches (``long``), of one with another clipping norm (``clip``), and, at
      fp16, of one whose gradients overflow (``scaled``).

    Arrays computed at late weights, which one backend reached at the end of its training. Late weights are numbered
    from 1, and taken from `late`, the arrays of that backend, if given:

    - ``late/K/weights/NAME``: the weights, if `late` is not given,
    - ``late/K/logits``, ``late/K/loss``, ``late/K/gradients/NAME``: as at the probe weights,
    - ``late/K/step loss``, ``late/K/statistics/NAME``: the loss of a training step, and the running statistics after
      it.

    With `ParityJob.roundings`, the arrays from ``loss`` to ``trained`` and those at late weights are also stored under
    ``rounding/K/``, where K counts from 1.
    """
    from harness.checks.parity.probe_weights import probe_weights
    from harness.data.batches import inference_batches
    from harness.measure.environment import CORE_PACKAGES, versions
    from harness.records.arrays import digest

    prepared = prepare(job.spec, job.plugins)
    spec, data, parameters = prepared.spec, prepared.data, prepared.request.parameters
    weights = probe_weights(parameters, spec.seed)
    initial, _ = starting_weights(prepared)
    test, valid = next(inference_batches(data.test, spec.recipe.batch_size))
    run = Computations(prepared, job.steps, weights, test, valid, reference=job.reference)

    arrays: dict[str, Array] = {}
    with contextlib.ExitStack() as stack:
        # Open the trained session first, because a run also trains the first session of its process.
        trained = stack.enter_context(opened_session(prepared, weights, dropout=0.0))
        probe = stack.enter_context(opened_session(prepared, weights, dropout=0.0)) if job.steps else trained
        returned = {name: array.copy() for name, array in trained.get_weights().items()}
        arrays.update({f"start/{name}": array for name, array in returned.items()})
        if not prepared.model.has_dropout:
            arrays.update(run.evaluate(trained))
        arrays.update(run.step(probe, weights))
        reached = run.train(trained, probe, initial, arrays)
        if job.steps and not job.reference:
            reached += run.train_long(trained, probe, arrays)
            run.train_clipped(probe, arrays)
            run.train_scaled(trained, probe, arrays)
        if late is None:
            points = reached
            arrays.update({f"late/{k}/weights/{n}": a for k, point in enumerate(points, 1) for n, a in point.items()})
        else:
            points = [point for point in _late_weights(late) if point.keys() == weights.keys()]
        for number, point in enumerate(points, 1):
            arrays.update({f"late/{number}/{name}": array for name, array in run.late(trained, probe, point).items()})
        if prepared.model.has_dropout:
            arrays.update(run.dropout(probe))
        notes = trained.notes()
    for number in range(1, job.roundings + 1):
        rounded: dict[str, Array] = {}
        perturbed = _perturbed(weights, number)
        with opened_session(prepared, perturbed, dropout=0.0) as session:
            rounded.update(run.step(session, perturbed))
            run.train(session, session, _perturbed(initial, number), rounded)
            for late_number, point in enumerate(points, 1):
                results = run.late(session, session, _perturbed(point, number))
                rounded.update({f"late/{late_number}/{name}": array for name, array in results.items()})
        arrays.update({f"rounding/{number}/{name}": array for name, array in rounded.items()})
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


def _late_weights(arrays: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Return the late weights in the arrays of another backend."""
    points: dict[int, dict[str, Array]] = {}
    for key, array in arrays.items():
        if key.startswith("late/") and "/weights/" in key:
            _, number, _, name = key.split("/", 3)
            points.setdefault(int(number), {})[name] = array
    return [points[number] for number in sorted(points)]


def _perturbed(weights: Mapping[str, Array], number: int) -> dict[str, Array]:
    """Return the float32 weights, each changed at random by up to `LAST_BITS` units in the last place."""
    import numpy as np

    rng = np.random.default_rng(number)
    units = {name: rng.integers(-LAST_BITS, LAST_BITS + 1, array.shape) for name, array in weights.items()}
    return {
        name: np.asarray(array + units[name] * np.spacing(np.abs(array)), np.float32) for name, array in weights.items()
    }


def _changes(sent: Mapping[str, Array], returned: Mapping[str, Array]) -> dict[str, float]:
    """Return the largest difference for each parameter whose returned values differ from the values that were set."""
    import numpy as np

    changes = {}
    for name, array in returned.items():
        if name in sent and sent[name].shape == array.shape and not np.array_equal(sent[name], array):
            changes[name] = float(np.abs(np.subtract(sent[name], array, dtype=np.float64)).max())
    return changes
