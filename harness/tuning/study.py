"""Study records, which contain the trials, their cost, and the best settings.

Each study has a directory under ``tuning/`` in the results directory. The directory contains a results directory with
the records of the trials, and ``study.json``, which is written after each trial. Optuna's journal is also in this
directory, unless a different storage is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from harness.errors import RecordError
from harness.records import Environment, RunSpec, TuningCost
from harness.records.files import make_directory
from harness.records.reading import MAX_JSON_BYTES, decode, read_stored
from harness.records.store import write_json

FOLDER = "tuning"
STUDY = "study.json"
JOURNAL = "journal.log"
DEFAULT = "default"
"""Key in `Study.confirmed` for the runs with the default settings."""
TRIALS = "trials"
"""The records of the trials are stored in a results directory with this name, inside the directory of the study."""

TrialState = Literal["complete", "pruned", "failed"]


class Objective(Struct, frozen=True, kw_only=True):
    """A value that a study optimizes."""

    name: str
    """Name as in ``--objective``."""
    title: str
    """Title for tables and plots, such as ``validation accuracy``."""
    unit: str
    higher_is_better: bool


class TrialSummary(Struct, frozen=True, kw_only=True):
    """One finished trial of a study."""

    number: int
    """Number of the trial, starting at 0. Interrupted trials leave gaps in the numbering."""
    state: TrialState
    settings: dict[str, Any]
    """Values of the searched settings."""
    values: list[float]
    """Values of the objectives. For a pruned trial, the list contains the value after the trial's last epoch. The list
    is empty for a failed trial."""
    epochs: int
    """Number of completed epochs."""
    steps: int
    """Number of optimizer steps."""
    planned_steps: int
    """Number of optimizer steps in the whole recipe, or 0 if unknown."""
    seconds: float
    """Duration of the process, in seconds."""
    run_id: str
    """Id of the run in the study's directory. The id is an empty string if the settings were invalid."""
    repeated: bool = False
    """True if the result was taken from an earlier trial with the same settings. In this case, the number of steps and
    the duration are 0."""
    message: str = ""
    """Reason for a failure."""


class Study(Struct, frozen=True, kw_only=True):
    """A study: the trials of one backend with one search space."""

    schema_version: Literal[1] = 1
    name: str
    started_at: str
    """Start time in UTC, in the format of `RunRecord.started_at`."""
    spec: RunSpec
    """Specification with the default settings and the seed of the trials."""
    search: list[str]
    """Search space, with one entry for each setting, as in ``--search``."""
    objectives: list[Objective]
    sampler: str
    pruner: str
    seed: int
    """Seed of the sampler."""
    storage: str
    """URL of the Optuna storage, without credentials, or the name of the journal file."""
    software: dict[str, str]
    """Versions of Python and of the packages, and digests of the plugins' code."""
    machine: Environment | None = None
    """Machine that executed the first trial, or None in older studies and before the first trial."""
    trials: list[TrialSummary] = []
    """Finished trials."""
    best: list[int] = []
    """Number of the best trial, or numbers of the trials on the Pareto front if there are several objectives."""
    importance: dict[str, float] = {}
    """Importance of each searched setting for the first objective, as a fraction of the total. The dictionary is empty
    if there are too few complete trials to compute the importance."""
    confirmed: dict[str, list[str]] = {}
    """Ids of the runs that confirm the settings. The keys are trial numbers and, for the default settings,
    ``default``."""

    def trial(self, number: int) -> TrialSummary:
        """Return the trial with this number. Raises `KeyError` if the study does not contain the trial."""
        for each in self.trials:
            if each.number == number:
                return each
        raise KeyError(number)

    def count(self, state: TrialState) -> int:
        """Return the number of trials in this state."""
        return sum(each.state == state for each in self.trials)

    @property
    def steps(self) -> int:
        """Number of optimizer steps in all trials."""
        return sum(each.steps for each in self.trials)

    @property
    def saved_steps(self) -> int:
        """Number of optimizer steps that were not executed because trials were pruned."""
        return sum(each.planned_steps - each.steps for each in self.trials if each.state == "pruned" and each.steps)

    @property
    def seconds(self) -> float:
        """Total duration of the processes of all trials, in seconds."""
        return sum(each.seconds for each in self.trials)

    def cost(self, number: int) -> TuningCost:
        """Return the cost of the study, to be recorded in runs that use a trial's settings."""
        return TuningCost(
            study=self.name,
            trial=number,
            trials=len(self.trials),
            pruned=self.count("pruned"),
            failed=self.count("failed"),
            steps=self.steps,
            seconds=round(self.seconds, 3),
        )


def directory(results: Path, name: str) -> Path:
    """Return a study's directory."""
    return results / FOLDER / name


def save(study: Study, results: Path) -> None:
    """Write ``study.json``. Raises `harness.RecordError` if the study cannot be written."""
    folder = directory(results, study.name)
    try:
        make_directory(folder)
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written: {error.strerror}") from None
    write_json(folder / STUDY, study)


def load(path: Path) -> Study:
    """Return the study in a directory. Raises `harness.RecordError` if the study cannot be read."""
    try:
        return _checked(decode(read_stored(path / STUDY, MAX_JSON_BYTES), Study, path / STUDY), path)
    except RecordError as error:
        raise RecordError(
            f"{error}; restore the file from a copy, or repeat `harness tune` with --rerun to start a new study"
        ) from error.__cause__


def _checked(study: Study, path: Path) -> Study:
    numbers = [each.number for each in study.trials]
    values = {len(each.values) for each in study.trials} - {0}
    valued = {each.number for each in study.trials if each.values}
    if len(set(numbers)) < len(numbers) or not study.objectives or not values <= {len(study.objectives)}:
        raise RecordError(f"{path / STUDY} is not valid: the trials do not match the objectives")
    if not set(study.best) <= valued:
        raise RecordError(f"{path / STUDY} is not valid: a best trial is missing or has no value")
    return study


def load_all(results: Path) -> tuple[list[Study], list[str]]:
    """Return the studies in a results directory, sorted by start time, and a message for each unreadable study."""
    studies, problems = [], []
    try:
        folders = sorted(path for path in (results / FOLDER).iterdir() if (path / STUDY).is_file())
    except OSError:
        return [], []
    for folder in folders:
        try:
            studies.append(load(folder))
        except RecordError as error:
            problems.append(str(error))
    return sorted(studies, key=lambda study: study.started_at), problems
