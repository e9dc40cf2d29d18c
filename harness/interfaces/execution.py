"""The interface for executors, which determine where and when planned runs are executed.

An `Executor` receives each `PlannedRun` and reports to a `Coordinator`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from msgspec import Struct

from harness.errors import UsageError
from harness.records import CheckpointPlan, Environment, Event, Failure, PluginRef, RunRecord, RunSpec

EXECUTOR_NOTE = "executor"
"""Key in `Provenance.notes` for a remark that an executor adds to a record, for example about a node failure."""


class PlannedRun(Struct, frozen=True, kw_only=True):
    """A run to execute. A planned run can be encoded as JSON or pickled, and executed on another machine."""

    index: int
    """Position of the run in the plan, starting at 1."""
    total: int
    """Number of runs in the plan."""
    spec: RunSpec
    """Settings of the run."""
    plugins: tuple[PluginRef, ...]
    """Plugins that the run requires. Plugins that must be installed on the machine that executes the run."""
    packages: tuple[str, ...] = ()
    """Python distributions that the backend requires and whose versions are stored in the record."""
    timeout_s: float
    """Time limit of the run, in seconds."""
    memory_limit_bytes: int | None = None
    """Maximum host memory of the run, or None for no limit."""
    save_weights: bool = False
    """True to save the trained weights next to the record."""
    lock_digest: str = ""
    """Digest of the lock file of the run's named environment, computed on the machine where the command is running. The
    digest is empty if the run does not use a named environment."""
    quality_only: bool = False
    """True to measure only quality, without throughput or latency."""
    trial: Literal["quality", "speed"] | None = None
    """Quantities that a trial of ``harness tune`` measures on the training and validation splits. A trial measures
    either only quality, or quality and training throughput. None for a complete run. The test split is not used in a
    trial."""
    step_events: bool = False
    """True to send `harness.StepsEnded` events. The value is True only if an event listener handles such events."""
    checkpoints: CheckpointPlan | None = None
    """Directory for checkpoints and interval between checkpoints. The value is None if no checkpoints are written. Only
    runs on this machine can write checkpoints."""


class Machine(Struct, frozen=True, kw_only=True):
    """A machine that can execute runs, with its packages and digests of the installed code."""

    environment: Environment
    """Description of the machine, in the format of the records of its runs."""
    harness_digest: str
    """Digest of the `harness` code."""
    plugin_digests: dict[str, str]
    """Digest of each plugin's code, keyed by plugin name. The digest is empty if the plugin is not installed."""


class SubmissionState(Struct, frozen=True, kw_only=True):
    """The state of runs submitted with `Executor.submit`."""

    running: tuple[int, ...]
    """Indices of the runs that are currently being executed."""
    waiting: tuple[int, ...]
    """Indices of the runs that have not been started."""

    @property
    def finished(self) -> bool:
        """True if no runs are active or pending."""
        return not self.running and not self.waiting


@dataclass(frozen=True)
class Attempt:
    """One attempt to execute a run."""

    id: str
    """Unique id of the attempt. The executor passes this id when it reports an event or the result of the run."""
    run: PlannedRun
    directory: Path
    """Directory on this machine for the run's files. When the attempt has finished, this directory becomes the run's
    directory in the results directory. If the attempt is lost, the directory is removed."""


class TrialPruned(Exception):  # noqa: N818 - not an error
    """Exception raised by `Coordinator.event` to stop a trial of ``harness tune``."""


class Coordinator(ABC):
    """The object to which an executor reports attempts, events and results. The core implements this class.

    The coordinator stores the records, displays the progress, and calls the event hooks. The methods must be called in
    the thread that called `Executor.execute`. Ctrl-C does not interrupt the methods of this class, but a method may
    raise KeyboardInterrupt before it returns.
    """

    @abstractmethod
    def start(self, run: PlannedRun) -> Attempt:
        """Start an attempt to execute a run.

        If an earlier attempt to execute this run is still open, it is treated as lost, and its events and result are
        dropped.

        Parameters
        ----------
        run : PlannedRun
            One of the runs passed to `Executor.execute`.

        Returns
        -------
        Attempt
            The attempt. The new attempt has a new id and an empty directory.

        Raises
        ------
        harness.PluginError
            If the run has finished or is not part of the plan.
        harness.RecordError
            If the results directory cannot be written.
        """

    @abstractmethod
    def is_open(self, attempt_id: str) -> bool:
        """Return True if the coordinator accepts the result of an attempt.

        Return False if the attempt has finished or is lost.

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
            The event, as passed to the `on_event` function of `harness.execute_run`.

        Raises
        ------
        harness.TrialPruned
            If the run is a trial that should be pruned; see `Executor.prunes`. `harness.execute_run` handles this
            exception if it is raised by its `on_event` function. An executor with several open attempts stops only this
            attempt.
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
            machine is available. For a failure, the core creates a record that contains the failure and a description
            of this machine.

        Returns
        -------
        bool
            True if the result was stored. False if the result was dropped because the attempt is not open.

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
        """Show a message that does not concern a particular run, for example that a machine is starting.

        Parameters
        ----------
        text : str
            One-line message.
        """


class Executor(ABC):
    """A component that executes planned runs, selected with ``harness run --executor NAME``.

    Notes
    -----
    An executor follows these rules:

    - Each run is executed by `harness.execute_run`, on this or another machine. On every machine, `harness.execute_run`
      starts the same kind of child process, with the time and memory limits of the run. The child process terminates
      when the process that called `harness.execute_run` exits.
    - Before a run is executed, the executor calls `Coordinator.start` for this run. After a remote run, the executor
      copies the files in the run's directory to `Attempt.directory`, and passes the record to `Coordinator.finish`.
      Remote machines never write to the results directory.
    - A run in a named environment uses the environment with this name on the machine that executes the run. The
      environment must exist on that machine, with the same lock file, `harness` code and plugin code as on this
      machine. Otherwise, the run fails.
    - If an attempt is lost, for example because its machine stops responding, the executor starts the run again with
      `Coordinator.start`, possibly on another machine. A result that the lost attempt reports later is dropped, so that
      each run is stored only once. The files of an attempt need not be copied if `Coordinator.is_open` returns False
      for the attempt.
    - An executor may add a remark to a record, in `Provenance.notes` under the key ``executor``.
    - A failed run is not repeated. The record of a failed run is also a result, with a `harness.Failure` as the
      outcome. Only attempts without a record are repeated.
    - Two runs must never be measured on the same cores or the same device at the same time.
    - All processes of a run on several devices (`RunSpec.devices`) must be executed on the same machine. Each process
      has separate cores and a separate device.
    - When `execute` returns, every run has finished. If `execute` raises an exception, open attempts are recorded as
      failed (or as interrupted after KeyboardInterrupt), and the remaining runs are not executed. Before `execute`
      returns or raises an exception, it stops all runs that it started. After that, `execute` does not use the
      coordinator.
    """

    name: ClassVar[str]
    """Name of the executor, as passed to ``--executor``."""
    summary: ClassVar[str]
    """One-line description."""
    data_parallel: ClassVar[bool] = False
    """True if the executor can execute runs on several devices. `harness.execute_run` starts the processes of such a
    run on one machine. If False, such runs are rejected before the first run starts."""
    requires: ClassVar[Mapping[str, str]] = {}
    """Modules that must be importable, with the requirement that installs each of them; see `Backend.requires`."""
    prunes: ClassVar[bool] = False
    """True if the executor reports events during the run, and stops the run when
    `Coordinator.event` raises `harness.TrialPruned`. If False, ``harness tune`` requires ``--pruner none``."""
    options: ClassVar[Mapping[str, str]] = {}
    """One-line descriptions of the executor's options, keyed by option name. For example, users set the ``address``
    option of the ``ray`` executor with ``--executor-option address=VALUE`` or ``--ray-address VALUE``."""
    remote: ClassVar[bool] = False
    """True if runs are executed on other machines. In this case, the devices of this machine are neither checked nor
    locked."""

    def configured(self, options: Mapping[str, str]) -> Executor:
        """Return the executor configured with the given options. The default implementation returns this executor.

        Parameters
        ----------
        options : mapping of str to str
            Values of the options, keyed by option name. Options that the user has not set are omitted.

        Returns
        -------
        Executor
            Executor for one command.

        Raises
        ------
        harness.UsageError
            If a value is not valid.
        """
        return self

    def machines(self, plugins: Sequence[PluginRef], packages: Sequence[str]) -> Sequence[Machine] | None:
        """Return the machines that can execute runs, or None for this machine. By default, return None.

        A stored run is reused if it was executed on a machine with the same class and packages as one of these
        machines.

        Parameters
        ----------
        plugins : sequence of PluginRef
            Plugins that the runs use.
        packages : sequence of str
            Distributions that the backends require.

        Returns
        -------
        sequence of Machine or None
            Descriptions of the machines, as returned by `harness.describe_machine`.

        Raises
        ------
        harness.UsageError
            If a machine cannot be reached, or if its code differs from the code on this machine.
        """
        return None

    @abstractmethod
    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        """Execute runs, and report their attempts, events and results to the coordinator.

        Parameters
        ----------
        runs : sequence of PlannedRun
            The runs. Runs that are compared with each other are adjacent in this sequence, so the order should be
            preserved if possible.
        coordinator : Coordinator
            Coordinator that receives the attempts, events and results.
        """

    def submit(self, submission: str, runs: Sequence[PlannedRun]) -> Mapping[str, str]:
        """Submit runs that continue after this process exits, as in ``harness run --detach``.

        Later processes call `collect` with the same `submission` until all runs have finished, and then call `cancel`.

        Parameters
        ----------
        submission : str
            Unique name for the submitted runs. The name consists of letters, digits and ``-``.
        runs : sequence of PlannedRun
            The runs.

        Returns
        -------
        mapping of str to str
            Options that allow the executor to find the submission from another process.

        Raises
        ------
        harness.UsageError
            If the executor cannot execute runs after this process has exited.
        """
        raise UsageError(f"the executor {self.name!r} does not support --detach")

    def collect(
        self, submission: str, runs: Sequence[PlannedRun], coordinator: Coordinator, *, wait: bool
    ) -> SubmissionState | None:
        """Report the attempts, events and results of submitted runs to the coordinator.

        After `Coordinator.finish` has stored a result, the result counts as collected when `collect` reports a later
        result or returns. If this process is killed before a result counts as collected, the next call reports the
        result again, but the result is stored only once.

        Parameters
        ----------
        submission : str
            Name passed to `submit`.
        runs : sequence of PlannedRun
            Runs passed to `submit`.
        coordinator : Coordinator
            Coordinator that receives the attempts, events and results.
        wait : bool
            True to wait until all runs have finished. False to report only the results that are already known.

        Returns
        -------
        SubmissionState or None
            State of the submission, or None if there is no submission with this name.

        Raises
        ------
        harness.UsageError
            If the machine that manages the submission cannot be reached.
        """
        raise UsageError(f"the executor {self.name!r} does not support --detach")

    def cancel(self, submission: str) -> None:
        """Stop the runs of a submission, and delete results that have not been collected.

        Do nothing if the submission does not exist.

        Parameters
        ----------
        submission : str
            Name passed to `submit`.

        Raises
        ------
        harness.UsageError
            If the machine that manages the submission cannot be reached.
        """
        raise UsageError(f"the executor {self.name!r} does not support --detach")
