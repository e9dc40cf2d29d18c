"""Permutation importance of the columns of a table, computed with a run's trained model.

The importance of a column is the decrease in the score when the values of the column are permuted among the examples
(Breiman 2001, Machine Learning 45, 5-32). It is computed by scikit-learn's `permutation_importance`. The columns are
those of the original table. The values are permuted before the table is encoded, so all columns that encode the same
original column, such as the one-hot columns of a category or the parts of a date, are permuted together.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from harness.deploy.explanations import ColumnImportance, PermutationImportance
from harness.deploy.predict import ModelJob, model_job, opened_model, split_of
from harness.errors import CombinationError, DataError, HarnessError, UnknownNameError, UsageError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import load_and_prepare
from harness.execute.variables import child_environment
from harness.plan.weights import check_servable
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.records import Failure
from harness.records.store import StoredRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.interfaces import PreparedData, RawData, Split
    from harness.measure.quality.scorer import Scorer

SplitName = Literal["test", "validation"]
Places = list[tuple[str, int]]
"""Input name and position of each array column, such as ``("features", 3)``."""


class ImportanceJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that computes a permutation importance."""

    model: ModelJob
    split: SplitName
    metric: str
    repeats: int
    seed: int
    together: tuple[tuple[str, ...], ...]
    """Columns that are permuted together."""


def permutation_importance(
    run: StoredRun,
    catalog: Catalog,
    *,
    split: SplitName = "test",
    metric: str | None = None,
    repeats: int = 10,
    seed: int = 0,
    together: Sequence[Sequence[str]] = (),
    backend: str | None = None,
    device: str = "auto",
    timeout_s: float = 3600.0,
) -> PermutationImportance:
    """Return the permutation importance of each column of a run's table.

    By default, `metric` is the run's primary metric, and the run's backend computes the predictions. Raises
    `harness.UsageError` if the run or the metric cannot be used or a column does not exist, and `harness.HarnessError`
    if the data differ from the run's data or the backend fails.
    """
    outcome = check_servable(run)
    record = run.record
    if record.provenance.data is None or catalog.task(record.spec.task).kind != "table":
        raise CombinationError(
            f"permutation importance requires a table, but run {record.run_id!r} belongs to the task "
            f"{record.spec.task!r}; use --method integrated-gradients"
        )
    known = [name for name, value in outcome.scores.test.items() if value is not None]
    if metric is not None and metric not in known:
        raise UnknownNameError("metric", metric, known, hint=f"(of run {record.run_id})")
    model = model_job(run, catalog, record.provenance.data, backend=backend, device=device)
    with tempfile.TemporaryDirectory(prefix="harness-explain-") as scratch:
        found = call_in_child(
            compute,
            ImportanceJob(
                model=model,
                split=split,
                metric=metric or outcome.scores.primary,
                repeats=repeats,
                seed=seed,
                together=tuple(tuple(names) for names in together),
            ),
            timeout_s=timeout_s,
            environment=child_environment(model.spec),
            interpreter=interpreter(model.spec.env),
            directory=Path(scratch),
            limit_option="--timeout",
            raise_usage_errors=True,
        )
    if isinstance(found, Failure):
        raise HarnessError(f"computing the permutation importance of run {record.run_id!r} failed: {found.message}")
    return msgspec.structs.replace(found, run=record.run_id)


def compute(job: ImportanceJob, context: ChildContext) -> PermutationImportance:
    """Compute a permutation importance in a child process."""
    from sklearn.inspection import permutation_importance as by_sklearn

    from harness.measure.inference import predict
    from harness.measure.quality.scorer import scorer

    with opened_model(job.model) as (prepared, session):
        spec, catalog = prepared.spec, prepared.catalog
        raw, data = run_data(job.model, catalog)
        part: Split = getattr(raw, job.split)
        targets = getattr(data, job.split).targets
        names = list(units(original_columns(raw, data.reading), job.together))
        places = list(units(original_columns(raw, data.reading), job.together).values())
        task, metric = catalog.task(spec.task), catalog.metric(job.metric)
        options = msgspec.convert(spec.task_options, task.Options)
        judge: Scorer = scorer(data.info, metric.name, [metric])
        sign = 1 if judge.higher_is_better else -1

        def score(_: Any, rows: NDArray[Any], expected: NDArray[Any]) -> float:
            """Return the score. Column u of `rows` contains the row from which each example takes the columns of unit
            u."""
            inputs = task.transform(with_rows(part.inputs, places, rows), raw.details, data.fitted, data.info, options)
            outputs = predict(session, split_of(inputs, data.info), spec.recipe.batch_size, data.info.outputs)
            value = judge.score(expected, outputs)[metric.name]
            if value is None:
                raise UsageError(
                    f"the metric {metric.name!r} is undefined for the {job.split} split; "
                    "choose another metric with --metric"
                )
            return sign * value

        rows = np.repeat(np.arange(len(part))[:, None], len(places), axis=1)
        base = score(None, rows, targets)
        found = by_sklearn(
            _Fitted(), rows, targets, scoring=score, n_repeats=job.repeats, random_state=job.seed, n_jobs=1
        )
    columns = [_column(name, values) for name, values in zip(names, found.importances, strict=True)]
    return PermutationImportance(
        run="",
        split=job.split,
        examples=len(part),
        metric=metric.name,
        higher_is_better=judge.higher_is_better,
        score=sign * base,
        repeats=job.repeats,
        seed=job.seed,
        backend=spec.backend,
        device=prepared.device.name,
        columns=columns,
    )


class _Fitted:
    """Placeholder for the estimator that scikit-learn requires."""

    def fit(self) -> None: ...


def run_data(model: ModelJob, catalog: Catalog) -> tuple[RawData, PreparedData]:
    """Return the raw and the prepared data of a run, in a child process.

    Raises `harness.DataError` if the data differ from the data on which the model was trained.
    """
    from harness.data.user_files.dataset import dataset_of

    spec = model.spec
    raw, data = load_and_prepare(
        catalog.task(spec.task), dataset_of(spec, catalog), spec.dataset_options, spec.task_options
    )
    assert spec.weights is not None
    if data.digest != spec.weights.dataset_digest:
        raise DataError(
            f"the data differ from those of run {spec.weights.run!r}; restore that version of the data, or train again"
        )
    return raw, data


def original_columns(raw: RawData, reading: Mapping[str, Any]) -> dict[str, Places]:
    """Return the inputs and positions of each column of the table. The parts of a date belong to one column.

    Columns without names are numbered from 0.
    """
    inputs = raw.train.inputs
    dates = {f"{name} ({part})": name for name, parts in reading.get("dates", {}).items() for part in parts}
    found: dict[str, Places] = {}
    named = {"features": raw.feature_names, "categories": raw.category_names or tuple(reading.get("categories", ()))}
    for kind, names in named.items():
        count = inputs[kind].shape[1] if kind in inputs else 0
        known = names if len(names) == count else [f"{kind} {number}" for number in range(count)]
        for number, name in enumerate(known):
            found.setdefault(dates.get(name, name), []).append((kind, number))
    return found


def units(columns: Mapping[str, Places], together: Sequence[Sequence[str]]) -> dict[tuple[str, ...], Places]:
    """Return the columns that are permuted together, keyed by their names.

    Each tuple of columns in `together` forms one unit. All other columns are permuted separately. Raises
    `harness.UnknownNameError` if a column does not exist, and `harness.UsageError` if a column belongs to two units.
    """
    first: dict[str, tuple[str, ...]] = {}
    for names in together:
        for name in names:
            if name not in columns:
                raise UnknownNameError("column", name, columns)
            if name in first:
                raise UsageError(f"column {name!r} is listed twice in --together; list each column once")
            first[name] = tuple(names)
    keys = dict.fromkeys(first.get(name, (name,)) for name in columns)
    return {key: [place for name in key for place in columns[name]] for key in keys}


def with_rows(
    inputs: Mapping[str, NDArray[Any]], places: Sequence[Places], rows: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Return a copy of `inputs` in which the columns of unit u are taken from the rows ``rows[:, u]``."""
    found = {name: np.array(array) for name, array in inputs.items()}
    for unit, columns in enumerate(places):
        for name, position in columns:
            found[name][:, position] = inputs[name][rows[:, unit], position]
    return found


def _column(names: tuple[str, ...], values: NDArray[Any]) -> ColumnImportance:
    mean, interval = float(values.mean()), None
    if len(values) > 1:
        from scipy.stats import t

        reach = float(t.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
        interval = mean - reach, mean + reach
    return ColumnImportance(
        columns=names, importance=mean, std=float(values.std()), interval=interval, values=values.tolist()
    )
