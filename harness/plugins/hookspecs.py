"""The hooks that a plugin may implement.

A plugin is a module or object that implements some of these functions and decorates them with `harness.hookimpl`.
Plugins are discovered through entry points in the group ``harness``. A hook whose name is a plural noun yields objects.
All other hooks handle events and are called in the parent process during runs. An implementation may omit arguments
that it does not use.

Every event hook has the arguments `attempt_id` and `time_s`. All events of one attempt to execute a run have the same
attempt id. Attempt ids distinguish runs that are executed at the same time. `RunRecord.run_id` is assigned when the
record is stored, because it depends on the device that was selected for the run. `time_s` is the time of the event, in
seconds since 1970-01-01 (UTC).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from harness.interfaces import Backend, Dataset, Executor, Metric, Model, NetworkRef, Reporter, Task, Tracker
    from harness.records import EpochEnded, RunRecord, RunSpec, StepsEnded

GROUP = "harness"

API_VERSION = "1.2"
"""Version of the plugin API, which consists of the hooks and `harness.__all__`. The major version is incremented for
changes that may break plugins, and the minor version for additions. In ``HARNESS_API_VERSION``, a plugin declares the
version for which it was written."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
"""Decorator that marks a plugin's function as a hook implementation."""


@hookspec
def harness_tasks() -> Iterable[Task]:
    """Yield tasks.

    Yields
    ------
    Task
        A task for one kind of data.

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_tasks():
    ...     yield SentimentTask()
    """
    return ()


@hookspec
def harness_datasets() -> Iterable[Dataset]:
    """Yield datasets.

    Yields
    ------
    Dataset
        A dataset. Users select the dataset by its name.

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_datasets():
    ...     yield MyReviews()
    """
    return ()


@hookspec
def harness_models() -> Iterable[Model]:
    """Yield model families.

    Yields
    ------
    Model
        A model family. The model defines sizes, canonical parameters and cost, independently of any framework.

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_models():
    ...     yield Perceptron()
    """
    return ()


@hookspec
def harness_networks() -> Iterable[NetworkRef]:
    """Yield references to networks, which implement models for backends.

    Yields
    ------
    NetworkRef
        A reference to the network of a model for a backend. The model and the backend may be provided by other plugins.

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_networks():
    ...     yield harness.NetworkRef(model="perceptron", backend="torch", build="my_plugin.nets:build")
    """
    return ()


@hookspec
def harness_backends() -> Iterable[Backend]:
    """Yield backends.

    Yields
    ------
    Backend
        A framework that trains and runs networks.

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_backends():
    ...     yield JaxBackend()
    """
    return ()


@hookspec
def harness_metrics() -> Iterable[Metric]:
    """Yield metrics in addition to the built-in ones.

    Yields
    ------
    Metric
        A metric. Tasks refer to the metric by its name.

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_metrics():
    ...     yield harness.Metric(
    ...         name="kappa",
    ...         objective="classification",
    ...         function="my_plugin:kappa",
    ...         higher_is_better=True,
    ...         summary="Cohen's kappa",
    ...     )
    """
    return ()


@hookspec
def harness_reporters() -> Iterable[Reporter]:
    """Yield output formats for ``harness report`` in addition to the built-in ones.

    Yields
    ------
    Reporter
        A report format.

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_reporters():
    ...     yield harness.Reporter(name="badge", render="my_plugin:badge", summary="one line of Markdown")
    """
    return ()


@hookspec
def harness_executors() -> Iterable[Executor]:
    """Yield executors for ``harness run --executor`` in addition to the built-in one.

    Yields
    ------
    Executor
        An object that executes runs, for example on a cluster.

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_executors():
    ...     yield ClusterExecutor()
    """
    return ()


@hookspec
def harness_trackers() -> Iterable[Tracker]:
    """Yield experiment trackers for ``harness run --tracker``.

    Yields
    ------
    Tracker
        An experiment tracker.

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_trackers():
    ...     yield harness.Tracker(name="board", listener="my_plugin:Board", summary="logs to a board")
    """
    return ()


@hookspec
def harness_run_started(spec: RunSpec, attempt_id: str, time_s: float) -> None:
    """Handle the start of an attempt to execute a run.

    The child process of the attempt is started when this hook returns or exceeds its time limit. For each attempt,
    either ``harness_run_finished`` or ``harness_attempt_lost`` is called after this hook, unless the command is killed.

    Parameters
    ----------
    spec : RunSpec
        Settings of the run.
    attempt_id : str
        Unique id of the attempt.
    time_s : float
        Time of the event, in seconds since 1970-01-01 (UTC).

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_run_started(spec):
    ...     print("starting", spec.model, "on", spec.backend)
    """


@hookspec
def harness_steps_ended(spec: RunSpec, steps: StepsEnded, attempt_id: str, time_s: float) -> None:
    """Handle the end of one or more training steps of an epoch, before validation.

    If a listener implements this hook, the run's child process sends the losses and learning rates of all steps at the
    end of each epoch. During epochs longer than 10 seconds, the values are also sent every 10 seconds, but never within
    a timed window. The run continues while this hook is running. If the hook is too slow, events are dropped.

    Parameters
    ----------
    spec : RunSpec
        Settings of the run.
    steps : StepsEnded
        Losses, learning rates and timed windows of consecutive steps.
    attempt_id : str
        Id that was passed to ``harness_run_started``.
    time_s : float
        Time of the event, in seconds since 1970-01-01 (UTC).

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_steps_ended(steps):
    ...     for number, loss in enumerate(steps.losses, start=steps.step + 1):
    ...         tracker.log(loss, step=number)
    """


@hookspec
def harness_epoch_ended(spec: RunSpec, epoch: EpochEnded, attempt_id: str, time_s: float) -> None:
    """Handle the end of a training epoch, after validation.

    The run continues while this hook is running. If the hook is too slow, events are dropped.

    Parameters
    ----------
    spec : RunSpec
        Settings of the run.
    epoch : EpochEnded
        Event with the training loss, the validation scores and the elapsed training time.
    attempt_id : str
        Id that was passed to ``harness_run_started``.
    time_s : float
        Time of the event, in seconds since 1970-01-01 (UTC).

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_epoch_ended(spec, epoch):
    ...     tracker.log(epoch.train_loss, step=epoch.step)
    """


@hookspec
def harness_run_finished(record: RunRecord, directory: Path, attempt_id: str, time_s: float) -> None:
    """Handle the end of a successful or failed run, after its record has been saved.

    Parameters
    ----------
    record : RunRecord
        Record of the run, as stored. The outcome of the record is a `harness.Success`, a `harness.Failure` or, for a
        trial of ``harness tune``, a `harness.Trial`. The outcome of a run that was stopped with Ctrl-C is a failure of
        the kind ``interrupted``.
    directory : Path
        Absolute path of the run's directory, which contains the record, the raw samples and the log.
    attempt_id : str
        Id that was passed to ``harness_run_started``.
    time_s : float
        Time of the event, in seconds since 1970-01-01 (UTC).

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_run_finished(record, directory):
    ...     notify(record.run_id, directory)
    """


@hookspec
def harness_attempt_lost(spec: RunSpec, attempt_id: str, time_s: float) -> None:
    """Handle the end of an attempt that has no record, for example because the machine stopped responding.

    The executor may start the run again as a new attempt. This hook is also called if the record could not be stored.

    Parameters
    ----------
    spec : RunSpec
        Settings of the run.
    attempt_id : str
        Id that was passed to ``harness_run_started``.
    time_s : float
        Time of the event, in seconds since 1970-01-01 (UTC).

    Examples
    --------
    >>> @harness.hookimpl
    ... def harness_attempt_lost(attempt_id):
    ...     tracker.discard(attempt_id)
    """
