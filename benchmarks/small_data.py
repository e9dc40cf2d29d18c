"""Choice of the default models and recipes for the user's own data: ``python -m benchmarks.small_data``.

``python -m benchmarks.small_data STAGE ...`` executes the runs of each stage whose scores are not in the results
directory, and prints a table of the mean scores. The runs are executed one after another in this process, without
measuring speed, so the framework is imported only once. ``docs/explanation/defaults.md`` contains the protocol, which
was written before the first run, and the tables.

Each run uses a file like one that a user would provide. The file contains rows that were drawn from the publisher's
training split of a dataset, and `harness` divides them at random. For a size of n rows, 0.7 n rows are used for
training and 0.1 n rows for choosing the best epoch, as for the user's own data by default. The score is computed from
additional rows of the training split. The published test splits are not used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
from harness_nlp.datasets.sst2 import sentences
from tabulate import tabulate

from harness import Recipe, RunSpec, Split, Success
from harness.data.batches import steps_per_epoch
from harness.execute.child import ChildContext
from harness.execute.worker import RunJob, carry_out
from harness.plan.expand import expand
from harness.plan.overrides import as_overrides
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog

TRAINING, VALIDATION = 0.7, 0.1
"""Default fractions of the user's rows in the training and validation splits."""
SCORED = 900
"""Number of additional rows from which the score is computed."""
SHORT = {"task.max_length": 24}
"""Maximum length of the texts in tokens, which limits the cost."""
SCORES = {"nlp": "accuracy", "regression": "r2", "tabular": "accuracy"}
"""Metric shown in the tables, by task."""


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
    draws: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Overrides for all runs."""

    def data(self) -> Iterator[Data]:
        for draw in range(self.draws):
            for dataset, sizes in self.samples.items():
                for rows in sizes:
                    yield Data(dataset=dataset, rows=rows, draw=draw)


def _of(model: str, learning_rate: float, dropout: float, steps: int) -> Trial:
    return Trial(model=model, recipe={"learning_rate": learning_rate, "dropout": dropout}, steps=steps)


SETTINGS = ((1e-3, 0.1), (2e-3, 0.5), (4e-3, 0.5))
"""Learning rates and dropout probabilities of the LSTM models. The first values are the defaults of the task."""
STAGES = {
    "steps": Stage(
        task="nlp",
        trials=[_of("lstm-small", 2e-3, 0.5, steps) for steps in (0, 100, 300)],
        samples={"trec": (150,)},
    ),
    "models": Stage(
        task="nlp",
        trials=[
            *(_of(model, *setting, 300) for model in ("lstm", "lstm-small") for setting in SETTINGS),
            _of("bert-tiny", 1e-3, 0.1, 300),
            _of("lstm-small", 2e-3, 0.5, 1000),
            Trial(model="tfidf-logreg", backend="baseline"),
        ],
        samples={"trec": (150,), "banking77": (1000, 5000)},
        overrides=SHORT,
    ),
    "tables": Stage(
        task="regression",
        trials=[
            *(Trial(model=model, steps=steps) for steps in (0, 300, 1000) for model in ("linear", "mlp")),
            *(Trial(model=model, backend="baseline") for model in ("ridge", "gradient-boosting")),
        ],
        samples=dict.fromkeys(("california-housing", "uci-kin8nm", "uci-power"), (150, 1000, 5000)),
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
    for name, array in part.inputs.items():
        columns |= {name: array} if array.ndim == 1 else {f"{name}_{n}": each for n, each in enumerate(array.T)}
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


def specs(stage: Stage, catalog: Catalog, results: Path) -> Iterator[tuple[Data, Trial, RunSpec]]:
    """Yield the specification of each run of a stage."""
    recipe = catalog.task(stage.task).recipe
    for data in stage.data():
        path = sample(data, results)
        total = round((TRAINING + VALIDATION) * data.rows) + SCORED
        shares = {"test_share": SCORED / total, "validation_share": VALIDATION * data.rows / total}
        for trial in stage.trials:
            overrides = {f"dataset.{name}": value for name, value in {"target_column": "label", **shares}.items()}
            selection = Selection(
                tasks=(stage.task,),
                datasets=(str(path),),
                models=(trial.model,),
                backends=(trial.backend,),
                seeds=(data.draw,),
                threads=1,
                overrides=as_overrides({**overrides, **stage.overrides, **trial.overrides(data, recipe)}),
            )
            (spec,) = expand(selection, catalog)
            yield data, trial, spec


def scores(spec: RunSpec, catalog: Catalog) -> dict[str, float | None]:
    """Execute a run in this process, and return its scores. Raises `RuntimeError` if the run fails."""
    job = RunJob(spec=spec, plugins=catalog.refs_for(spec), quality_only=True)
    with tempfile.TemporaryDirectory() as folder:
        outcome = carry_out(job, ChildContext(Path(folder), lambda event: None, lambda result: None)).outcome
    if not isinstance(outcome, Success):
        raise RuntimeError(f"the run failed: {outcome}")
    return dict(outcome.scores.test)


def table(stage: Stage, found: Sequence[tuple[Data, Trial, float]]) -> str:
    """Return the mean scores in Markdown, with one row per trial and one column per dataset and size."""
    cells: dict[str, dict[str, list[float]]] = {trial.title: {} for trial in stage.trials}
    for data, trial, score in found:
        cells[trial.title].setdefault(f"{data.dataset} {data.rows:,}", []).append(score)
    names = [f"{dataset} {rows:,}" for dataset, sizes in stage.samples.items() for rows in sizes]
    rows = [
        [title, *(f"{mean(values[name]):.3f}" if name in values else "" for name in names)]
        for title, values in cells.items()
        if values
    ]
    return tabulate(rows, ["model and settings", *names], tablefmt="pipe", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_data", description=__doc__)
    parser.add_argument("stages", nargs="+", choices=STAGES, metavar="STAGE", help=f"{', '.join(STAGES)}")
    parser.add_argument("--results", type=Path, default=Path(".benchmarks/small-data"), help="directory for results")
    parser.add_argument(
        "--stored", action="store_true", help="print the scores of previous runs without executing any runs"
    )
    options = parser.parse_args()
    catalog = discover()
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.stages:
        stage, found = STAGES[name], []
        for data, trial, spec in specs(stage, catalog, options.results):
            path = options.results / f"{spec.key}.json"
            if not path.exists():
                if options.stored:
                    continue
                path.write_text(json.dumps(scores(spec, catalog)))
            score = json.loads(path.read_text())[SCORES[stage.task]]
            print(f"{data.dataset} {data.rows} {data.draw}: {trial.title}: {score:.4f}", file=sys.stderr, flush=True)
            found.append((data, trial, score))
        print(f"{table(stage, found)}\n")


if __name__ == "__main__":
    main()
