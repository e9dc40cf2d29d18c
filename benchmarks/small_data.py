"""Choice of the default models and recipes for the user's own data: ``python -m benchmarks.small_data``.

``run STAGE`` executes the missing runs of a stage, with 1 thread and without measuring speed. ``table STAGE`` prints
the mean scores of the recorded runs. ``docs/explanation/defaults.md`` contains the protocol, which was written before
the first run, and the tables.

Each run uses a file as a user has it. The file contains rows that were drawn from the publisher's training split of a
dataset, and `harness` divides them at random. For a size of n rows, 0.7 n rows are used for training and 0.1 n rows for
choosing the best epoch, as for the user's own data by default. Further rows of the training split are used for the
score. The published test splits are not used.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
from harness_nlp.datasets.sst2 import sentences
from tabulate import tabulate

import harness
from harness import Recipe, RunRecord, Split, Success
from harness.data.batches import steps_per_epoch
from harness.plan.own_data import MIN_STEPS
from harness.plugins import discover

TRAINING, VALIDATION = 0.7, 0.1
"""Fractions of the user's rows in the training and validation split by default."""
SCORED = 900
"""Number of further rows for the score."""
SCORES = {"nlp": "accuracy", "regression": "r2", "tabular": "accuracy"}
"""Metric of the tables, by task."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """A sample of a dataset."""

    dataset: str
    rows: int
    """Number of rows for training and validation, divided by 0.8."""
    draw: int
    """Seed of the sample and of the run."""

    @property
    def training(self) -> int:
        """Number of training examples."""
        return round(TRAINING * self.rows)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A model with its settings."""

    model: str
    steps: int = 0
    """Minimum number of steps. The number of epochs is at least that of the task's recipe."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "torch"

    def overrides(self, data: Data, recipe: Recipe) -> dict[str, Any]:
        """Return the overrides for a sample. `recipe` is the recipe of the task."""
        if self.backend == "baseline":
            return {}
        epochs = math.ceil(self.steps / steps_per_epoch(data.training, recipe.batch_size))
        chosen = {**self.recipe, "epochs": max(recipe.epochs, epochs)}
        return {f"recipe.{name}": value for name, value in chosen.items()}

    @property
    def title(self) -> str:
        settings = [f"{name} {value:g}" for name, value in self.recipe.items()]
        steps = [f"{self.steps} steps"] if self.steps else []
        return ", ".join([self.model, *settings, *steps])


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Trials that are compared on the same samples."""

    task: str
    trials: Sequence[Trial]
    samples: Mapping[str, Sequence[int]]
    """Numbers of rows of each dataset."""
    draws: int

    def data(self) -> Iterator[Data]:
        for draw in range(self.draws):
            for dataset, sizes in self.samples.items():
                for rows in sizes:
                    yield Data(dataset=dataset, rows=rows, draw=draw)


def _of(model: str, learning_rate: float, dropout: float = 0.5, steps: int = 0) -> Trial:
    return Trial(model=model, recipe={"learning_rate": learning_rate, "dropout": dropout}, steps=steps)


STAGES = {
    "steps": Stage(
        task="nlp",
        trials=[_of("lstm-small", 2e-3, steps=steps) for steps in (0, 100, 300, 1000)],
        samples={"trec": (150,), "sst2": (150,)},
        draws=1,
    ),
    "rates": Stage(
        task="nlp",
        trials=[
            *(
                _of(model, rate, dropout, MIN_STEPS)
                for model in ("lstm", "lstm-small")
                for rate, dropout in ((1e-3, 0.1), (2e-3, 0.5), (4e-3, 0.5))
            ),
            _of("bert-tiny", 1e-3, 0.1, MIN_STEPS),
        ],
        samples={"trec": (150,), "banking77": (1000,)},
        draws=1,
    ),
    "models": Stage(
        task="nlp",
        trials=[
            _of("bert-tiny", 1e-3, 0.1, MIN_STEPS),
            _of("lstm", 2e-3, steps=MIN_STEPS),
            _of("lstm-small", 2e-3, steps=MIN_STEPS),
            Trial(model="tfidf-logreg", backend="baseline"),
        ],
        samples={"trec": (150,), "banking77": (1000, 5000), "sst2": (1000, 5000)},
        draws=1,
    ),
}


def sample(data: Data, folder: Path) -> Path:
    """Write the file with a sample, unless it exists, and return its path."""
    path = folder / f"{data.dataset}-{data.rows}-{data.draw}.csv"
    if path.exists():
        return path
    dataset = discover().dataset(data.dataset)
    raw = dataset.load(dataset.Options())
    split = _joined(raw.train, raw.validation)
    if data.dataset == "sst2":  # Phrases of one sentence must not be in different splits. Use only whole sentences.
        split = split.take(np.unique(sentences(split.inputs["text"])))
    count = round((TRAINING + VALIDATION) * data.rows) + SCORED
    chosen = np.random.default_rng([data.draw, data.rows]).permutation(len(split))[:count]
    part = split.take(np.sort(chosen))
    columns: dict[str, Any] = {}
    if "text" in part.inputs:
        columns["text"] = part.inputs["text"]
    else:
        columns |= dict(zip(raw.feature_names, part.inputs["features"].T, strict=True))
        columns |= dict(zip(raw.category_names, part.inputs.get("categories", np.empty((count, 0))).T, strict=True))
    if part.targets.ndim > 1:
        columns["label"] = part.targets[:, 0]
    else:
        columns["label"] = [raw.label_names[target] for target in part.targets]
    frame = pd.DataFrame(columns)
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path


def _joined(train: Split, validation: Split) -> Split:
    return Split(
        inputs={name: np.concatenate([array, validation.inputs[name]]) for name, array in train.inputs.items()},
        targets=np.concatenate([train.targets, validation.targets]),
    )


def execute(stage: Stage, results: Path) -> Iterator[tuple[Data, Trial, RunRecord]]:
    """Yield the record of each run. Runs that are already in the results directory are not executed again."""
    recipe = discover().task(stage.task).recipe
    for data in stage.data():
        path = sample(data, results / "samples")
        total = round((TRAINING + VALIDATION) * data.rows) + SCORED
        shares = {"test_share": SCORED / total, "validation_share": VALIDATION * data.rows / total}
        for trial in stage.trials:
            overrides = {f"dataset.{name}": value for name, value in shares.items()}
            overrides |= trial.overrides(data, recipe)
            records = harness.run(
                stage.task,
                dataset=path,
                target_column="label",
                model=trial.model,
                backend=trial.backend,
                seed=data.draw,
                threads=1,
                overrides=overrides,
                quality_only=True,
                wait=True,
                results=results,
                progress=False,
            )
            yield data, trial, records[0]


def table(stage: Stage, found: Sequence[tuple[Data, Trial, RunRecord]]) -> str:
    """Return the mean scores in Markdown, with one row per trial and one column per dataset and size."""
    metric = SCORES[stage.task]
    cells: dict[str, dict[str, list[float]]] = {trial.title: {} for trial in stage.trials}
    for data, trial, record in found:
        if isinstance(record.outcome, Success) and (value := record.outcome.scores.test[metric]) is not None:
            cells[trial.title].setdefault(f"{data.dataset} {data.rows:,}", []).append(value)
    names = [f"{dataset} {rows:,}" for dataset, sizes in stage.samples.items() for rows in sizes]
    rows = []
    for title, values in cells.items():
        means = [mean(values[name]) if name in values else None for name in names]
        known = [value for value in means if value is not None]
        shown = ["" if value is None else f"{value:.3f}" for value in means]
        rows.append([title, *shown, f"{mean(known):.3f}" if len(known) == len(names) else ""])
    return tabulate(rows, ["model and settings", *names, "mean"], tablefmt="pipe", disable_numparse=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_data", description=__doc__)
    parser.add_argument("stage", choices=STAGES, help="stage of the protocol")
    parser.add_argument("--results", type=Path, default=Path("results/small-data"), help="results directory")
    options = parser.parse_args()
    stage = STAGES[options.stage]
    found = []
    for data, trial, record in execute(stage, options.results):
        if not isinstance(record.outcome, Success):
            print(f"{record.run_id} failed: {record.outcome}", file=sys.stderr)
            return 1
        score = record.outcome.scores.test[SCORES[stage.task]]
        print(f"{data.dataset} {data.rows} {data.draw}: {trial.title}: {score:.4f}", file=sys.stderr, flush=True)
        found.append((data, trial, record))
    print(table(stage, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
