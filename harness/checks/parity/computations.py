"""The computations of one backend in a parity check, using the same data and weights for every backend."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.parity.report import CHECKPOINTS, LONG_STEPS, STEPS
from harness.execute.preparation import Preparation, opened_session
from harness.interfaces import Batch, Session
from harness.records import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.checks.parity.replay import Replay

    Array = NDArray[Any]

DROPOUT = 0.1
"""Dropout rate used if the recipe's rate is 0, so that the check can detect dropout in evaluation mode."""
STEP_RATE = 0.1
"""Minimum learning rate for the comparison of a single optimizer step. A step at a typical learning rate changes a
parameter by only about 0.1%, so missing weight decay would be hidden by rounding. RMSProp uses a tenth of this rate,
because its first step, ``a g / sqrt(0.01 g^2)``, is ten times as large and would otherwise change probe weights from 1
to 0."""
EXAMPLES = 8
"""Number of examples in the small batches."""
LARGE = 5_000_000
"""Number of parameters above which the longer training run is limited to the number of steps in the loss curve."""
CLIPPED_STEPS = 20
"""Number of training steps with a clipping norm chosen so that about half of the gradients exceed it."""
SCALED_STEPS = 30
"""Number of fp16 training steps, starting from weights at which gradients overflow."""
_GAINS = tuple(2.0**exponent for exponent in range(13))
"""Factors by which matrices are multiplied to make gradients overflow in fp16."""
_HALVINGS = 3
"""Minimum number of loss scale halvings before the gradients become finite. With fewer halvings, rounding could decide
whether the gradients overflow."""
_SLIGHT = 5e-4
"""Relative change in the learning rate at every second step of `Computations.train_long`."""

_TINY_RATE = 1e-3
"""Factor by which the learning rate is multiplied in `_TINY_RATE_STEPS`. In long training runs, the learning rates at
the start and the end of a schedule are similarly small."""
_TINY_RATE_STEPS = (100, 200)
"""Steps of `Computations.train_long` at which `_TINY_RATE` applies. Every second step, including the one after a step
with `_TINY_RATE`, uses almost the same learning rate as the step before it."""


class Computations:
    """The computations of a parity check, using sessions opened by the caller."""

    def __init__(
        self,
        prepared: Preparation,
        steps: int,
        weights: Mapping[str, Array],
        test: Mapping[str, Array],
        valid: int,
        *,
        reference: bool,
    ) -> None:
        """Create the computations.

        Parameters
        ----------
        prepared : Preparation
            Backend, model and data.
        steps : int
            Number of training steps in the loss curve.
        weights : mapping of str to ndarray
            The probe weights.
        test : mapping of str to ndarray
            Inputs of the test batch. The first `valid` rows are examples, and the rest are padding.
        valid : int
            Number of examples in the test batch.
        reference : bool
            True if the backend computes the float64 reference.
        """
        self._prepared, self._steps, self._reference = prepared, steps, reference
        self._weights, self._test, self._valid = weights, test, valid
        self._spec, self._data = prepared.spec, prepared.data
        from harness.checks.parity.scaling import dynamic_scaling

        self._scaling = dynamic_scaling(self._spec.precision, self._spec.recipe)

    def evaluate(self, session: Session) -> dict[str, Array]:
        """Compute predictions for the test batch twice in evaluation mode, and then only for its first example.

        The last two predictions are computed inside `Session.inference`, as in a run.
        """
        arrays = {"logits": self._predicted(session)}
        with session.inference():
            arrays["logits_again"] = self._predicted(session)
            first = {name: array[:1].copy() for name, array in self._test.items()}
            arrays["logits_alone"] = _fetched(session, session.predict(first))
        return arrays

    def _predicted(self, session: Session) -> Array:
        return _fetched(session, session.predict(self._test))[: self._valid]

    def step(self, session: Session, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Compute gradients, and then perform one optimizer step. Both computations start from `weights` and a new
        optimizer state."""
        import numpy as np

        from harness.checks.parity.scaling import scaled_gradients

        first = next(self._batches())
        session.set_weights(weights)
        loss, gradients, halvings = scaled_gradients(session, first, self._scaling)
        arrays = {"loss": np.array([loss])} | {f"gradients/{name}": array for name, array in gradients.items()}
        session.set_weights(weights)
        if halvings:  # if the loss scale is too large, the step would be skipped
            scaled_gradients(session, first, self._scaling)
        session.train_step(first, self._step_rate)
        return arrays | {f"step/{name}": array for name, array in session.get_weights().items()}

    @property
    def _step_rate(self) -> float:
        """The learning rate for the comparison of a single optimizer step."""
        recipe = self._spec.recipe
        return max(recipe.learning_rate, STEP_RATE / 10 if recipe.optimizer == "rmsprop" else STEP_RATE)

    def train(
        self, trained: Session, probe: Session, initial: Mapping[str, Array], arrays: dict[str, Array]
    ) -> list[Mapping[str, Array]]:
        """Train from `initial` with the recipe's schedule, scaled to the number of steps in the check.

        The steps are predicted with the `probe` session. No steps are predicted if `probe` is the trained session, as
        it is for the float64 reference. Return a list containing the trained weights, or an empty list if there were no
        steps or training diverged.
        """
        import numpy as np

        steps, recipe = self._steps, self._spec.recipe
        trained.set_weights(initial)
        replay = None if probe is trained or self._reference else self._replay(trained, probe, initial, recipe)
        losses, predicted = [], []
        for step, batch in zip(range(steps), self._batches(), strict=False):
            rate = self._rate(step, steps)
            loss = replay.step(batch, rate) if replay else float(_fetched(trained, trained.train_step(batch, rate)))
            losses.append(loss)
            if step + 1 in CHECKPOINTS:
                predicted.append(self._predicted(trained))
        arrays["curve"] = np.array(losses)
        arrays["trained"] = np.array(predicted)
        if not replay:
            return []
        self._add(arrays, "curve", replay, steps)
        return [] if replay.lost else [replay.weights]

    def train_long(self, trained: Session, probe: Session, arrays: dict[str, Array]) -> list[Mapping[str, Array]]:
        """Train from the probe weights for many steps on small batches.

        Return a list containing the trained weights, or an empty list if training diverged.

        The learning rate is the scheduled rate times a random factor, so it varies from step to step even if the
        schedule is constant. The rate remains large enough that the steps are not hidden by rounding. Every second
        change in the rate is small, as in long training runs.
        """
        import numpy as np

        recipe, steps = self._spec.recipe, self.long_steps
        factors = np.random.default_rng(self._spec.seed).uniform(0.3, 1, steps)
        replay = self._replay(trained, probe, self._weights, recipe)
        rate = 0.0
        for step, batch in zip(range(steps), self._batches(EXAMPLES), strict=False):
            scheduled = max(self._rate(step, steps), recipe.learning_rate / 20)
            factor = _TINY_RATE if step in _TINY_RATE_STEPS else float(factors[step])
            rate = rate * (1 + _SLIGHT) if step % 2 else scheduled * factor
            replay.step(batch, rate)
        self._add(arrays, "long", replay, steps)
        return [] if replay.lost else [replay.weights]

    def _rate(self, step: int, steps: int) -> float:
        """Return the scheduled learning rate for one step of a training run that has `steps` steps and no
        validation."""
        from harness.measure.schedule import learning_rate, reductions

        recipe = self._spec.recipe
        return learning_rate(recipe, step, steps, reductions(recipe, step * recipe.epochs // steps, ()))

    @property
    def long_steps(self) -> int:
        """Number of steps in the longer training run."""
        scalars = sum(math.prod(parameter.shape) for parameter in self._prepared.request.parameters)
        return self._steps if self._steps < STEPS or scalars > LARGE else LONG_STEPS

    def train_clipped(
        self,
        probe: Session,
        arrays: dict[str, Array],
        segment: str = "clip",
        start: Mapping[str, Array] | None = None,
        steps: int = CLIPPED_STEPS,
    ) -> None:
        """If the recipe clips gradients, train for a few steps with a clipping norm that about half of the gradients
        exceed. Training starts from the weights `start` or, by default, from the probe weights.

        Adam's steps are invariant to the scale of the gradients, so a wrong clipping norm has almost no effect if all
        gradients exceed it.
        """
        import numpy as np

        from harness.checks.parity.optimizer import global_norm
        from harness.checks.parity.scaling import scaled_gradients

        start, recipe = start or self._weights, self._spec.recipe
        if recipe.clip_norm is None:
            return
        probe.set_weights(start)
        batches = list(itertools.islice(self._batches(EXAMPLES), steps))
        gradients = (scaled_gradients(probe, batch, self._scaling).gradients for batch in batches)
        limit = float(np.median([global_norm(each) for each in gradients]))
        if not 0 < limit < math.inf:
            return
        changed = msgspec.structs.replace(recipe, clip_norm=limit)
        with opened_session(self._prepared, start, dropout=0.0, clip_norm=limit) as session:
            replay = self._replay(session, probe, start, changed)
            for batch in batches:
                replay.step(batch, recipe.learning_rate / 10)
            self._add(arrays, segment, replay, steps)

    def train_scaled(self, trained: Session, probe: Session, arrays: dict[str, Array]) -> None:
        """Train for a few steps in fp16 from weights at which gradients overflow.

        To make gradients overflow, all matrices are multiplied by the same factor. The factor increases activations and
        gradients. In a model that normalizes its activations, only the last layers are affected. If no factor makes the
        gradients overflow, training starts from the probe weights.

        At the starting weights, all gradients may exceed the recipe's clipping norm. Clipping then determines the norm
        of each step and hides a wrong scale. If the recipe clips gradients, the training is therefore repeated with a
        clipping norm that about half of the gradients exceed.
        """
        import numpy as np

        from harness.checks.parity.scaling import finite, scaled_gradients

        if self._spec.precision != "fp16":
            return
        batches = self._batches(EXAMPLES)
        first, start, most, used = next(batches), self._weights, 0, _GAINS[-1]
        endless: Mapping[str, Array] | None = None
        for gain in _GAINS:
            weights = {n: np.asarray(gain * a, a.dtype) if a.ndim > 1 else a for n, a in self._weights.items()}
            probe.set_weights(weights)
            found = scaled_gradients(probe, first, self._scaling)
            if not finite(found.gradients):
                endless = endless or weights
            elif found.halvings > most:
                start, most = weights, found.halvings
            if most >= _HALVINGS or (endless and not self._scaling):  # a fixed loss scale is not halved
                used = gain
                break
        if not most and endless is not None:
            start = endless  # The gradients of a wrong implementation may overflow at every loss scale.
        replay = self._replay(trained, probe, start, self._spec.recipe)
        for batch in [first, *itertools.islice(batches, SCALED_STEPS - 1)]:
            replay.step(batch, self._spec.recipe.learning_rate / 10)
        self._add(arrays, "scaled", replay, SCALED_STEPS)
        arrays["replay/scaled/gain"] = np.array([used])
        self.train_clipped(probe, arrays, "scaled clip", start, SCALED_STEPS)

    def late(self, trained: Session, probe: Session, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Compute predictions, gradients and a step at weights from the end of training. Both sessions were used for
        training earlier in the check.
        """
        import numpy as np

        from harness.checks.parity.scaling import scaled_gradients

        recipe = self._spec.recipe
        batch = next(itertools.islice(self._batches(), self._steps, None))
        trained.set_weights(weights)
        arrays = {"logits": self._predicted(trained)}
        probe.set_weights(weights)
        loss, gradients, _ = scaled_gradients(probe, batch, self._scaling)
        arrays |= {"loss": np.array([loss])} | {f"gradients/{name}": array for name, array in gradients.items()}
        trained.set_weights(weights)
        arrays["step loss"] = np.atleast_1d(_fetched(trained, trained.train_step(batch, recipe.learning_rate)))
        after = trained.get_weights()
        names = [parameter.name for parameter in self._prepared.request.parameters if not parameter.trainable]
        return arrays | {f"statistics/{name}": after[name] for name in names}

    def dropout(self, probe: Session) -> dict[str, Array]:
        """Predict with a dropout rate above zero, which must not change the predictions. Then compute statistics of the
        dropout masks in training.
        """
        from harness.checks.parity.masks import EXAMPLES, RATE, mask_statistics, step_losses
        from harness.checks.parity.scaling import scaled_gradients

        prepared, wanted = self._prepared, self._spec.recipe.dropout
        compared = bool(wanted and self._steps and not self._reference)
        masks: dict[str, Array] = {}
        batch = next(self._batches(EXAMPLES))
        with opened_session(prepared, self._weights, dropout=max(wanted, RATE) if compared else wanted or DROPOUT) as s:
            arrays = self.evaluate(s)
            if compared:
                probe.set_weights(self._weights)
                plain = scaled_gradients(probe, batch, self._scaling).gradients
                masks = mask_statistics(s, batch, plain, dynamic=self._scaling)
        if compared:
            with opened_session(prepared, self._weights, dropout=wanted) as s:
                masks["step loss"] = step_losses(s, batch)
                masks |= self.change_statistics(s, batch, plain, masks)
        return arrays | {f"masks/{name}": array for name, array in masks.items()}

    def change_statistics(
        self,
        session: Session,
        batch: Batch,
        plain: Mapping[str, Array],
        masks: Mapping[str, Array],
        steps: int | None = None,
    ) -> dict[str, Array]:
        """Compute the statistics of training steps with dropout.

        `masks` is the result of `harness.checks.parity.masks.mask_statistics`. The statistics are computed for the
        parameters that occur in `masks`.

        `plain` contains the gradients without dropout. The default number of steps is
        `harness.checks.parity.masks.CHANGES`.
        """
        import numpy as np

        from harness.checks.parity.masks import CHANGES, change_statistics
        from harness.checks.parity.optimizer import ReferenceOptimizer, clipping

        recipe, request = self._spec.recipe, self._prepared.request
        decayed = [parameter.name for parameter in request.parameters if parameter.decay]
        noise = {name: np.zeros(array.shape) for name, array in plain.items()}
        optimizer = ReferenceOptimizer(recipe, decayed, request.rate_factors)
        changes = optimizer.step(self._weights, plain, noise, self._step_rate, clipping(plain, recipe.clip_norm))
        return change_statistics(
            session,
            batch,
            {name: array for name, array in plain.items() if f"parameter/{name}" in masks},
            weights=self._weights,
            change={name: change.value for name, change in changes.items()},
            rate=self._step_rate,
            dynamic=self._scaling,
            steps=steps or CHANGES,
        )

    def batches_digest(self) -> str:
        """Return a digest of the first training batches, computed after augmentation."""

        from harness.records.arrays import digest

        batches = itertools.islice(self._batches(), self._steps + 1)
        arrays: dict[str, Array] = {}
        for number, batch in enumerate(batches):
            arrays |= {f"{number}/{name}": array for name, array in {**batch.inputs, "": batch.targets}.items()}
            if batch.example_weights is not None:
                arrays[f"{number} weights"] = batch.example_weights
        return digest(arrays)

    def _replay(self, trained: Session, probe: Session, start: Mapping[str, Array], recipe: Recipe) -> Replay:
        from harness.checks.parity.replay import Replay

        request = self._prepared.request
        return Replay(trained, probe, start, recipe, request.parameters, self._spec.precision, request.rate_factors)

    def _add(self, arrays: dict[str, Array], segment: str, replay: Replay, planned: int) -> None:
        import numpy as np

        measured = replay.arrays() | {"planned": np.array([planned])}
        if not replay.lost:
            measured["logits"] = replay.predictions(self._test)[:, : self._valid]
        arrays.update({f"replay/{segment}/{name}": array for name, array in measured.items()})

    def _batches(self, limit: int | None = None) -> Iterator[Batch]:
        """Yield a run's training batches indefinitely, epoch after epoch, with at most `limit` examples each."""

        from harness.data.batches import training_batches

        size, data = min(limit or self._spec.recipe.batch_size, self._spec.recipe.batch_size), self._data
        for epoch in itertools.count(1):
            yield from training_batches(data.train, size, self._spec.seed, epoch, data.augment)


def _fetched(session: Session, handle: Any) -> Array:
    import numpy as np

    return np.array(session.fetch(handle))
