"""Charts of a ``harness tune`` study: the history of the trials or the Pareto front, and the importances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt

from harness.report.tuning import importance, short_names, shown
from harness.tuning.study import Study

_HEIGHT = 220


def charts(study: Study) -> Iterator[tuple[str, Any]]:
    """Yield the titles and charts for which the study has data."""
    if len(study.objectives) == 1:
        if points := _history(study):
            yield "History of the trials", _history_chart(study, points)
    elif points := _front(study):
        yield "Pareto front of the trials", _front_chart(study, points)
    if study.importance:
        rows = [{"setting": name, "importance": share} for name, share in importance(study).items()]
        yield f"Importance for {study.objectives[0].title}", _importance_chart(rows)


def _history(study: Study) -> list[dict[str, Any]]:
    """Return a point for each trial that has a value. Each point also contains the best value among the trials
    completed so far."""
    better = max if study.objectives[0].higher_is_better else min
    best: float | None = None
    points = []
    for trial in study.trials:
        if not trial.values:
            continue
        value = trial.values[0]
        if trial.state == "complete":
            best = value if best is None else better(best, value)
        points.append({**_described(study, trial.number), "state": trial.state, "value": value, "best": best})
    return points


def _front(study: Study) -> list[dict[str, Any]]:
    return [
        {
            **_described(study, trial.number),
            "state": "on the front" if trial.number in study.best else "other",
            "x": trial.values[1],
            "value": trial.values[0],
        }
        for trial in study.trials
        if len(trial.values) > 1
    ]


def _described(study: Study, number: int) -> dict[str, Any]:
    settings = study.trial(number).settings
    text = ", ".join(f"{short} {shown(settings.get(name))}" for name, short in short_names(study).items())
    return {"trial": number, "settings": text}


def _history_chart(study: Study, points: list[dict[str, Any]]) -> Any:
    base = alt.Chart(alt.InlineData(values=points))
    title = _title(study, 0)
    x = alt.X("trial:Q", title="trial", axis=alt.Axis(tickMinStep=1))
    dots = base.mark_point(size=40).encode(
        x=x,
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        shape=alt.Shape("state:N", title=None, sort=["complete", "pruned"]),
        opacity=alt.condition("datum.state === 'complete'", alt.value(1), alt.value(0.45)),
        tooltip=_tooltip(title),
    )
    line = (
        base.transform_filter("isValid(datum.best)")
        .mark_line(interpolate="step-after", strokeWidth=1.75)
        .encode(x=x, y=alt.Y("best:Q"))
    )
    return alt.layer(line, dots).properties(width="container", height=_HEIGHT)


def _front_chart(study: Study, points: list[dict[str, Any]]) -> Any:
    scale = alt.Scale(zero=False)
    return (
        alt.Chart(alt.InlineData(values=points))
        .mark_point(size=40)
        .encode(
            x=alt.X("x:Q", title=_title(study, 1), scale=scale),
            y=alt.Y("value:Q", title=_title(study, 0), scale=scale),
            shape=alt.Shape("state:N", title=None),
            opacity=alt.condition("datum.state === 'on the front'", alt.value(1), alt.value(0.45)),
            tooltip=[*_tooltip(_title(study, 0)), alt.Tooltip("x:Q", title=_title(study, 1), format=".4~g")],
        )
        .properties(width="container", height=_HEIGHT)
    )


def _importance_chart(rows: list[dict[str, Any]]) -> Any:
    return (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(cornerRadiusEnd=3, height={"band": 0.7})
        .encode(
            x=alt.X("importance:Q", title="importance", axis=alt.Axis(format="%")),
            y=alt.Y("setting:N", title=None, sort=None),
            tooltip=[alt.Tooltip("setting:N"), alt.Tooltip("importance:Q", format=".1%")],
        )
        .properties(width="container", height=_HEIGHT)
    )


def _title(study: Study, place: int) -> str:
    objective = study.objectives[place]
    return f"{objective.title} ({objective.unit})" if objective.unit else objective.title


def _tooltip(title: str) -> list[Any]:
    return [
        alt.Tooltip("trial:Q"),
        alt.Tooltip("state:N"),
        alt.Tooltip("settings:N"),
        alt.Tooltip("value:Q", title=title, format=".4~g"),
    ]
