"""Interface to Optuna. No other module imports Optuna.

Only the process that executes the command uses Optuna, through its ask-and-tell interface. Trial processes do not use
Optuna. Samplers do not store the state of their random number generators. Therefore, each suggestion is drawn by a new
sampler, whose seed is derived from the study's seed and the position of the trial in the study. The settings of an
interrupted trial are tried again. An interrupted study therefore continues with the same suggestions as an
uninterrupted one.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness.errors import HarnessError, RecordError, UsageError
from harness.plugins.requirements import missing
from harness.tuning.space import Dimension, Value
from harness.tuning.study import TrialSummary

if TYPE_CHECKING:
    import optuna

REQUIRES = {"optuna": "ml-harness[tune]"}
SAMPLERS = ("tpe", "random", "gp", "nsga2")
PRUNERS = ("median", "hyperband", "none")
POPULATION = 10
"""Population size of ``nsga2``. Optuna's default of 50 is larger than the number of trials in most studies,
so all trials would be random."""
MIN_TRIALS_OF_IMPORTANCE = 4
"""Minimum number of complete trials required to compute the importance of settings."""
_SUMMARY = "harness"
"""Key of the Optuna trial attribute that contains the `TrialSummary`."""
_DIVERGED = "harness-diverged"
"""Key of the Optuna trial attribute that is set if the trial diverged."""
_REPEATS = "harness-repeats"
"""If a trial repeats an interrupted trial, the Optuna trial attribute with this key contains the number of the
interrupted trial."""


def check_installed(sampler: str) -> None:
    """Raise `harness.UsageError` if Optuna or another package required by the sampler is not installed."""
    reason = missing(REQUIRES | ({"torch": "ml-harness[torch]"} if sampler == "gp" else {}))
    if reason:
        raise UsageError(f"harness tune is not available{' with the sampler gp' if sampler == 'gp' else ''}: {reason}")


class Asked:
    """An open trial.

    The methods raise `harness.RecordError` if the storage fails, for example because the disk is full.
    """

    def __init__(
        self, study: optuna.Study, trial: optuna.Trial, dimensions: Sequence[Dimension], storage: str | Path
    ) -> None:
        self._study, self._trial, self._storage = study, trial, storage
        self.number: int = trial.number
        self.settings: dict[str, Value] = {each.name: trial.params[each.name] for each in dimensions}
        """Values to try."""

    def is_hopeless(self, epoch: int, value: float) -> bool:
        """Report the value after an epoch, and return whether the trial should be pruned."""
        with _quiet(), _failures_of(self._storage):
            self._trial.report(value, epoch)
            return bool(self._trial.should_prune())

    def finish(self, summary: TrialSummary, *, diverged: bool = False) -> None:
        """Store the result of the trial.

        A trial that diverged is stored as pruned in Optuna, so samplers avoid its settings, such as a high learning
        rate. Samplers ignore failed trials.
        """
        with _failures_of(self._storage):
            if diverged:
                self._trial.set_user_attr(_DIVERGED, value=True)
            self._trial.set_user_attr(_SUMMARY, msgspec.to_builtins(summary))
            _end_trial(self._study, self.number)

    def drop(self) -> None:
        """Mark the trial as interrupted, unless it is finished. The next trial uses the settings of an interrupted
        trial.

        If the storage fails, the trial is marked when the study is continued.
        """
        with contextlib.suppress(RecordError), _failures_of(self._storage):
            _end_trial(self._study, self.number)


class Sampling:
    """A study in an Optuna storage.

    `storage` is a storage URL, or the path of a journal file. `epochs` is the maximum number of epochs per
    trial. Trials that a killed process left unfinished are dropped (see `Asked.drop`). Raises `harness.UsageError` if
    the storage cannot be used. The methods raise `harness.RecordError` if the storage fails later.
    """

    def __init__(
        self,
        storage: str | Path,
        name: str,
        dimensions: Sequence[Dimension],
        higher_is_better: Sequence[bool],
        *,
        sampler: str,
        pruner: str,
        seed: int,
        epochs: int,
    ) -> None:
        self._storage = storage
        with _quiet(), _failures_of(storage):
            import optuna

            self._dimensions, self._sampler, self._seed = dimensions, sampler, seed
            self._distributions = {each.name: _distribution(each) for each in dimensions}
            try:
                self._study = optuna.create_study(
                    storage=_journal(storage) if isinstance(storage, Path) else storage,
                    study_name=name,
                    directions=["maximize" if higher else "minimize" for higher in higher_is_better],
                    pruner=_pruner(pruner, epochs),
                    load_if_exists=True,
                )
            except Exception as error:  # the libraries of databases raise exceptions of many types
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                if isinstance(storage, Path):
                    raise UsageError(
                        f"{storage}: the journal of the study cannot be used: {reason}; restore the file, or pass "
                        "--rerun to start a new study"
                    ) from error
                raise UsageError(
                    f"the storage {without_password(str(storage))} cannot be used: {reason}; pass the URL of a "
                    "database to --storage, such as sqlite:///tuning.db, or remove --storage to use a file"
                ) from error
            for trial in self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
                _end_trial(self._study, trial.number)

    @property
    def finished(self) -> list[TrialSummary]:
        """Trials that have finished. Interrupted trials are excluded."""
        with _failures_of(self._storage):
            trials = self._study.get_trials(deepcopy=False)
        return [
            msgspec.convert(trial.user_attrs[_SUMMARY], TrialSummary)
            for trial in trials
            if _SUMMARY in trial.user_attrs and trial.state.is_finished()
        ]

    def ask(self, position: int, first: Mapping[str, Value] | None) -> Asked:
        """Return the next trial. `position` is the number of trials that are finished or open. `first` contains the
        settings of the first trial. If `first` is None, the sampler chooses the settings."""
        from optuna.trial import TrialState as State

        with _quiet(), _failures_of(self._storage):
            if not position and first and not self._study.get_trials(deepcopy=False, states=(State.WAITING,)):
                self._study.enqueue_trial(dict(first))
            self._study.sampler = _sampler(self._sampler, self._seed, position)
            return Asked(self._study, self._study.ask(self._distributions), self._dimensions, self._storage)

    @property
    def best(self) -> list[int]:
        """Number of the best trial, or numbers of the trials on the Pareto front if there are several objectives."""
        with _failures_of(self._storage):
            if not self._study.get_trials(deepcopy=False, states=_complete()):
                return []
            if len(self._study.directions) == 1:
                return [self._study.best_trial.number]
            front = {tuple(trial.values): trial.number for trial in reversed(self._study.best_trials)}
        return sorted(front.values())  # Trials with equal values count once.

    def importance(self) -> dict[str, float]:
        """Return the importance of each setting for the first objective. The result is empty if there are too few
        complete trials, or if all settings are equally good."""
        with _failures_of(self._storage):
            complete = self._study.get_trials(deepcopy=False, states=_complete())
        if len(complete) < MIN_TRIALS_OF_IMPORTANCE or len({trial.values[0] for trial in complete}) == 1:
            return {}
        with _quiet():
            from optuna.importance import get_param_importances
            from optuna.study import StudyDirection

            target = None
            if len(self._study.directions) > 1:  # a given target is minimized
                sign = -1 if self._study.directions[0] == StudyDirection.MAXIMIZE else 1
                target = lambda trial: sign * trial.values[0]  # noqa: E731
            found = get_param_importances(self._study, target=target)
        return {str(name): float(value) for name, value in found.items()}


def without_password(storage: str) -> str:
    """Return a storage URL without the user name and password."""
    scheme, separator, rest = storage.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else storage


def full_url(storage: str) -> str:
    """Return the URL of a storage, with the absolute path of an SQLite database and without the password."""
    scheme, separator, path = storage.partition(":///")
    if scheme.partition("+")[0] == "sqlite" and path:
        return f"{scheme}{separator}{Path(path).resolve()}"
    return without_password(storage)


def _end_trial(study: optuna.Study, number: int) -> None:
    """End a trial that is not finished.

    If the trial has a summary, its result is stored. Otherwise, the trial is stored as failed, and its settings are
    used by the next trial. The settings are queued for the next trial before the trial is stored as failed. The
    settings are therefore not lost if the process is killed between these two steps.
    """
    from optuna.trial import TrialState as State

    trial = study.get_trials(deepcopy=False)[number]
    if trial.state != State.RUNNING:
        return
    if _SUMMARY not in trial.user_attrs:
        # The parameters are missing if the process was killed before they were drawn.
        settings = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if settings and all(each.user_attrs.get(_REPEATS) != number for each in study.get_trials(deepcopy=False)):
            study.enqueue_trial(settings, user_attrs={_REPEATS: number})
        study.tell(number, state=State.FAIL)
        return
    summary = msgspec.convert(trial.user_attrs[_SUMMARY], TrialSummary)
    if summary.state == "complete":
        study.tell(number, summary.values)
    else:
        pruned = summary.state == "pruned" or (_DIVERGED in trial.user_attrs and len(study.directions) == 1)
        study.tell(number, state=State.PRUNED if pruned else State.FAIL)


def _complete() -> tuple[optuna.trial.TrialState, ...]:
    from optuna.trial import TrialState as State

    return (State.COMPLETE,)


def _journal(path: Path) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_incomplete_line(path)
        # The lock of a process that was killed is removed after the grace period.
        return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path), grace_period=5)))
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None


def _drop_incomplete_line(path: Path) -> None:
    """Remove the last line of a journal if the process was killed, or the disk was full, while the line was being
    written.

    Otherwise, Optuna would append the next line to the incomplete one, and could not read the journal again.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        complete = file.read().rpartition(b"\n")
        file.truncate(len(complete[0]) + len(complete[1]))


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind == "choices":
        return CategoricalDistribution(dimension.choices)
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _sampler(name: str, seed: int, position: int) -> optuna.samplers.BaseSampler:
    from optuna import samplers

    own = int.from_bytes(hashlib.sha256(f"{seed}/{position}".encode()).digest()[:4], "big")
    if name == "random":
        return samplers.RandomSampler(seed=own)
    if name == "gp":
        return samplers.GPSampler(seed=own)
    if name == "nsga2":
        return samplers.NSGAIISampler(population_size=POPULATION, seed=own)
    # With `constant_liar`, settings close to those of open trials are avoided.
    return samplers.TPESampler(seed=own, constant_liar=True)


def _pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner()
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return pruners.NopPruner()


@contextlib.contextmanager
def _failures_of(storage: str | Path) -> Iterator[None]:
    """Raise `harness.RecordError` if a storage that was opened fails, such as when its disk is full."""
    from optuna.exceptions import OptunaError

    try:
        yield
    except Exception as error:
        # SQLAlchemy is imported only if the storage is a database.
        if not isinstance(error, OSError | OptunaError) and type(error).__module__.partition(".")[0] != "sqlalchemy":
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error.__cause__ or error).partition("\n")[0]
        name = storage if isinstance(storage, Path) else f"the storage {without_password(storage)}"
        raise RecordError(
            f"{name}: the study cannot be read or written: {reason or type(error).__name__}; solve the problem, and "
            "repeat the command to continue the study"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Optuna's messages about progress and experimental features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from optuna import logging

        level = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)
        try:
            yield
        finally:
            logging.set_verbosity(level)
