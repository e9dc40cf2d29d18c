"""The training loop. Steps are timed in windows, and the device is synchronized only at the end of each window."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from harness.data.batches import Part, steps_per_epoch, training_batches
from harness.errors import BadResultError
from harness.interfaces import Batch, PreparedData, Session
from harness.measure.checkpoints import Checkpoints, decoded_readings, decoded_windows, encoded_readings
from harness.measure.group import Group
from harness.measure.inference import predict, predict_batches
from harness.measure.losses import fetched_loss
from harness.measure.machine import Reading
from harness.measure.phases import Emit, Phases
from harness.measure.quality.scorer import Scorer
from harness.measure.schedule import learning_rate, planned_steps, reductions
from harness.measure.selection import average_weight, best_epoch, is_stale, monitored, selection
from harness.measure.steady import Window, is_enough
from harness.measure.steps import StepEvents
from harness.measure.timed import Meter, Timed
from harness.records import EpochEnded, RunSpec, Selection
from harness.records import Progress as ProgressEvent
from harness.records.checkpoint import Progress
from harness.records.record import Ended


class WindowLength:
    """Number of steps in the next window.

    The number of steps is doubled until a window lasts at least half the target time. After that, the number of steps
    is scaled to reach the target time.
    """

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self.steps = 1

    def learn(self, steps: int, seconds: float, first: bool) -> None:
        """Set the length of the next window, given the number of steps and the duration of the last window."""
        if (
            first or steps < self.steps
        ):  # the first step includes compilation, and a window cut short by the end of an epoch is too noisy
            return
        grown = 2 * self.steps if seconds < self._target_s / 2 else round(self._target_s * steps / seconds)
        self.steps = max(1, grown)


class FirstStep(NamedTuple):
    """The first training step of a process. The duration of the first step is not included in the timed windows."""

    windows: int
    """Number of windows before the first step of the process."""
    seconds: float


class Training:
    """Training loop that measures throughput.

    `first_steps` contains the first step of each process that trained the model. These steps include compilation and
    allocation. `timed` contains the windows after these steps. `losses` contains the mean loss of each batch, and
    `curves` contains one entry per epoch. The model was trained by more than one process only if training was
    interrupted and resumed.
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
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._session, self._data, self._spec, self._emit = session, data, spec, emit
        self._checkpoints = checkpoints
        self._every_steps = None if checkpoints is None else checkpoints.every_steps
        self._group = group or Group()
        self.batch_size = min(spec.recipe.batch_size, len(data.train)) if by_steps else len(data.train)
        self._validation = None if by_steps else data.validation
        self._by_steps = by_steps
        self._per_epoch = steps_per_epoch(len(data.train), self.batch_size)
        self.steps = planned_steps(spec.recipe, self._per_epoch)
        """Number of planned training steps."""
        self._step_events = (
            StepEvents(emit, spec.recipe, self.batch_size, self.steps, timed=timed) if step_events else None
        )
        self._length = WindowLength(spec.protocol.window_s)
        self.first_steps: list[FirstStep] = []
        self._has_stepped = False
        self.timed = Timed(meter)
        self.recipe_windows = 0
        """Number of windows measured during the recipe's epochs. Later windows are used only to measure speed."""
        self.losses: list[float] = []
        self.curves: list[EpochEnded] = []
        self.ended: Ended | None = None
        """Recipe setting that ended training. The value is None if training has not ended."""
        self._reductions = 0
        self.scores: list[float] = []
        """Validation scores that determine the best epoch; see `harness.measure.selection.monitored`."""
        self.best: dict[str, Any] = {}
        """Canonical weights of the best epoch. The dictionary is empty if only the last weights may be evaluated."""

    def run_epoch(self, epoch: int) -> None:
        """Execute the steps of an epoch (counted from 1) until the epoch ends or a limit in the recipe is reached.

        Raises `harness.BadResultError` if a loss is not finite.
        """
        limit, start = self._spec.recipe.max_seconds, len(self.losses) - self._losses_before(epoch)
        for pending, seconds in self._windows(epoch, start, self.steps - len(self.losses)):
            self._keep_losses(pending)
            self._emit_progress(epoch, len(pending), seconds)
            if self._step_events is not None:
                self._step_events.add(epoch, self.losses, len(pending), seconds, self._reductions)
            if limit is not None and self.train_s >= limit:
                self.ended = "max_seconds"
                break
            self.write_checkpoint(epoch_ended=False)
        if self._step_events is not None:
            self._step_events.send(epoch, self.losses, self._reductions)
        if len(self.losses) == self.steps:
            self.ended = "epochs" if self.steps == self._per_epoch * self._spec.recipe.epochs else "max_steps"
        self.recipe_windows = len(self.timed.windows)

    def sample(self) -> None:
        """Execute additional steps to measure speed, until the protocol's requirements are met or its time budget is
        used up.

        The additional steps use the learning rate of the recipe's last step. The weights must not be used afterwards.
        """
        protocol, epoch = self._spec.protocol, self._spec.recipe.epochs
        self._every_steps = None
        if not self._has_stepped:  # training was complete when it was resumed
            for pending, _ in self._windows(epoch, 0, 1):
                self._session.fetch(pending[0])
            self.first_steps.pop()
        deadline = time.perf_counter() + protocol.throughput_budget_s
        while True:
            epoch += 1
            for pending, _ in self._windows(epoch, 0, self._per_epoch):
                for handle in pending:
                    self._session.fetch(handle)
                if self.is_enough() or time.perf_counter() >= deadline:
                    return

    @property
    def train_s(self) -> float:
        """Elapsed training time in seconds, excluding validation."""
        return sum(step.seconds for step in self.first_steps) + sum(window.seconds for window in self.timed.windows)

    @property
    def first_step_s(self) -> float:
        """Duration of the first step, in seconds."""
        return self.first_steps[0].seconds

    @property
    def is_finished(self) -> bool:
        """True if training has ended and the last epoch was validated."""
        return self.ended is not None and bool(self.curves) and self.curves[-1].step == len(self.losses)

    def all_windows(self) -> list[Window]:
        """Return the windows of the steps that the recipe specifies, including the first step of each process."""
        windows = self.timed.windows[: self.recipe_windows]
        for number, step in enumerate(self.first_steps):
            windows.insert(step.windows + number, Window(1, step.seconds))
        return windows

    def is_enough(self) -> bool:
        """Return True if the windows measured so far meet the protocol's requirements."""
        return is_enough(self.timed.windows, self._spec.protocol)

    def _windows(self, epoch: int, start: int, limit: int) -> Iterator[tuple[list[Any], float]]:
        """Run at most `limit` steps of an epoch, starting with batch `start` (counted from 0).

        For each window, yield the loss handles and the duration in seconds.
        """
        session, recipe, last = self._session, self._spec.recipe, self.steps - 1
        step, end, decay = self._losses_before(epoch), min(start + limit, self._per_epoch), recipe.ema_decay
        if start >= end:
            return
        batches = self._batches(epoch)
        for _ in range(
            start
        ):  # Batches are skipped one by one, because their augmentation advances the random numbers.
            next(batches)
        pending: list[Any] = []
        size = self._window_size(step + start)
        self.timed.open()
        began = time.perf_counter()
        for index, batch in enumerate(itertools.islice(batches, end - start), start):
            rate = learning_rate(recipe, min(step + index, last), self.steps, self._reductions)
            self._group.step(epoch, index, rate)
            pending.append(session.train_step(batch, rate))
            if decay is not None:
                session.update_average(average_weight(decay, step + index + 1))
            if len(pending) < size and index + 1 < end:
                continue
            session.synchronize()
            seconds = time.perf_counter() - began
            self._keep_window(len(pending), seconds)
            yield pending, seconds
            pending = []
            size = self._window_size(step + index + 1)
            self.timed.open()
            began = time.perf_counter()

    def _window_size(self, step: int) -> int:
        """Return the maximum number of steps in the window that starts after `step` steps."""
        size, every = self._length.steps if self._has_stepped else 1, self._every_steps
        return size if every is None else min(size, every - step % every)

    def _keep_window(self, steps: int, seconds: float) -> None:
        if self._has_stepped:
            self.timed.close(steps, seconds)
        else:
            self.first_steps.append(FirstStep(len(self.timed.windows), seconds))
        self._length.learn(steps, seconds, first=not self._has_stepped)
        self._has_stepped = True

    def _losses_before(self, epoch: int) -> int:
        """Return the number of steps before the given epoch. Epochs are numbered from 1."""
        return (epoch - 1) * self._per_epoch

    def _batches(self, epoch: int) -> Iterator[Batch]:
        data, spec = self._data, self._spec
        part = Part(self._group.rank, self._group.size)
        return training_batches(
            data.train, self.batch_size, spec.seed, epoch, data.augment, part, validation=self._validation
        )

    def end_epoch(self, epoch: int, scorer: Scorer, validation: dict[str, float | None]) -> None:
        """Add a point to the learning curves, and update the learning rate schedule.

        `validation` contains the validation scores of the epoch.
        """
        ended = EpochEnded(
            epoch=epoch,
            epochs=self._spec.recipe.epochs,
            step=len(self.losses),
            train_s=self.train_s,
            train_loss=fmean(self.losses[self._losses_before(epoch) :]),
            validation=validation,
        )
        self.curves.append(ended)
        self._emit(ended)
        recipe = self._spec.recipe
        self._update_scores(scorer)
        if self.ended is None:
            self._reductions = reductions(recipe, epoch, self.scores)
            self.ended = "early_stopping" if is_stale(self.scores, recipe.early_stopping) else None

    def selection(self, metric: str) -> Selection:
        """Return how training ended and which epoch is evaluated. `metric` is the name of the primary metric."""
        assert self.ended is not None
        return selection(self.curves, self.scores, self._spec.recipe, metric, self.ended)

    def write_checkpoint(self, *, epoch_ended: bool) -> None:
        """Write a checkpoint if one is due."""
        if self._checkpoints is not None and self._checkpoints.is_due(self, epoch_ended=epoch_ended):
            self._checkpoints.write(self._session, self)

    def progress(self) -> Progress:
        """Return the state of the loop to store in a checkpoint, except for the arrays."""
        return Progress(curves=self.curves, window_steps=self._length.steps, ended=self.ended)

    def arrays(self) -> dict[str, Any]:
        """Return the losses and the timed windows to store in a checkpoint."""
        return {
            "losses": np.array(self.losses, np.float64),
            "window_steps": np.array([window.batches for window in self.timed.windows], np.int64),
            "window_s": np.array([window.seconds for window in self.timed.windows], np.float64),
            "window_counters": encoded_readings(self.timed.readings),
            "first_step_windows": np.array([step.windows for step in self.first_steps], np.int64),
            "first_step_s": np.array([step.seconds for step in self.first_steps], np.float64),
        }

    def restore(self, progress: Progress, arrays: dict[str, Any], best: dict[str, Any], scorer: Scorer) -> None:
        """Continue from a state returned by `progress` and `arrays`, with `best` as the weights of the best epoch."""
        self.losses = arrays["losses"].tolist()
        if self._step_events is not None:
            self._step_events.skip(len(self.losses))
        self.timed.restore(
            decoded_windows(arrays["window_steps"], arrays["window_s"]), decoded_readings(arrays["window_counters"])
        )
        pairs = zip(arrays["first_step_windows"].tolist(), arrays["first_step_s"].tolist(), strict=True)
        self.first_steps = [FirstStep(*pair) for pair in pairs]
        self.recipe_windows = len(self.timed.windows)
        self.curves, self._length.steps, self.ended = list(progress.curves), progress.window_steps, progress.ended
        self.best = best
        self._update_scores(scorer)
        # After the last epoch, the rate is not reduced, because `sample` uses the rate of the recipe's last step.
        epochs = len(self.curves) - (self.ended not in (None, "early_stopping"))
        self._reductions = reductions(self._spec.recipe, epochs, self.scores[:epochs])

    def _update_scores(self, scorer: Scorer) -> None:
        self.scores = monitored(
            self.curves, self._spec.recipe, scorer.primary, higher_is_better=scorer.higher_is_better
        )

    def _keep_losses(self, pending: list[Any]) -> None:
        for handle in pending:
            self.losses.append(fetched_loss(self._session, handle))
            if not math.isfinite(self.losses[-1]):
                if not self._by_steps:
                    advice = "Session.train_step must return the mean training loss of the fitted model"
                elif len(self.losses) == 1:  # The recipe has no effect on the loss of the first step.
                    advice = "no update has been applied yet; check the network's outputs, initial weights and inputs"
                else:
                    advice = "try a lower recipe.learning_rate, or recipe.clip_norm=1"
                raise BadResultError(f"the training loss became {self.losses[-1]} at step {len(self.losses)}; {advice}")

    def _emit_progress(self, epoch: int, steps: int, seconds: float) -> None:
        self._emit(
            ProgressEvent(
                epoch=epoch,
                epochs=self._spec.recipe.epochs,
                step=len(self.losses),
                steps=self.steps,
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
    checkpoints: Checkpoints | None = None,
) -> Training:
    """Train with the recipe in `spec`, together with the other processes of `group`.

    If `by_steps` is false, each epoch consists of one step on the whole training split. If `step_events` is true,
    `harness.StepsEnded` events are sent. The events contain the timed windows unless `timed` is false. If `checkpoints`
    is given, checkpoints are written, and a resumed run continues from its last checkpoint.

    After training, the session contains the weights to be evaluated. The evaluated weights are those of the best or
    last epoch, or a moving average if the recipe specifies one. Training is measured as the phase ``train`` and
    validation as the phase ``validate``. Raises `harness.BadResultError` if a loss is not finite, and
    `harness.RecordError` if a checkpoint cannot be restored.
    """
    training = Training(
        session,
        data,
        spec,
        emit,
        meter,
        by_steps=by_steps,
        group=group,
        step_events=step_events,
        timed=timed,
        checkpoints=checkpoints,
    )
    recipe = spec.recipe
    if checkpoints is not None:
        checkpoints.restore(session, training, scorer)
    while not training.is_finished:
        epoch = len(training.curves) + 1
        with phases("train"):
            training.run_epoch(epoch)
        with phases("validate"), nullcontext() if recipe.ema_decay is None else session.averaged():
            arguments = (session, data.validation, recipe.batch_size, data.info.outputs)
            if scorer.streams:
                values = scorer.quick_streamed(data.validation.targets, predict_batches(*arguments))
            else:
                values = scorer.quick(data.validation.targets, predict(*arguments))
            training.end_epoch(epoch, scorer, values)
            is_last = training.ended is not None
            is_chosen = best_epoch(training.scores) == epoch if recipe.keep_best else is_last
            if is_chosen and not (is_last and recipe.ema_decay is None):
                training.best = session.get_weights()
        training.write_checkpoint(epoch_ended=True)
    if group is not None:
        group.check(session.get_weights())
    if training.best and (recipe.ema_decay is not None or best_epoch(training.scores) != len(training.curves)):
        with phases("validate"):
            session.set_weights(training.best)
    return training
