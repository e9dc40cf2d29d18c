"""Charts for single runs. The chart specifications contain no data and are shared by all run pages.

Each page adds the data of its run as the dataset ``points``, which consists of columns from `run_points`. Each page
also adds the class names for the confusion matrix.
"""

from __future__ import annotations

from typing import Any

import altair as alt

from harness.analysis.metrics import TRAIN_THROUGHPUT, in_group
from harness.report.plots.charts import confusion_chart
from harness.report.plots.figure import unchecked

_POINTS = alt.NamedData("points")
_HEIGHT = 220


def specifications() -> dict[str, dict[str, Any]]:
    """Return the Vega-Lite specifications by name."""
    host = in_group("memory")[0]
    with unchecked():
        charts = {
            "score_by_step": _line("step:Q", "training steps", "score:Q", "validation score", point=True),
            "score_by_time": _line("seconds:Q", "training time (s)", "score:Q", "validation score", point=True),
            "loss": _line("step:Q", "training steps", "loss:Q", "training loss"),
            "windows": _windows(),
            "confusion": confusion_chart("points", []),
            "roc": _decision("false positive rate", "true positive rate"),
            "precision_recall": _decision("recall", "precision"),
            "reliability": _reliability(),
            "latency": _latency(),
            "memory": _bars("mib:Q", f"{host.headline} ({host.unit})"),
            "seconds": _bars("seconds:Q", "seconds"),
            "predicted": _predicted(),
            "residual": _residual(),
        }
        return {name: chart.to_dict(validate=False) for name, chart in charts.items()}


def _line(x: str, x_title: str, y: str, y_title: str, *, point: bool = False) -> Any:
    return (
        alt.Chart(_POINTS)
        .mark_line(point={"size": 36} if point else False, strokeWidth=1.75)
        .encode(
            x=alt.X(x, title=x_title),
            y=alt.Y(y, title=y_title, scale=alt.Scale(zero=False)),
            tooltip=[alt.Tooltip(x, title=x_title), alt.Tooltip(y, title=y_title, format=".4~g")],
        )
        .properties(width="container", height=_HEIGHT)
    )


def _windows() -> Any:
    return (
        alt.Chart(_POINTS)
        .mark_point(size=26)
        .encode(
            x=alt.X("at_s:Q", title="measured time (s)"),
            y=alt.Y("rate:Q", title=TRAIN_THROUGHPUT.unit, scale=alt.Scale(type="log", nice=False, padding=12)),
            color=alt.Color("phase:N", title=None, sort=["training", "inference"]),
            opacity=alt.condition("datum.steady", alt.value(0.9), alt.value(0.25)),
            tooltip=[
                alt.Tooltip("phase:N"),
                alt.Tooltip("rate:Q", title=TRAIN_THROUGHPUT.unit, format=".4~g"),
                alt.Tooltip("steady:N", title="steady state"),
            ],
        )
        .properties(width="container", height=_HEIGHT)
    )


def _decision(x_title: str, y_title: str) -> Any:
    picked = alt.selection_point(fields=["name"], bind="legend", name="picked")
    return (
        alt.Chart(_POINTS)
        .mark_line(strokeWidth=1.75)
        .encode(
            x=alt.X("x:Q", title=x_title, scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("y:Q", title=y_title, scale=alt.Scale(domain=[0, 1])),
            color=alt.Color("name:N", title=None, sort=None),
            opacity=alt.condition(picked, alt.value(1), alt.value(0.15)),
            strokeWidth=alt.condition("datum.name === 'mean of classes'", alt.value(3), alt.value(1.25)),
            tooltip=[
                alt.Tooltip("name:N", title="class"),
                alt.Tooltip("x:Q", title=x_title, format=".3~f"),
                alt.Tooltip("y:Q", title=y_title, format=".3~f"),
            ],
        )
        .add_params(picked)
        .properties(width="container", height=260)
    )


def _reliability() -> Any:
    """Return a chart of accuracy against confidence. On the diagonal, accuracy equals confidence."""
    scale = alt.Scale(domain=[0, 1])
    equal = (
        alt.Chart(alt.InlineData(values=[{"end": 0}, {"end": 1}]))
        .mark_line(strokeDash=[4, 4], color="gray")
        .encode(x=alt.X("end:Q", scale=scale), y=alt.Y("end:Q", scale=scale))
    )
    points = (
        alt.Chart(_POINTS)
        .mark_line(point=True, strokeWidth=1.75)
        .encode(
            x=alt.X("confidence:Q", title="mean confidence", scale=scale),
            y=alt.Y("accuracy:Q", title="accuracy", scale=scale),
            tooltip=[
                alt.Tooltip("confidence:Q", title="mean confidence", format=".3~f"),
                alt.Tooltip("accuracy:Q", format=".3~f"),
                alt.Tooltip("count:Q", title="examples"),
            ],
        )
    )
    return alt.layer(equal, points).properties(width="container", height=260)


def _latency() -> Any:
    return (
        alt.Chart(_POINTS)
        .mark_bar()
        .encode(
            x=alt.X(
                "low:Q", title="latency of a batch (ms), slowest 0.5% in the last bar", scale=alt.Scale(zero=False)
            ),
            x2=alt.X2("high:Q"),
            y=alt.Y("count:Q", title="batches"),
            tooltip=[
                alt.Tooltip("low:Q", title="from (ms)", format=".4~g"),
                alt.Tooltip("high:Q", title="to (ms)", format=".4~g"),
                alt.Tooltip("count:Q", title="batches"),
            ],
        )
        .properties(width="container", height=_HEIGHT)
    )


def _bars(x: str, title: str) -> Any:
    return (
        alt.Chart(_POINTS)
        .mark_bar(cornerRadiusEnd=3, height={"band": 0.7})
        .encode(
            x=alt.X(x, title=title),
            y=alt.Y("phase:N", title=None, sort=None),
            tooltip=[alt.Tooltip("phase:N"), alt.Tooltip(x, title=title, format=".4~g")],
        )
        .properties(width="container", height=_HEIGHT)
    )


def _predicted() -> Any:
    scale = alt.Scale(zero=False, padding=8)
    base = alt.Chart(_POINTS)
    points = base.mark_point(size=28, opacity=0.55).encode(
        x=alt.X("true:Q", title="true", scale=scale),
        y=alt.Y("predicted:Q", title="predicted", scale=scale),
        tooltip=[alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("true", "predicted", "residual")],
    )
    equal = base.mark_line(strokeDash=[4, 4], color="gray").encode(x=alt.X("true:Q"), y=alt.Y("true:Q"))
    return alt.layer(equal, points).properties(width="container", height=260)


def _residual() -> Any:
    zero = (
        alt.Chart(alt.InlineData(values=[{"zero": 0}]))
        .mark_rule(strokeDash=[4, 4], color="gray")
        .encode(y=alt.Y("zero:Q"))
    )
    points = (
        alt.Chart(_POINTS)
        .mark_point(size=28, opacity=0.55)
        .encode(
            x=alt.X("predicted:Q", title="predicted", scale=alt.Scale(zero=False, padding=8)),
            y=alt.Y("residual:Q", title="predicted minus true"),
            tooltip=[alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("true", "predicted", "residual")],
        )
    )
    return alt.layer(zero, points).properties(width="container", height=260)
