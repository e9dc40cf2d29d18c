"""The interface for executors, which determine where and when planned runs are executed.

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
    """Python distributions that the backend needs. Their versions are stored in the record."""
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
    """Unique id of the attempt. The executor passes this id when it reports an event or the result."""
    run: PlannedRun
    directory: Path
    """Directory on this machine for the files of the run. It becomes the run's directory in the results directory when
    the attempt is finished, and is removed when the attempt is lost."""


class Coordinator(ABC):
    """The object to which an executor reports attempts, events and results. The core implements this class.

    The coordinator stores the records, displays the progress, and calls the event hooks. Its methods must be called in
    the thread that called `Executor.execute`. Ctrl-C does not interrupt a method, but the method may raise
    KeyboardInterrupt when it ends.
    """

    @abstractmethod
    def start(self, run: PlannedRun) -> Attempt:
        """Start an attempt to execute a run.

        If an earlier attempt of this run is still open, it is treated as lost, and its events and its result are
        dropped.

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
        """Return True if the coordinator accepts the result of an attempt, or False if the attempt is finished or lost.

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
            machine is available. In this case, a record with the failure and a description of this machine is created.

        Returns
        -------
        bool
            True if the result was stored, False if it was dropped because the attempt is not open.

        Raises
        ------
        harness.PluginError
            If the record is the result of a different run.
        harness.RecordError
            If the record cannot be stored. The executor must not catch this exception.
        KeyboardInterrupt
            If the user interrupted the run. The record is stored before the exception is raised.
        """

    @abstractmethod
    def message(self, text: str) -> None:
        """Show a message that is not about a single run, such as a message that a machine is starting.

        Parameters
        ----------
        text : str
            The message, in one line.
        """


class Executor(ABC):
    """A way to execute planned runs, selected with ``harness run --executor NAME``.

    Notes
    -----
    An executor follows these rules:

    - Each run is executed by `harness.execute_run`, on this machine or another one. On every machine, this function
      starts the same child process, with the run's time limit and memory limit. The child process ends when the
      process that called `harness.execute_run` ends.
    - Before a run is executed, the executor calls `Coordinator.start` for this run. After a remote run, the
      executor copies the files of the run's directory to `Attempt.directory`, and passes the record to
      `Coordinator.finish`. Remote machines never write to the results directory.
    - A run in a named environment is executed in the environment with this name on the machine that executes the run.
      The environment must exist there, with the same code of `harness` and of the plugins.
    - If an attempt is lost, for example because its machine stops responding, the run is started again with
      `Coordinator.start`, possibly on another machine. A result of the lost attempt that is reported later is dropped,
      so each run is stored once. If `Coordinator.is_open` returns False, the files need not be copied.
    - A failed run is not repeated, because its record, whose outcome is a `harness.Failure`, is a result. Only attempts
      without a record are repeated.
    - Two runs must never be measured on the same cores or the same device at the same time.
    - When `execute` returns, every run is finished. When it raises an exception, open attempts are recorded as failed,
      or as interrupted after KeyboardInterrupt, and the remaining runs are not executed. In both cases, `execute` first
      ends the runs that it started, and it does not use the coordinator afterwards.
    """

    name: ClassVar[str]
    """Name of the executor, as passed to ``--executor``."""
    summary: ClassVar[str]
    """One-line description."""

    @abstractmethod
    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        """Execute runs, and report their attempts, events and results to the coordinator.

        Parameters
        ----------
        runs : sequence of PlannedRun
            The runs. Runs that are compared with each other are adjacent, so the order should be kept if possible.
        coordinator : Coordinator
            Receiver of attempts, events and results.
        """
