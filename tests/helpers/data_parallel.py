"""Runs on several devices, and the computations of one process that they must agree with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from toy_plugin import FAST

from harness.data.batches import Part, training_batches
from harness.execute.preparation import Preparation, opened_session, prepare, starting_weights
from harness.execute.runner import run_all
from harness.execute.weights import load
from harness.measure.schedule import learning_rate
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import RunRecord, RunSpec, Success
from harness.records.store import ARRAYS, WEIGHTS, Store
from harness.testing.sessions import RecipeReference


def spec_of(catalog: Catalog, backend: str, task: str, model: str, *overrides: str, devices: int = 2) -> RunSpec:
    """Return the spec of a run on several devices, which measures as little as possible."""
    (spec,) = expand(
        Selection(
            tasks=(task,),
            models=(model,),
            backends=(backend,),
            devices=("cpu",),
            device_counts=(devices,),
            threads=1,
            overrides=(*FAST, "recipe.dropout=0", *overrides),
        ),
        catalog,
    )
    return spec


def executed(spec: RunSpec, catalog: Catalog, folder: Path) -> tuple[RunRecord, Any, dict[str, Any]]:
    """Execute a run, and return its record, its training losses and its trained weights."""
    (record,) = run_all([spec], catalog, Store(folder), save_weights=True, timeout_s=240)
    assert isinstance(record.outcome, Success), record.outcome
    path = folder / record.run_id
    return record, np.load(path / ARRAYS)["train_losses"], load(path / WEIGHTS)


def on_one_device(spec: RunSpec, catalog: Catalog) -> tuple[Any, dict[str, Any]]:
    """Return the training losses and the trained weights of one ordinary session in this process."""
    prepared = prepare(spec, catalog.refs_for(spec))
    weights, _ = starting_weights(prepared)
    with opened_session(prepared, weights) as session:
        losses = [
            float(session.fetch(session.train_step(batches[0], rate))) for rate, batches in _steps(prepared, parts=1)
        ]
        return np.array(losses), session.get_weights()


def with_local_statistics(spec: RunSpec, catalog: Catalog) -> tuple[Any, dict[str, Any]]:
    """Return the training losses and the trained weights of one process that divides each batch into the parts of the
    run's processes, and computes the statistics of batch normalization for each part.

    The running statistics are those of the first part. The optimizer is `RecipeReference`, in float64.
    """
    prepared = prepare(spec, catalog.refs_for(spec))
    weights, _ = starting_weights(prepared)
    optimizer = RecipeReference(spec.recipe, prepared.request.parameters)
    losses = []
    with opened_session(prepared, weights) as session:
        for rate, parts in _steps(prepared, parts=spec.devices):
            loss, total, statistics = 0.0, dict[str, Any](), dict[str, Any]()
            for part in parts:
                session.set_weights(weights)
                own, gradients = session.gradients(part)
                after = session.get_weights()
                loss += part.weight * own
                total = {name: total.get(name, 0) + part.weight * value for name, value in gradients.items()}
                statistics = statistics or {name: value for name, value in after.items() if name not in gradients}
            losses.append(loss)
            stepped = optimizer.step(weights, total, rate)
            weights = {name: stepped.get(name, statistics.get(name)) for name in weights}
    return np.array(losses), weights


def _steps(prepared: Preparation, parts: int) -> Any:
    """Yield the learning rate and the parts of the batch for each training step."""
    spec, data = prepared.spec, prepared.data
    size = spec.recipe.batch_size
    epochs = [
        zip(
            *(
                training_batches(data.train, size, spec.seed, epoch, data.augment, Part(rank, parts))
                for rank in range(parts)
            ),
            strict=True,
        )
        for epoch in range(1, spec.recipe.epochs + 1)
    ]
    steps = list(itertools.chain.from_iterable(epochs))
    for number, batches in enumerate(steps):
        yield learning_rate(spec.recipe, number, len(steps)), batches
