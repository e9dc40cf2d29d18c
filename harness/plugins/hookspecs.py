"""The hooks that a plugin may implement.

A plugin is a module (or object) with functions of these names, marked with `harness.hookimpl` and found through an
entry point of the group ``harness``. Hooks named by plural nouns yield objects; the other hooks are events, called in
the parent process during runs. Implementations may leave out arguments that they do not use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from harness.interfaces import Backend, Dataset, Metric, Model, NetworkRef, Reporter, Task
    from harness.records import EpochEnded, RunRecord, RunSpec

GROUP = "harness"

API_VERSION = "1.0"
"""The version of the plugin API: the hooks and `harness.__all__`. The major version is raised by changes that may break
plugins, the minor version by additions. A plugin declares the version it was made for as ``HARNESS_API_VERSION``."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def harness_tasks() -> Iterable[Task]:
    """Tasks: what is done with data of one kind.

    Example::

        @harness.hookimpl
        def harness_tasks():
            yield SentimentTask()
    """
    return ()


@hookspec
def harness_datasets() -> Iterable[Dataset]:
    """Datasets, loaded by name.

    Example::

        @harness.hookimpl
        def harness_datasets():
            yield MyReviews()
    """
    return ()


@hookspec
def harness_models() -> Iterable[Model]:
    """Model families: sizes, canonical parameters and cost, without a framework.

    Example::

        @harness.hookimpl
        def harness_models():
            yield Perceptron()
    """
    return ()


@hookspec
def harness_networks() -> Iterable[NetworkRef]:
    """Models built for a backend; either may come from another plugin.

    Example::

        @harness.hookimpl
        def harness_networks():
            yield harness.NetworkRef(model="perceptron", backend="torch", build="my_plugin.nets:build")
    """
    return ()


@hookspec
def harness_backends() -> Iterable[Backend]:
    """Backends: frameworks that train and run the networks.

    Example::

        @harness.hookimpl
        def harness_backends():
            yield JaxBackend()
    """
    return ()


@hookspec
def harness_metrics() -> Iterable[Metric]:
    """Metrics beyond the core's own; tasks name them.

    Example::

        @harness.hookimpl
        def harness_metrics():
            yield harness.Metric(name="kappa", objective="classification", function="my_plugin:kappa",
                                 higher_is_better=True, summary="Cohen's kappa")
    """
    return ()


@hookspec
def harness_reporters() -> Iterable[Reporter]:
    """Formats of ``harness report`` beyond the core's own.

    Example::

        @harness.hookimpl
        def harness_reporters():
            yield harness.Reporter(name="badge", render="my_plugin:badge", summary="one line of markdown")
    """
    return ()


@hookspec
def harness_run_started(spec: RunSpec) -> None:
    """A run's child process is about to start.

    Example::

        @harness.hookimpl
        def harness_run_started(spec):
            print("starting", spec.model, "on", spec.backend)
    """


@hookspec
def harness_epoch_ended(spec: RunSpec, epoch: EpochEnded) -> None:
    """A training epoch was validated.

    Example::

        @harness.hookimpl
        def harness_epoch_ended(spec, epoch):
            tracker.log(epoch.train_loss, step=epoch.step)
    """


@hookspec
def harness_run_finished(record: RunRecord) -> None:
    """A run ended, well or not, and its record is on disk.

    Example::

        @harness.hookimpl
        def harness_run_finished(record):
            notify(record.run_id)
    """
