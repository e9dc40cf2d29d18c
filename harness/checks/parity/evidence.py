"""The child process of a parity check, in which one backend computes arrays stage by stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.parity.report import ARRAYS, CHECKPOINTS, ParityReport
from harness.execute.child import ChildContext
from harness.execute.preparation import opened_session, prepare, starting_weights
from harness.interfaces import Batch, PreparedData, Session
from harness.records import PluginRef, RunSpec
from harness.records.arrays import write_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LAST_BITS = 8
"""Maximum perturbation of a weight, in units in the last place. It is a few times the rounding error of a float32
layer, so that a decision that depends on rounding, such as the sign of a ReLU's input, changes in about half of the
draws."""
DROPOUT = 0.1
"""Dropout rate used if the recipe's rate is 0, so that the check can detect dropout in evaluation mode."""
STEP_RATE = 0.1
"""Minimum learning rate for the single step that is compared. With a typical rate, a step changes a parameter by a
thousandth, and rounding would hide missing weight decay. RMSProp uses a tenth of this rate because its first step,
``a g / sqrt(0.01 g^2)``, is ten times as long. At the full rate, the step would move probe weights from 1 to 0 and
leave only rounding errors."""


class ParityJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a child process that computes one backend's evidence."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    steps: int
    """Number of training steps of the loss curve."""
    roundings: int = 0
    """Number of times that the gradients, the step and the training are recomputed from weights with newly perturbed
    last bits."""


def compute_evidence(job: ParityJob, context: ChildContext) -> ParityReport:
    """Compute one backend's evidence, and save its arrays as `ARRAYS` in the call's directory."""
    report, arrays = gather(job)
    write_arrays(context.directory / ARRAYS, arrays)
    return report


def gather(job: ParityJob) -> tuple[ParityReport, dict[str, Array]]:
    """Compute one backend's evidence and return the report and the arrays by name.

    Arrays computed at the probe weights:

    - ``start/NAME``: the weights that the session returns,
    - ``logits`` and ``logits_again``, ``[B, outputs]``: two predictions for the first test batch in evaluation mode,
    - ``loss``, ``[1]``: the loss of the first training batch in training mode without dropout,
    - ``gradients/NAME``: the gradients for this batch,
    - ``step/NAME``: the parameters after one optimizer step.

    Arrays computed while training from the initial weights:

    - ``curve``, ``[steps]``: the losses,
    - ``trained``, ``[K, B, outputs]``: the logits for the test batch at `CHECKPOINTS`.

    With `ParityJob.roundings`, the arrays from ``loss`` to ``trained`` are also stored under ``rounding/K/``, where K
    counts from 1.
    """
    from harness.checks.parity.probe_weights import probe_weights
    from harness.data.batches import inference_batches
    from harness.measure.environment import CORE_PACKAGES, versions
    from harness.records.arrays import digest

    prepared = prepare(job.spec, job.plugins)
    spec, data, parameters = prepared.spec, prepared.data, prepared.request.parameters
    weights = probe_weights(parameters, spec.seed)
    initial, _ = starting_weights(prepared)
    inputs, valid = next(inference_batches(data.test, spec.recipe.batch_size))

    arrays: dict[str, Array] = {}
    if prepared.model.has_dropout:
        with opened_session(prepared, weights, dropout=spec.recipe.dropout or DROPOUT) as session:
            _evaluate(session, inputs, valid, arrays)
    with opened_session(prepared, weights, dropout=0.0) as session:
        returned = {name: array.copy() for name, array in session.get_weights().items()}
        if not prepared.model.has_dropout:
            _evaluate(session, inputs, valid, arrays)
        arrays.update({f"start/{name}": array for name, array in returned.items()})
        _step(session, weights, data, spec, arrays)
        session.set_weights(initial)
        _train(session, data, spec, job.steps, inputs, valid, arrays)
        notes = session.notes()
    for number in range(1, job.roundings + 1):
        rounded: dict[str, Array] = {}
        perturbed = _perturbed(weights, number)
        with opened_session(prepared, perturbed, dropout=0.0) as session:
            _step(session, perturbed, data, spec, rounded)
            session.set_weights(_perturbed(initial, number))
            _train(session, data, spec, job.steps, inputs, valid, rounded)
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
            cpu_precisions=next((d.precisions for d in backend.devices() if d.name == "cpu"), ()),
            parameters={name: tuple(array.shape) for name, array in returned.items()},
            changed_on_the_way=_changes(weights, returned),
            statistics=tuple(parameter.name for parameter in parameters if not parameter.trainable),
            decayed=tuple(parameter.name for parameter in parameters if parameter.decay),
        ),
        arrays,
    )


def _perturbed(weights: Mapping[str, Array], number: int) -> dict[str, Array]:
    """Return the float32 weights, each changed at random by up to `LAST_BITS` units in the last place."""
    import numpy as np

    rng = np.random.default_rng(number)
    units = {name: rng.integers(-LAST_BITS, LAST_BITS + 1, array.shape) for name, array in weights.items()}
    return {
        name: np.asarray(array + units[name] * np.spacing(np.abs(array)), np.float32) for name, array in weights.items()
    }


def _evaluate(session: Session, inputs: Mapping[str, Array], valid: int, arrays: dict[str, Array]) -> None:
    """Predict one batch twice in evaluation mode. Its first `valid` rows are examples; the others are padding."""
    arrays["logits"] = _fetched(session, session.predict(inputs))[:valid]
    arrays["logits_again"] = _fetched(session, session.predict(inputs))[:valid]


def _step(
    session: Session, weights: Mapping[str, Array], data: PreparedData, spec: RunSpec, arrays: dict[str, Array]
) -> None:
    """Compute gradients and then one optimizer step. Both start from `weights` with a new optimizer state."""
    import numpy as np

    first = next(_batches(data, spec))
    loss, gradients = session.gradients(first)
    arrays["loss"] = np.array([loss])
    arrays.update({f"gradients/{name}": array for name, array in gradients.items()})
    session.set_weights(weights)
    least = STEP_RATE / 10 if spec.recipe.optimizer == "rmsprop" else STEP_RATE
    session.train_step(first, max(spec.recipe.learning_rate, least))
    arrays.update({f"step/{name}": array for name, array in session.get_weights().items()})


def _train(
    session: Session,
    data: PreparedData,
    spec: RunSpec,
    steps: int,
    inputs: Mapping[str, Array],
    valid: int,
    arrays: dict[str, Array],
) -> None:
    """Train with the recipe's schedule, as if the whole training had `steps` steps."""
    import numpy as np

    from harness.measure.schedule import learning_rate

    losses, trained = [], []
    for step, batch in zip(range(steps), _batches(data, spec), strict=False):
        losses.append(float(_fetched(session, session.train_step(batch, learning_rate(spec.recipe, step, steps)))))
        if step + 1 in CHECKPOINTS:
            trained.append(_fetched(session, session.predict(inputs))[:valid])
    arrays["curve"] = np.array(losses)
    arrays["trained"] = np.array(trained)


def _batches(data: PreparedData, spec: RunSpec) -> Iterator[Batch]:
    """Yield the training batches of a run, epoch after epoch, indefinitely."""
    import itertools

    from harness.data.batches import training_batches

    for epoch in itertools.count(1):
        yield from training_batches(data.train, spec.recipe.batch_size, spec.seed, epoch, data.augment)


def _fetched(session: Session, handle: Any) -> Array:
    import numpy as np

    return np.array(session.fetch(handle))


def _changes(sent: Mapping[str, Array], returned: Mapping[str, Array]) -> dict[str, float]:
    """Return the largest difference for each parameter whose values changed between being set and being read."""
    import numpy as np

    changes = {}
    for name, array in returned.items():
        if name in sent and sent[name].shape == array.shape and not np.array_equal(sent[name], array):
            changes[name] = float(np.abs(np.subtract(sent[name], array, dtype=np.float64)).max())
    return changes
