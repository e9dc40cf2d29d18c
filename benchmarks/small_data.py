"""Choice of the default models and recipes for the user's own data: ``python -m benchmarks.small_data``.

``python -m benchmarks.small_data STAGE ...`` executes the runs of the listed stages, except for runs whose scores are
already in the results directory. The command then prints a table of the mean scores and a table of the differences from
the first listed trial. Both tables contain standard errors over draws. The runs are executed one after another in this
process, without measuring speed, so the framework is imported only once. ``docs/explanation/defaults.md`` contains the
protocol, which was written before the first run, and the tables.

Each run uses a sample that resembles a user's own data. The sample consists of rows drawn from the publisher's training
split of a dataset, and `harness` divides these rows at random. For a size of n rows, 0.7 n rows are used for training,
and 0.1 n rows are used to choose the best epoch. These fractions are also the defaults for the user's own data. The
score is computed from additional rows of the publisher's training split. The published test splits are not used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from tabulate import tabulate

from harness import RawData, Recipe, RunSpec, Split, Success, save_data
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
"""Number of additional rows used to compute the score."""
LENGTHS = {"trec": 24, "banking77": 24, "sms-spam": 24, "imdb": 128}
"""Maximum number of tokens per text, keyed by dataset. This limit reduces the cost of the runs."""
SCORES = {"nlp": "accuracy", "regression": "r2", "vision": "accuracy", "speech": "accuracy"}
"""Metric shown in the tables, by task."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """A sample of a dataset."""

    dataset: str
    rows: int
    """Nominal number of rows. Training and validation together use 80% of this number."""
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
    """Minimum number of steps. Unless `recipe` sets the number of epochs, there are at least as many epochs as in the
    task's recipe."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "torch"

    def overrides(self, data: Data, recipe: Recipe) -> dict[str, Any]:
        """Return the overrides for a sample. `recipe` contains the default settings of the sample's task."""
        if self.backend == "baseline":
            return {}
        epochs = math.ceil(self.steps / steps_per_epoch(data.training, recipe.batch_size))
        chosen = {"epochs": max(recipe.epochs, epochs), **self.recipe}
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
    samples: Mapping[str, Mapping[int, int]]
    """Number of samples to draw, keyed by dataset and number of rows."""

    def data(self) -> list[Data]:
        """Return the samples. The first draw for every dataset and size precedes all second draws."""
        every = [
            Data(dataset=dataset, rows=rows, draw=draw)
            for dataset, sizes in self.samples.items()
            for rows, draws in sizes.items()
            for draw in range(draws)
        ]
        return sorted(every, key=lambda data: data.draw)


def _of(model: str, learning_rate: float, dropout: float, steps: int) -> Trial:
    return Trial(model=model, recipe={"learning_rate": learning_rate, "dropout": dropout}, steps=steps)


SETTINGS = ((4e-3, 0.5), (2e-3, 0.5), (1e-3, 0.1))
"""Learning rates and dropout probabilities of the LSTM models. The first pair contains the defaults of the LSTM models,
and the last pair contains the values of the task's recipe."""
TEXTS = {"trec": {150: 3, 1000: 2}, "banking77": {1000: 2, 5000: 2}, "sms-spam": {1000: 1}, "imdb": {1000: 1}}
"""Number of samples to draw from the text datasets, keyed by dataset and number of rows."""
TABLES = ("california-housing", "uci-kin8nm", "uci-power")
STAGES = {
    "models": Stage(
        task="nlp",
        trials=[
            *(_of(model, *setting, 1000) for model in ("lstm-small", "lstm") for setting in SETTINGS),
            _of("bert-tiny", 1e-3, 0.1, 1000),
            Trial(model="tfidf-logreg", backend="baseline"),
        ],
        samples=TEXTS,
    ),
    "steps": Stage(
        task="nlp",
        trials=[_of("lstm-small", *SETTINGS[0], steps) for steps in (1000, 300, 100, 0)],
        samples=TEXTS,
    ),
    "reviews": Stage(
        task="nlp",
        trials=[
            _of("lstm-small", *SETTINGS[0], 1000),
            _of("lstm", *SETTINGS[0], 1000),
            _of("lstm", *SETTINGS[-1], 1000),
            _of("bert-tiny", 1e-3, 0.1, 1000),
            Trial(model="tfidf-logreg", backend="baseline"),
        ],
        samples={"imdb": {10_000: 1}},
    ),
    "tables": Stage(
        task="regression",
        trials=[
            *(Trial(model=model, steps=steps) for model in ("mlp", "linear") for steps in (1000, 300, 0)),
            *(Trial(model=model, backend="baseline") for model in ("ridge", "gradient-boosting")),
        ],
        samples={table: {150: 3, 1000: 3, 5000: 2} for table in TABLES},
    ),
    "images": Stage(
        task="vision",
        trials=[
            *(Trial(model="resnet-20", steps=steps) for steps in (300, 1000, 0)),
            Trial(model="resnet-20", recipe={"epochs": 10}),  # 100 steps
        ],
        samples={"fashion-mnist": {1000: 3}},
    ),
    "recordings": Stage(
        task="speech",
        trials=[
            *(Trial(model="wav2vec2-tiny", steps=steps) for steps in (300, 1000, 0)),
            Trial(model="wav2vec2-tiny", recipe={"epochs": 8}),  # 104 steps
        ],
        samples={"fsdd": {600: 3}},
    ),
}


@cache
def loaded(dataset: str) -> RawData:
    """Return the raw data of a dataset with its default options."""
    found = discover().dataset(dataset)
    return found.load(found.Options())


def sample(data: Data) -> Path:
    """Save a sample in the cache, unless it is already there, and return its path."""
    raw = loaded(data.dataset)
    split = _joined(raw.train, raw.validation)
    count = round((TRAINING + VALIDATION) * data.rows) + SCORED
    chosen = np.random.default_rng([data.draw, data.rows]).permutation(len(split))[:count]
    part = split.take(np.sort(chosen))
    columns: dict[str, Any] = {}
    for name, array in part.inputs.items():
        if name == "waveform":
            columns |= {"audio": list(array), "sample_rate": raw.details["sample_rate_hz"]}
        elif name in ("image", "text"):
            columns[name] = array
        else:
            columns |= {f"{name}_{n}": each for n, each in enumerate(array.T)}
    if part.targets.ndim > 1:
        columns["label"] = part.targets[:, 0]
    else:
        columns["label"] = [raw.label_names[target] for target in part.targets]
    return save_data(columns, f"{data.dataset}-{data.rows}-{data.draw}")


def _joined(train: Split, validation: Split) -> Split:
    return Split(
        inputs={name: np.concatenate([array, validation.inputs[name]]) for name, array in train.inputs.items()},
        targets=np.concatenate([train.targets, validation.targets]),
    )


def specs(stage: Stage, catalog: Catalog) -> Iterator[tuple[Data, Trial, RunSpec]]:
    """Yield the specification of each run of a stage."""
    recipe = catalog.task(stage.task).recipe
    for data in stage.data():
        path = sample(data)
        total = round((TRAINING + VALIDATION) * data.rows) + SCORED
        shares = {"test_share": SCORED / total, "validation_share": VALIDATION * data.rows / total}
        for trial in stage.trials:
            overrides = {f"dataset.{name}": value for name, value in {"target_column": "label", **shares}.items()}
            if data.dataset in LENGTHS:
                overrides["task.max_length"] = LENGTHS[data.dataset]
            selection = Selection(
                tasks=(stage.task,),
                datasets=(str(path),),
                models=(trial.model,),
                backends=(trial.backend,),
                seeds=(data.draw,),
                threads=1,
                overrides=as_overrides({**overrides, **trial.overrides(data, recipe)}),
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


def tables(stage: Stage, found: Sequence[tuple[Data, Trial, float]]) -> Iterator[str]:
    """Yield Markdown tables of the mean scores and of the differences from the first trial, with standard errors over
    draws.

    Each table has one row per trial, and one column per dataset and size. Only draws for which all trials have a score
    are used. If there are none, only the first draw is used.
    """
    values = {(trial.title, data): score for data, trial, score in found}
    first, *others = titles = [trial.title for trial in stage.trials]
    columns: dict[str, list[Data]] = {}
    for dataset, sizes in stage.samples.items():
        for rows in sizes:
            draws = [data for data in stage.data() if (data.dataset, data.rows) == (dataset, rows)]
            used = [data for data in draws if all((title, data) in values for title in titles)] or draws[:1]
            columns[f"{dataset} {rows:,} ({len(used)} draw{'s' if len(used) > 1 else ''})"] = used

    drawn = columns.values()

    def table(corner: str, scores: Mapping[tuple[str, Data], float], shown: Sequence[str]) -> str:
        rows = [
            [title, *(summary([scores[title, data] for data in used if (title, data) in scores]) for used in drawn)]
            for title in shown
        ]
        return tabulate(rows, [corner, *columns], tablefmt="pipe", disable_numparse=True)

    yield table("model and settings", values, titles)
    differences = {
        (title, data): score - values[first, data] for (title, data), score in values.items() if (first, data) in values
    }
    yield table(f"difference from {first}", differences, others)


def summary(values: Sequence[float]) -> str:
    """Return the mean and, for at least two values, its standard error."""
    if len(values) < 2:
        return "".join(f"{value:.3f}" for value in values)
    return f"{mean(values):.3f} ± {stdev(values) / math.sqrt(len(values)):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_data", description=__doc__)
    parser.add_argument("stages", nargs="+", choices=STAGES, metavar="STAGE", help=f"{', '.join(STAGES)}")
    parser.add_argument("--results", type=Path, default=Path(".benchmarks/small-data"), help="directory for results")
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="start no new runs after this many minutes; 0 only prints stored scores",
    )
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    catalog = discover()
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.stages:
        stage, found = STAGES[name], []
        for data, trial, spec in specs(stage, catalog):
            path = options.results / f"{spec.key}.json"
            if not path.exists():
                if time.monotonic() >= end:
                    continue
                path.write_text(json.dumps(scores(spec, catalog)))
            score = json.loads(path.read_text())[SCORES[stage.task]]
            print(f"{data.dataset} {data.rows} {data.draw}: {trial.title}: {score:.4f}", file=sys.stderr, flush=True)
            found.append((data, trial, score))
        print("\n\n".join(tables(stage, found)), end="\n\n")


if __name__ == "__main__":
    main()
