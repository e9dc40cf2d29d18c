"""Summaries of trials, computed from their records."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.records import EpochEnded, Failure, RunRecord, Trial
from harness.tuning.sampling import Asked
from harness.tuning.study import Objective, TrialSummary

MAX_STEPS = 2**62
"""Upper bound on the number of training steps."""


def summary(
    asked: Asked, record: RunRecord | None, objectives: Sequence[Objective], *, repeated: bool, message: str = ""
) -> TrialSummary:
    """Return the summary of a trial.

    `record` is None if the settings of the trial are invalid. In this case, `message` is the reason. `repeated` is True
    if the record is the result of an earlier trial.
    """
    outcome = None if record is None else record.outcome
    base = TrialSummary(
        number=asked.number,
        state="failed",
        settings=dict(asked.settings),
        values=[],
        epochs=0,
        steps=0,
        planned_steps=0,
        seconds=0.0 if record is None or repeated else round(record.wall_s, 3),
        run_id="" if record is None else record.run_id,
        repeated=repeated,
        message=message or (f"{outcome.kind}: {outcome.message}" if isinstance(outcome, Failure) else ""),
    )
    if record is None or not isinstance(outcome, Trial):
        return base
    values = values_of(outcome, objectives)
    if None in values:
        undefined = objectives[values.index(None)].title
        return msgspec.structs.replace(base, message=f"{undefined} is undefined for these predictions")
    return msgspec.structs.replace(
        base,
        state=outcome.state,
        values=[value for value in values if value is not None],
        epochs=len(outcome.curves),
        steps=0 if repeated else outcome.steps,
        planned_steps=0 if repeated else min(outcome.planned_steps, record.spec.recipe.max_steps or MAX_STEPS),
    )


def values_of(trial: Trial, objectives: Sequence[Objective]) -> list[float | None]:
    """Return the values of the objectives. For a pruned trial, the values after its last epoch are returned."""
    if trial.state == "pruned":
        return [learned(each, trial.curves[-1]) for each in objectives]
    known = {
        "quality": trial.validation.get(trial.metric),
        "loss": trial.curves[-1].validation.get("loss") if trial.curves else None,
        "train_throughput": trial.train_samples_per_s,
        "parameters": None if trial.model is None else float(trial.model.parameters),
    }
    return [known[each.name] for each in objectives]


def learned(objective: Objective, epoch: EpochEnded) -> float | None:
    """Return the value of an objective after an epoch, or None if the value is known only after training."""
    if objective.name == "loss":
        return epoch.validation.get("loss")
    if objective.name != "quality":
        return None
    return next((value for name, value in epoch.validation.items() if name != "loss"), epoch.validation.get("loss"))
