"""The interface for executors, which decide where and when planned runs are executed.

An `Executor` receives each `PlannedRun` and reports to a `Coordinator`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from msgspec import Struct

from harness.records import Event, Failure, PluginRef, RunRecord, RunSpec


class PlannedRun(Struct, frozen=True, kw_only=True):
    """A run to execute. It can be encoded as JSON or pickled, and executed on another machine."""

    index: int
    """Position of the run in the plan, starting at 1."""
    total: int
    """Number of runs in the plan."""
    spec: RunSpec
    """Settings of the run."""
    plugins: tuple[PluginRef, ...]
    """Plugins that the run needs. They must be installed where the run is executed."""
    packages: tuple[str, ...] = ()
    """Distributions of the backend, whose versions are stored in the record."""
    timeout_s: float
    """Time limit of the run, in seconds."""
    memory_limit_bytes: int | None = None
    """Limit on the host memory of the run, or None."""
    save_weights: bool = False
    """True to save the trained weights next to the record."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to execute a run."""

    id: str
    """Unique id of the attempt, under which its events and its result are reported."""
    run: PlannedRun
    directory: Path
    """Directory on this machine for the files of the run. It becomes the run's directory in the results directory when
    the attempt is finished, and is removed when the attempt is lost."""


class Coordinator(ABC):
    """The receiver of an executor's attempts, events and results. The core implements this class.

    It stores the records, shows the progress, and calls the event hooks. Its methods must be called in the thread that
    called `Executor.execute`. They are not interrupted by Ctrl-C, but may raise KeyboardInterrupt at their end.
    """

    @abstractmethod
    def start(self, run: PlannedRun) -> Attempt:
        """Begin an attempt to execute a run.

        If an earlier attempt of this run is still open, it is lost from now on: its events and its result are dropped,
        even if they arrive later.

        Parameters
        ----------
        run : PlannedRun
            One of the runs passed to `Executor.execute`.

        Returns
        -------
        Attempt
            The attempt, with a new id and an empty directory.

        Raises
        ------
        harness.PluginError
            If the run is finished or not part of the plan.
        harness.RecordError
            If the results directory cannot be written.
        """

    @abstractmethod
    def is_open(self, attempt_id: str) -> bool:
        """Return whether the result of an attempt is still wanted, which is false if it is finished or lost.

        Parameters
        ----------
        attempt_id : str
            Id of the attempt.
        """

    @abstractmethod
    def event(self, attempt_id: str, event: Event) -> None:
        """Report an event of an attempt, such as the end of an epoch. Events of lost attempts are dropped.

        Parameters
        ----------
        attempt_id : str
            Id of the attempt.
        event : Event
            The event, as passed to the function `on_event` of `harness.execute_run`.
        """

    @abstractmethod
    def finish(self, attempt_id: str, result: RunRecord | Failure) -> bool:
        """Store the result of an attempt, with the files in the attempt's directory.

        Parameters
        ----------
        attempt_id : str
            Id of the attempt.
        result : RunRecord or Failure
            The record that `harness.execute_run` returned, or a failure if there is no record, for example because no
            machine is left. In the second case, the record describes this machine.

        Returns
        -------
        bool
            True if the result was stored, False if it was dropped because the attempt is not open.

        Raises
        ------
        harness.PluginError
            If the record belongs to another specification.
        harness.RecordError
            If the record cannot be stored. The executor must let this error pass.
        KeyboardInterrupt
            If the run was interrupted by the user, after its record was stored.
        """

    @abstractmethod
    def message(self, text: str) -> None:
        """Show a line about work that is not part of a run, such as the start of a machine.

        Parameters
        ----------
        text : str
            The line.
        """


class Executor(ABC):
    """A place where planned runs are executed, selected with ``harness run --executor NAME``.

    Notes
    -----
    An executor follows these rules:

    - Each run is executed by `harness.execute_run`, on this machine or another one, which starts the same child process
      everywhere, with the run's time limit and memory limit. The child ends when the process that called this function
      ends, so a task that is killed leaves no process behind.
    - Before a run is executed, `Coordinator.start` is called for it. After a remote run, the files of its directory are
      copied to `Attempt.directory`, and the record is passed to `Coordinator.finish`. The files and the record are kept
      in one place, the results directory of this process, which remote machines never write to.
    - If an attempt is lost, for example because its machine does not answer, the run is started again with
      `Coordinator.start`, possibly elsewhere. Results are stored by attempt: a result of the lost attempt that arrives
      later is dropped, so each run is stored once. `Coordinator.is_open` returns whether copying the files is still
      useful.
    - A run that fails is not repeated: its record, whose outcome is a `harness.Failure`, is its result. Only attempts
      without a record are repeated.
    - Two runs never measure on the same cores or the same device at the same time.
    - When `execute` returns, every run is finished. When it raises an exception, open attempts are recorded as failed,
      or as interrupted after KeyboardInterrupt, and the remaining runs are not executed. In both cases, `execute` first
      ends the runs that it started, and it does not use the coordinator afterwards.
    """

    name: ClassVar[str]
    """Name of the executor, as in ``--executor``."""
    summary: ClassVar[str]
    """One-line description."""

    @abstractmethod
    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        """Execute runs, and report their attempts, events and results to the coordinator.

        Parameters
        ----------
        runs : sequence of PlannedRun
            The runs. Runs that are compared are next to each other, and the order should be kept as far as possible.
        coordinator : Coordinator
            Receiver of attempts, events and results.
        """
