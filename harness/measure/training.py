"""The training loop. Steps are timed in windows, and the device is synchronized only at the end of each window."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from statistics import fmean
from typing import Any

from harness.data.batches import Part, steps_per_epoch, training_batches
from harness.errors import BadResultError
from harness.interfaces import Batch, PreparedData, Session
from harness.measure.group import Group
from harness.measure.inference import predict
from harness.measure.machine import Reading
from harness.measure.phases import Emit, Phases
from harness.measure.quality.scorer import Scorer
from harness.measure.schedule import learning_rate, planned_steps, reductions
from harness.measure.selection import average_weight, best_epoch, is_stale, monitored, selection
from harness.measure.steady import is_enough
from harness.measure.steps import StepEvents
from harness.measure.timed import Meter, Timed
from harness.records import EpochEnded, Progress, RunSpec, Selection
from harness.records.record import Ended


class WindowLength:
    """Number of steps in the next window.

    The number doubles until a window lasts half the target time. The number is then scaled to reach the target time.
    """

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self.steps = 1

    def learn(self, steps: int, seconds: float, first: bool) -> None:
        """Set the length of the next window after a window of `steps` steps."""
        if (
            first or steps < self.steps
        ):  # the first step includes compilation, and a window cut short by the end of an epoch is too noisy
            return
        grown = 2 * self.steps if seconds < self._target_s / 2 else round(self._target_s * steps / seconds)
        self.steps = max(1, grown)


class Training:
    """Training loop and its measurements.

    `first_step_s` is the duration of the first step, which includes compilation and allocation. `timed` contains the
    windows after the first step, `losses` the mean loss of each batch, and `curves` one entry per epoch.
    """

    def __init__(
        self,
        session: Session,
        data: PreparedData,
        spec: RunSpec,
        emit: Emit,
        meter: Meter = Reading,
        *,
        by_steps: bool = True,
        group: Group | None = None,
        step_events: bool = False,
        timed: bool = True,
    ) -> None:
        self._session, self._data, self._spec, self._emit = session, data, spec, emit
        self._group = group or Group()
        self.batch_size = min(spec.recipe.batch_size, len(data.train)) if by_steps else len(data.train)
        self._per_epoch = steps_per_epoch(len(data.train), self.batch_size)
        self._steps = planned_steps(spec.recipe, self._per_epoch)
        self._step_events = (
            StepEvents(emit, spec.recipe, self.batch_size, self._steps, timed=timed) if step_events else None
        )
        self._length = WindowLength(spec.protocol.window_s)
        self.first_step_s = 0.0
        self.timed = Timed(meter)
        self.recipe_windows = 0
        """Number of windows during the epochs of the recipe. Later windows are used only to measure speed."""
        self.losses: list[float] = []
        self.curves: list[EpochEnded] = []
        self.ended: Ended | None = None
        """Recipe setting that ended training, or None before the end."""
        self._reductions = 0
        self._started_epoch = 0  # number of losses at the start of the epoch
        self.scores: list[float] = []
        """Validation scores that determine the best epoch; see `harness.measure.selection.monitored`."""

    def run_epoch(self, epoch: int) -> None:
        """Run the steps of an epoch (counted from 1) until one of the recipe's limits is reached.

        Raises `harness.BadResultError` if a loss is not finite.
        """
        limit = self._spec.recipe.max_seconds
        self._started_epoch = len(self.losses)
        for pending, seconds in self._windows(epoch, self._steps - len(self.losses)):
            self._keep_losses(pending)
            self._emit_progress(epoch, len(pending), seconds)
            if self._step_events is not None:
                self._step_events.add(epoch, self.losses, len(pending), seconds, self._reductions)
            if limit is not None and self.train_s >= limit:
                self.ended = "max_seconds"
                break
        if self._step_events is not None:
            self._step_events.send(epoch, self.losses, self._reductions)
        if len(self.losses) == self._steps:
            self.ended = "epochs" if self._steps == self._per_epoch * self._spec.recipe.epochs else "max_steps"
        self.recipe_windows = len(self.timed.windows)

    def sample(self) -> None:
        """Run additional steps to measure speed, until the protocol's requirements are met or its time budget is used
        up.

        These steps use the learning rate of the recipe's last step. The weights must not be used afterwards.
        """
        protocol, epoch = self._spec.protocol, self._spec.recipe.epochs
        deadline = time.perf_counter() + protocol.throughput_budget_s
        while True:
            epoch += 1
            for pending, _ in self._windows(epoch, self._per_epoch):
                for handle in pending:
                    self._session.fetch(handle)
                if self.is_enough() or time.perf_counter() >= deadline:
                    return

    @property
    def train_s(self) -> float:
        """Elapsed training time in seconds, without validation."""
        return self.first_step_s + sum(window.seconds for window in self.timed.windows)

    def is_enough(self) -> bool:
        """Return True if the windows measured so far meet the protocol's requirements."""
        return is_enough(self.timed.windows, self._spec.protocol)

    def _windows(self, epoch: int, limit: int) -> Iterator[tuple[list[Any], float]]:
        """Run at most `limit` steps of an epoch, and yield the loss handles and the duration in seconds for each
        window."""
        session, recipe, last = self._session, self._spec.recipe, self._steps - 1
        step, count, decay = (epoch - 1) * self._per_epoch, min(limit, self._per_epoch), recipe.ema_decay
        pending: list[Any] = []
        self.timed.open()
        start = time.perf_counter()
        for index, batch in enumerate(itertools.islice(self._batches(epoch), count)):
            rate = learning_rate(recipe, min(step + index, last), self._steps, self._reductions)
            self._group.step(epoch, index, rate)
            pending.append(session.train_step(batch, rate))
            if decay is not None:
                session.update_average(average_weight(decay, step + index + 1))
            if len(pending) < self._length.steps and index + 1 < count:
                continue
            session.synchronize()
            seconds = time.perf_counter() - start
            first = not self.first_step_s
            if first:
                self.first_step_s = seconds
            else:
                self.timed.close(len(pending), seconds)
            self._length.learn(len(pending), seconds, first=first)
            yield pending, seconds
            pending = []
            self.timed.open()
            start = time.perf_counter()

    def _batches(self, epoch: int) -> Iterator[Batch]:
        data, spec = self._data, self._spec
        part = Part(self._group.rank, self._group.size)
        return training_batches(data.train, self.batch_size, spec.seed, epoch, data.augment, part)

    def end_epoch(self, epoch: int, scorer: Scorer, validation: dict[str, float | None]) -> None:
        """Add a point to the learning curves and update the schedule. `validation` contains the epoch's scores."""
        ended = EpochEnded(
            epoch=epoch,
            epochs=self._spec.recipe.epochs,
            step=len(self.losses),
            train_s=self.train_s,
            train_loss=fmean(self.losses[self._started_epoch :]),
            validation=validation,
        )
        self.curves.append(ended)
        self._emit(ended)
        recipe, name = self._spec.recipe, scorer.primary
        self.scores = monitored(self.curves, recipe, name, higher_is_better=scorer.higher_is_better)
        if self.ended is None:
            self._reductions = reductions(recipe, epoch, self.scores)
            self.ended = "early_stopping" if is_stale(self.scores, recipe.early_stopping) else None

    def selection(self, metric: str) -> Selection:
        """Return how training ended and which epoch is evaluated. `metric` is the name of the primary metric."""
        assert self.ended is not None
        return selection(self.curves, self.scores, self._spec.recipe, metric, self.ended)

    def _keep_losses(self, pending: list[Any]) -> None:
        for handle in pending:
            self.losses.append(float(self._session.fetch(handle)))
            if not math.isfinite(self.losses[-1]):
                raise BadResultError(
                    f"the training loss became {self.losses[-1]} at step {len(self.losses)}; "
                    "try a lower recipe.learning_rate, or recipe.clip_norm=1"
                )

    def _emit_progress(self, epoch: int, steps: int, seconds: float) -> None:
        self._emit(
            Progress(
                epoch=epoch,
                epochs=self._spec.recipe.epochs,
                step=len(self.losses),
                steps=self._steps,
                loss=self.losses[-1],
                samples_per_s=steps * self.batch_size / seconds,
            )
        )


def train(
    session: Session,
    data: PreparedData,
    spec: RunSpec,
    scorer: Scorer,
    phases: Phases,
    emit: Emit,
    meter: Meter = Reading,
    *,
    by_steps: bool = True,
    group: Group | None = None,
    step_events: bool = False,
    timed: bool = True,
) -> Training:
    """Train with the recipe in `spec`, together with the other processes of `group`.

    If `by_steps` is false, each epoch is one step on the whole training split. With `step_events`, `harness.StepsEnded`
    events are sent; they contain the timed windows unless `timed` is false.

    At the end, the session has the weights to be evaluated: those of the best or last epoch, or their moving average if
    the recipe specifies one. Training is measured as the phase ``train`` and validation as the phase ``validate``.
    Raises `harness.BadResultError` if a loss is not finite.
    """
    training = Training(
        session, data, spec, emit, meter, by_steps=by_steps, group=group, step_events=step_events, timed=timed
    )
    recipe, best = spec.recipe, {}
    for epoch in range(1, recipe.epochs + 1):
        with phases("train"):
            training.run_epoch(epoch)
        with phases("validate"), nullcontext() if recipe.ema_decay is None else session.averaged():
            outputs = predict(session, data.validation, recipe.batch_size, data.info.outputs)
            training.end_epoch(epoch, scorer, scorer.quick(data.validation.targets, outputs))
            is_last = training.ended is not None
            is_chosen = best_epoch(training.scores) == epoch if recipe.keep_best else is_last
            if is_chosen and not (is_last and recipe.ema_decay is None):
                best = session.get_weights()
        if is_last:
            break
    if group is not None:
        group.check(session.get_weights())
    if best and (recipe.ema_decay is not None or best_epoch(training.scores) != epoch):
        with phases("validate"):
            session.set_weights(best)
    return training
