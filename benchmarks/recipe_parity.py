"""Compare loss curves of backends for recipes that together use every option of `harness.Recipe`: ``python -m
benchmarks.recipe_parity``.

Each backend trains each model for 50 steps from the same weights, on the same batches, with the recipe's schedule and
without dropout. The table shows the largest relative differences between the first backend and the others, in the
losses and in the predictions after training. If the recipe uses a moving average of the weights, the predictions are
computed with this average. If the first backend supports float64, it also trains in this precision on the CPU, to show
how much rounding affects the losses.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tabulate import tabulate

from harness.data.batches import inference_batches, training_batches
from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import Preparation, opened_session, prepare, prepare_data, starting_weights
from harness.execute.variables import child_environment
from harness.interfaces import Batch
from harness.measure.distance import relative
from harness.measure.schedule import learning_rate, reductions
from harness.measure.selection import average_weight
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import Failure, PluginRef, Recipe, RunSpec
from harness.records.recipe import LOOP_FIELDS

STEPS = 50
TOLERANCE = 1e-3
MODELS = {
    "lstm": ("nlp", "embedding.*"),
    "bert-tiny": ("nlp", "bert.embeddings.*"),
    "resnet-20": ("vision", "resnet.embedder.*"),
    "wav2vec2-tiny": ("speech", "wav2vec2.feature_extractor.*"),
}
"""Task of each model, and the parameters to freeze in recipes that set `Recipe.frozen`."""
MIXES: dict[str, dict[str, Any]] = {
    "lamb": {
        "optimizer": "lamb", "learning_rate": 0.01, "weight_decay": 0.01, "l1": 1e-4, "accumulation_steps": 3,
        "class_weights": (), "ema_decay": 0.9, "layer_decay": 0.8, "schedule": "cosine", "warmup_fraction": 0.1,
        "clip_norm": None, "label_smoothing": 0.0,
    },
    "lion": {
        "optimizer": "lion", "learning_rate": 3e-4, "beta1": 0.95, "beta2": 0.98, "weight_decay": 0.1,
        "schedule": "one_cycle", "warmup_fraction": 0.3, "frozen": (), "clip_norm": 1.0, "label_smoothing": 0.1,
    },
    "adagrad": {
        "optimizer": "adagrad", "learning_rate": 0.01, "epsilon": 1e-6, "weight_decay": 0.01, "decoupled_decay": True,
        "schedule": "step", "step_size": 2, "gamma": 0.5, "warmup_fraction": 0.0, "clip_norm": None,
        "distillation_alpha": 0.5, "distillation_temperature": 3.0,
    },
    "sgd": {
        "optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01,
        "schedule": "linear", "warmup_fraction": 0.2, "clip_norm": 1.0, "label_smoothing": 0.1,
        "accumulation_steps": 2, "layer_decay": 0.9,
    },
    "rmsprop": {
        "optimizer": "rmsprop", "learning_rate": 1e-4, "epsilon": 1e-6, "weight_decay": 0.01, "l1": 1e-4,
        "schedule": "constant", "warmup_fraction": 0.0, "clip_norm": 1.0, "ema_decay": 0.95, "class_weights": (),
    },
    "adam": {
        "optimizer": "adam", "learning_rate": 1e-3, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.1,
        "schedule": "step", "milestones": (1, 3), "gamma": 0.3, "warmup_fraction": 0.1, "clip_norm": 1.0,
        "frozen": (), "distillation_alpha": 0.3, "distillation_temperature": 2.0, "label_smoothing": 0.1,
    },
}  # fmt: skip
"""Recipe fields that replace the corresponding fields of a model's own recipe. An empty tuple for
`Recipe.class_weights` or `Recipe.frozen` is replaced by values for the data or the model.
"""
UNUSED = frozenset({"batch_size", "dropout", "loss_scale"} | set(LOOP_FIELDS))
"""Recipe fields that are not set in `MIXES`, for these reasons: the model's own batch size is used, dropout is
disabled, a loss scale requires fp16, and the other fields are used only by the training loop of harness."""


class Job(msgspec.Struct, frozen=True):
    """Job for a child process that trains one model with one backend."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]


class Trained(msgspec.Struct, frozen=True):
    """Result of a training run. Non-finite values are replaced by None."""

    losses: list[float | None]
    outputs: list[list[float | None]]
    """Predictions for the first test batch after training."""


def train(job: Job, context: ChildContext) -> Trained:
    """Train for `STEPS` steps and return the losses and the predictions for the first test batch."""
    prepared = prepare(job.spec, job.plugins)
    recipe, data, losses = job.spec.recipe, prepared.data, []
    with opened_session(prepared, starting_weights(prepared)[0], dropout=0.0) as session:
        for step, batch in zip(range(STEPS), _batches(prepared), strict=False):
            rate = learning_rate(recipe, step, STEPS, reductions(recipe, step * recipe.epochs // STEPS, ()))
            losses.append(float(np.asarray(session.fetch(session.train_step(batch, rate)))))
            if recipe.ema_decay is not None:
                session.update_average(average_weight(recipe.ema_decay, step + 1))
        test, valid = next(inference_batches(data.test, recipe.batch_size))
        with session.averaged() if recipe.ema_decay is not None else contextlib.nullcontext():
            outputs = np.array(session.fetch(session.predict(test)), np.float64)[:valid]
    return Trained(_finite(losses), [_finite(row) for row in outputs.tolist()])


def _batches(prepared: Preparation) -> Iterator[Batch]:
    """Yield the batches of a run. With distillation, the teacher's logits are random."""
    data, recipe, seed = prepared.data, prepared.spec.recipe, prepared.spec.seed
    train_split = data.train
    if recipe.distillation_alpha:
        logits = np.random.default_rng(5).normal(size=(len(train_split), data.info.outputs))
        train_split = dataclasses.replace(train_split, teacher_logits=logits.astype(np.float32))
    for epoch in itertools.count(1):
        yield from training_batches(train_split, recipe.batch_size, seed, epoch, data.augment)


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def specs_of(model: str, backends: Sequence[str], precision: str, catalog: Catalog) -> list[RunSpec]:
    """Return the spec for each backend, with the model's own recipe."""
    selection = Selection(
        tasks=(MODELS[model][0],),
        models=(model,),
        backends=tuple(backends),
        devices=("cpu",),
        precisions=(precision,),
        threads=1,
    )
    return list(expand(selection, catalog))


def mixed(spec: RunSpec, mix: Mapping[str, Any], model: str, classes: int) -> RunSpec:
    """Return the spec with its recipe updated by the fields of a recipe in `MIXES`. The class weights are 0.5, 1, 1.5,
    0.5, 1, ..."""
    fields = dict(mix)
    if "class_weights" in fields:
        fields["class_weights"] = tuple(0.5 + 0.5 * (number % 3) for number in range(classes))
    if "frozen" in fields:
        fields["frozen"] = (MODELS[model][1],)
    return msgspec.structs.replace(spec, recipe=msgspec.structs.replace(spec.recipe, **fields))


def trained(spec: RunSpec, catalog: Catalog) -> Trained:
    """Train in a child process. Raises `RuntimeError` if the child fails."""
    from benchmarks import recipe_parity  # the child process imports the function from this module by name

    job = Job(spec, catalog.refs_for(spec))
    environment = {**child_environment(spec), "PYTHONPATH": str(Path(__file__).parents[1])}
    found = call_in_child(recipe_parity.train, job, timeout_s=900, environment=environment)
    if isinstance(found, Failure):
        raise RuntimeError(f"{spec.model} with {spec.backend}: {found.message}")
    return found


def differences(one: Trained, other: Trained) -> tuple[float, int, float]:
    """Return the largest relative difference between losses, the number of steps before this difference first exceeds
    `TOLERANCE`, and the relative difference between the predictions."""
    errors = [
        relative(np.array([x], float), np.array([y], float)) for x, y in zip(other.losses, one.losses, strict=True)
    ]
    agreeing = next((step for step, error in enumerate(errors) if not error <= TOLERANCE), len(errors))
    return max(errors), agreeing, relative(np.array(other.outputs, float), np.array(one.outputs, float))


def rows(model: str, mix: str, backends: Sequence[str], precision: str, catalog: Catalog) -> Iterator[list[str]]:
    """Yield one row for each comparison of the first backend with another backend. If the first backend supports
    float64, also compare it with its own results in float64.
    """
    first, *others = specs_of(model, backends, precision, catalog)
    classes = prepare_data(catalog, first).info.outputs
    first, *others = (mixed(spec, MIXES[mix], model, classes) for spec in (first, *others))
    peers = [(spec.backend, spec) for spec in others]
    devices = catalog.backend(first.backend).devices()
    if precision != "fp64" and any(each.name == "cpu" and "fp64" in each.precisions for each in devices):
        peers.append((f"{first.backend} in fp64", msgspec.structs.replace(first, precision="fp64")))
    own = trained(first, catalog)
    for name, spec in peers:
        loss, steps, outputs = differences(own, trained(spec, catalog))
        yield [model, mix, f"{first.backend} / {name}", f"{loss:.1e}", f"{steps} of {STEPS}", f"{outputs:.1e}"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe_parity", description=__doc__)
    parser.add_argument("--model", action="append", choices=MODELS, help="model to train; can be repeated [all]")
    parser.add_argument("--mix", action="append", choices=MIXES, help="recipe to use; can be repeated [all]")
    parser.add_argument("--backend", default="torch,tensorflow", help="backends [torch,tensorflow]")
    parser.add_argument("--precision", default="fp32", help="precision [fp32]")
    options = parser.parse_args()
    missing = set(Recipe.__struct_fields__) - UNUSED - {name for mix in MIXES.values() for name in mix}
    assert not missing, f"no recipe sets {missing}"
    catalog = discover()
    found = []
    for model in options.model or MODELS:
        for mix in options.mix or MIXES:
            for row in rows(model, mix, options.backend.split(","), options.precision, catalog):
                print(*row, sep=" | ", file=sys.stderr, flush=True)
                found.append(row)
    header = ["model", "recipe", "backends", "losses", f"steps within {TOLERANCE:g}", "predictions"]
    print(tabulate(found, header, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
