"""Runs that do not train a model, but measure inference with the trained weights of other runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from harness.errors import CombinationError, RecordError, UsageError
from harness.plan.exporter import ExportedRun, exported_model
from harness.plan.overrides import merge
from harness.plan.selection import OPTIONS, Selection
from harness.plugins.catalog import Catalog
from harness.records import Failure, Protocol, RunSpec, Success, TrainedWeights
from harness.records.reading import is_stored
from harness.records.store import WEIGHTS, StoredRun

FROM_RUN = ("tasks", "datasets", "models", "seeds", "splits", "pretrained", "teacher", "device_counts", "metric")
"""Selection fields whose values come from the run that provides the weights."""


def check_servable(run: StoredRun) -> Success:
    """Return the outcome of a run, after checking that the run's weights can be used for inference.

    Raises `harness.UsageError` if the run failed, used the weights of another run, or did not save its weights, or if
    its model has no canonical weights.
    """
    record = run.record
    if isinstance(record.outcome, Failure):
        raise UsageError(f"run {record.run_id!r} failed, so it has no trained model: {record.outcome.message}")
    if not isinstance(record.outcome, Success):
        raise UsageError(f"run {record.run_id!r} is a trial of harness tune, which saves no weights; pass another run")
    if record.spec.weights is not None:
        raise UsageError(
            f"run {record.run_id!r} was not trained, but used the weights of {record.spec.weights.run!r}; pass that run"
        )
    if not (record.outcome.model.parameters or record.provenance.final_weights_digest):
        raise UsageError(
            f"run {record.run_id!r} has no trained model: the model {record.spec.model!r} of backend "
            f"{record.spec.backend!r} has no weights that can be saved, because the backend fits it in one call and "
            "does not return the fitted model as arrays; pass a run of another model"
        )
    if not is_stored(run.path / WEIGHTS):
        raise UsageError(
            f"run {record.run_id!r} has no saved weights; repeat the run with `harness run ... --save-weights`"
        )
    return record.outcome


def is_servable(run: StoredRun) -> bool:
    """Return True if `check_servable` accepts a run."""
    try:
        check_servable(run)
    except UsageError:
        return False
    return True


def unsavable_warning(specs: Sequence[RunSpec], catalog: Catalog) -> str:
    """Return a warning that lists the models whose weights cannot be saved. Return an empty string if all weights can
    be saved.

    If a backend does not train in steps, only the weights of networks with `harness.NetworkRef.fitted_weights` can be
    saved.
    """
    chosen = [
        spec
        for spec in specs
        if spec.weights is None
        and not catalog.backend(spec.backend).trains_by_steps
        and (network := catalog.network(catalog.model(spec.model)[0].name, spec.backend)) is not None
        and not network.fitted_weights
    ]
    if not chosen:
        return ""
    names = ", ".join(dict.fromkeys(f"{spec.model} ({spec.backend})" for spec in chosen))
    return (
        "Warning: --save-weights: these models have no weights that can be saved, so commands that require trained "
        f"weights, such as `harness predict`, cannot use their runs: {names}"
    )


def trained_weights(run: StoredRun) -> TrainedWeights:
    """Return a reference to the weights of a run.

    Raises the same errors as `check_servable`, and `harness.RecordError` if the record does not contain the digests of
    the weights and the data.
    """
    check_servable(run)
    record = run.record
    weights, data = record.provenance.final_weights_digest, record.provenance.dataset_digest
    if not weights or not data:
        raise RecordError(
            f"the record of run {record.run_id!r} does not contain the digests of its weights and data; repeat the run"
        )
    return TrainedWeights(
        run=record.run_id,
        backend=record.spec.backend,
        digest=weights,
        dataset_digest=data,
        path=str(run.path.absolute()),
    )


def check_selection(selection: Selection) -> None:
    """Raise `harness.UsageError` if the selection contains options that are determined by the run that provides the
    weights."""
    given = [f"--{OPTIONS[name].name}" for name in FROM_RUN if getattr(selection, name)]
    if given:
        raise UsageError(f"the runs in --weights determine the task, data and model; remove {', '.join(given)}")


def resolved_runs(selection: Selection) -> list[StoredRun | ExportedRun]:
    """Return the runs and exported models that provide the weights for a selection.

    Raises `ValueError` if the runs have not been located; see `Selection.resolved`.
    """
    runs = [source for source in selection.weights if not isinstance(source, str)]
    if len(runs) < len(selection.weights):
        raise ValueError("the selection's runs are not resolved; call Selection.resolved first")
    return runs


def stored_run(source: StoredRun | ExportedRun) -> StoredRun:
    """Return the run that trained the weights of `source`."""
    return source.run if isinstance(source, ExportedRun) else source


def served_weights(source: StoredRun | ExportedRun, backend: str, catalog: Catalog, env: str = "") -> TrainedWeights:
    """Return a reference to the weights of `source` for inference with a backend in the named environment `env`.

    Raises the same errors as `trained_weights`. Raises `harness.CombinationError` if the backend has no network for the
    model. For a backend that executes exported models, the error is raised if no other backend can export the model.
    """
    run = stored_run(source)
    trained = trained_weights(run)
    family = catalog.model(run.record.spec.model)[0].name
    exported = exported_model(source, backend, family, catalog, env)
    if exported is None and catalog.network(family, backend) is None:
        others = ", ".join(sorted(name for known, name in catalog.networks if known == family))
        raise CombinationError(
            f"backend {backend!r} cannot run inference with model {family!r} of run {trained.run!r}; the model is "
            f"implemented for: {others or 'none'}{catalog.hint}"
        )
    return msgspec.structs.replace(trained, exported=exported)


def spec_for(
    source: StoredRun | ExportedRun,
    backend: str,
    catalog: Catalog,
    overrides: Mapping[str, Mapping[str, Any]],
    protocol: Protocol,
    env: str = "",
) -> RunSpec:
    """Return the spec of a run that measures a backend's inference with the weights of `source`.

    `env` is the name of the run's environment.

    Raises `harness.CombinationError` if the backend cannot run inference with the model, and `harness.UsageError` if
    the overrides change anything other than the protocol.
    """
    spec = stored_run(source).record.spec
    trained = served_weights(source, backend, catalog, env)
    unused = [f"{section}.{key}" for section in overrides if section != "protocol" for key in overrides[section]]
    unused += ["protocol.name"] if "name" in overrides["protocol"] else []
    if unused:
        raise UsageError(
            f"--weights: {', '.join(unused)} cannot be changed, because the model is already trained; only settings of "
            "the protocol can be changed"
        )
    changed = merge(Protocol, "protocol", msgspec.structs.asdict(protocol), overrides["protocol"])
    return msgspec.structs.replace(spec, backend=backend, protocol=changed, weights=trained)
