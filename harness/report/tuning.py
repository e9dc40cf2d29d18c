"""Studies of ``harness tune``, formatted as text: trials, best settings, importance, cost and confirmation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis.compare.effects import MIN_RUNS, of_pairs
from harness.analysis.formatting import one_line
from harness.records import RunRecord, Success
from harness.tuning.space import as_text
from harness.tuning.study import DEFAULT, Study, TrialSummary


def render(study: Study, records: Mapping[str, RunRecord]) -> str:
    """Return a study as text. `records` maps run ids to the records of the runs that confirm the settings."""
    parts = [
        heading(study),
        _grid(headers(study), rows(study)),
        *best(study),
        *cost(study),
        *confirmation(study, records),
    ]
    return "\n".join(parts) + "\n"


def heading(study: Study) -> str:
    spec = study.spec
    names = " · ".join([spec.task, spec.dataset, spec.model, spec.backend, f"seed {spec.seed}"])
    return f"Study {study.name} ({names}; sampler {study.sampler}, pruner {study.pruner})"


def headers(study: Study) -> list[str]:
    objectives = [f"{each.title} ({each.unit})" if each.unit else each.title for each in study.objectives]
    return ["trial", "state", *short_names(study).values(), *objectives, "epochs", "steps", "seconds"]


def rows(study: Study) -> list[list[Any]]:
    """Return a row for each trial. The best trials are marked with ``*``."""
    return [
        [
            f"{each.number} *" if each.number in study.best else f"{each.number}",
            f"{each.state}, as before" if each.repeated else each.state,
            *(shown(each.settings.get(name)) for name in short_names(study)),
            *(_values(each, len(study.objectives))),
            each.epochs,
            each.steps,
            f"{each.seconds:.1f}",
        ]
        for each in study.trials
    ]


def _values(trial: TrialSummary, count: int) -> list[str]:
    return [f"{value:.4g}" for value in trial.values] or ["–"] * count


def short_names(study: Study) -> dict[str, str]:
    """Return the name shown in tables for each tuned setting. The section, such as ``recipe``, is omitted if the names
    are unambiguous without it."""
    names = [text.partition("=")[0] for text in study.search]
    short = [name.partition(".")[2] for name in names]
    return dict(zip(names, short if len(set(short)) == len(short) else names, strict=True))


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else as_text(value)


def best(study: Study) -> list[str]:
    """Return the lines that list the best settings or, with several objectives, the settings on the Pareto front."""
    if not study.best:
        return ["No trial was completed."]
    several = len(study.objectives) > 1
    lines = ["Pareto front:"] if several else []
    for number in study.best:
        trial = study.trial(number)
        values = ", ".join(
            f"{objective.title} {value:.4g}" for objective, value in zip(study.objectives, trial.values, strict=True)
        )
        settings = " ".join(f"--set {name}={as_text(value)}" for name, value in trial.settings.items())
        lines.append(f"{'  ' if several else 'Best: '}trial {number}, {values}: {settings}")
    if study.importance:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in importance(study).items())
        lines.append(f"Importance for {study.objectives[0].title}: {parts}")
    return lines


def importance(study: Study) -> dict[str, float]:
    """Return the importance of each setting, in descending order. The keys are the names of the settings as shown in
    tables."""
    names = short_names(study)
    ordered = sorted(study.importance.items(), key=lambda item: -item[1])
    return {names.get(name, name): share for name, share in ordered}


def cost(study: Study) -> list[str]:
    """Return the lines that describe the cost of the study."""
    states = ", ".join(f"{study.count(state)} {state}" for state in ("complete", "pruned", "failed"))
    repeated = sum(each.repeated for each in study.trials)
    again = f"; {repeated} not executed, because their settings had already been tried" if repeated else ""
    lines = [f"Cost: {len(study.trials)} trials ({states}{again}), {study.steps} steps, {study.seconds:.1f} s"]
    if study.saved_steps:
        total = study.steps + study.saved_steps
        share = study.saved_steps / total
        lines.append(f"Pruning saved {study.saved_steps} of {total} steps ({share:.0%})")
    failed = [each for each in study.trials if each.message]
    lines += [one_line(f"Trial {each.number} failed: {each.message}", limit=300) for each in failed[:10]]
    return lines


def confirmation(study: Study, records: Mapping[str, RunRecord]) -> list[str]:
    """Return a line for each confirmed trial. The line compares the trial's settings with the default settings by their
    scores on fresh seeds."""
    lines = []
    base = _scores(study.confirmed.get(DEFAULT, []), records)
    for number, ids in study.confirmed.items():
        if number == DEFAULT:
            continue
        own = _scores(ids, records)
        for split in ("validation", "test"):
            seeds = [seed for seed in base if seed in own and split in base[seed] and split in own[seed]]
            if seeds:
                pairs = [(base[seed][split], own[seed][split]) for seed in seeds]
                lines.append(f"Trial {number} on fresh seeds, {split} {_metric(ids, records)}: {_difference(pairs)}")
    return lines


def _scores(ids: Sequence[str], records: Mapping[str, RunRecord]) -> dict[int, dict[str, float]]:
    """Return the primary metric's value for each successful run, by seed and split."""
    found: dict[int, dict[str, float]] = {}
    for run_id in ids:
        outcome = records[run_id].outcome if run_id in records else None
        if isinstance(outcome, Success):
            scores = {"validation": outcome.scores.validation, "test": outcome.scores.test}
            values = {split: each.get(outcome.scores.primary) for split, each in scores.items()}
            seed = records[run_id].spec.seed
            found[seed] = {split: value for split, value in values.items() if value is not None}
    return found


def _metric(ids: Sequence[str], records: Mapping[str, RunRecord]) -> str:
    outcomes = [records[run_id].outcome for run_id in ids if run_id in records]
    return next(outcome.scores.primary for outcome in outcomes if isinstance(outcome, Success))


def _difference(pairs: Sequence[tuple[float, float]]) -> str:
    means = [sum(side) / len(pairs) for side in zip(*pairs, strict=True)]
    text = f"default {means[0]:.4g}, tuned {means[1]:.4g}"
    differences = [new - old for old, new in pairs]
    if len(pairs) < MIN_RUNS:
        return f"{text}, difference {means[1] - means[0]:+.4g} (no interval; at least {MIN_RUNS} seeds are required)"
    effect = of_pairs(differences, 0.95)
    return (
        f"{text}, difference {effect.value:+.4g} (95% interval {effect.low:+.4g} to {effect.high:+.4g}, paired over "
        f"{len(pairs)} seeds)"
    )


def _grid(titles: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    from tabulate import tabulate

    return tabulate(lines, headers=titles, tablefmt="simple", disable_numparse=True)
