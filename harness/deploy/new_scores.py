"""Scores of predictions for new data that have labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.data.user_files.new_data import NewData
from harness.deploy.predictions import names_of
from harness.measure.quality.scorer import scorer
from harness.plugins.catalog import Catalog
from harness.records import DataInfo, RunSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NewScores(NamedTuple):
    """Scores of predictions for new data."""

    values: dict[str, float | None]
    """Values of the task's metrics by name, starting with the primary metric. Empty if no example has a known label."""
    examples: int
    """Number of examples that were scored."""
    warnings: tuple[str, ...] = ()
    """Messages about examples that were not scored."""


def new_scores(
    new: NewData, outputs: NDArray[Any], info: DataInfo, spec: RunSpec, catalog: Catalog
) -> NewScores | None:
    """Return the scores for the examples of `new` whose labels or target values are known, or None if the data have no
    labels. `outputs` are logits ``[N, C]`` or standardized values ``[N, T]``.

    Raises the same errors as `harness.measure.quality.scorer.Scorer`.
    """
    if new.labels is not None:
        numbers = {name: number for number, name in enumerate(names_of(info))}
        targets = np.array([numbers.get(label, -1) if label is not None else -1 for label in new.labels], np.int64)
        known: NDArray[np.bool_] = np.asarray(targets >= 0)
        unknown = {label for label in new.labels if label is not None and label not in numbers}
    elif new.numbers:
        values = np.array(list(new.numbers.values()), np.float64).T
        known, unknown = np.asarray(np.isfinite(values).all(axis=1)), set[str]()
        mean, scale = np.array(info.target_mean or (0.0,)), np.array(info.target_scale or (1.0,))
        targets = (values - mean) / scale
    else:
        return None
    missing = "the label is missing" if new.labels is not None else "a target value is missing or is not a number"
    warnings = _warnings(len(known), int(known.sum()), sorted(unknown), missing)
    if not known.any():
        return NewScores({}, 0, warnings)
    primary = catalog.primary_metric(spec)
    metrics = {metric.name: metric for metric in (primary, *catalog.metrics_of(spec))}
    found = scorer(info, primary.name, list(metrics.values())).score(targets[known], outputs[known])
    return NewScores(found, int(known.sum()), warnings)


def described(scores: NewScores) -> str:
    """Return the scores as a line of text."""
    known = [f"{name} {value:.4g}" for name, value in scores.values.items() if value is not None]
    return f"scores of {scores.examples:,} {'example' if scores.examples == 1 else 'examples'}: {', '.join(known)}"


def _warnings(examples: int, scored: int, unknown: Sequence[str], missing: str) -> tuple[str, ...]:
    """Return a warning about examples without a score. `missing` is the reason if there are no `unknown` labels."""
    if scored == examples:
        return ()
    names = ", ".join(map(repr, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
    left = examples - scored
    reason = f"the label is missing or is not a class of the model ({names})" if unknown else missing
    return (f"{left:,} of {examples:,} examples {'was' if left == 1 else 'were'} not scored, because {reason}",)
