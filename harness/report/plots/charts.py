"""The charts in a report, built with altair from the points that `points` returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from harness.analysis.metrics import RunMetric, in_group
from harness.report.plots.points import Panel, Points

WIDTH, HEIGHT = 340, 240
_LOG = alt.Scale(type="log", nice=False, padding=24)
_AXIS_FEW_TICKS = alt.Axis(tickCount=5, labelOverlap="greedy", format="~s")
_RATIOS = alt.Axis(tickCount=5, labelOverlap="greedy", format="~g")
LEGEND_WIDTH = 48
"""Approximate number of legend characters that fit into the width of a plot on the site. Each column also needs the
width of about five characters for the symbol and the space between columns."""
MAX_VARIANTS = 5
"""Maximum number of different symbols or dash patterns in a plot."""
Chart = Any
"""Any altair chart: single, layered or concatenated."""


def pareto(panel: Panel, points: Points, throughput: RunMetric) -> Chart:
    """Return a chart of quality against throughput, with intervals and a dashed line along the Pareto front."""
    base = alt.Chart(alt.InlineData(values=points))
    title = f"{throughput.part} ({throughput.unit})"
    x = alt.X("speed:Q", title=title, scale=_LOG, axis=_AXIS_FEW_TICKS)
    y = _quality(panel, "quality")
    tooltip = _tooltip(label="", quality_shown=panel.quality, speed_shown=title)
    front = base.transform_filter("datum.front").mark_line(strokeDash=[4, 4], opacity=0.6, color="gray")
    layers = [
        front.encode(x=x, y=y, order=alt.Order("speed:Q")),
        base.mark_rule(strokeWidth=1.5).encode(
            x=alt.X("speed_low:Q"), x2=alt.X2("speed_high:Q"), y=y, color=_color(panel)
        ),
        base.mark_rule(strokeWidth=1.5).encode(
            x=x, y=alt.Y("quality_low:Q"), y2=alt.Y2("quality_high:Q"), color=_color(panel)
        ),
        base.mark_point().encode(x=x, y=y, color=_color(panel), shape=_by_variant(alt.Shape, panel), tooltip=tooltip),
    ]
    return _sized(alt.layer(*layers))


def quality(panel: Panel, points: Points) -> Chart:
    """Return a chart of the primary metric of each row with its interval. The rows have the same order as in the
    table."""
    base = alt.Chart(alt.InlineData(values=points)).encode(
        y=alt.Y("label:N", title=None, sort=None, axis=alt.Axis(labelLimit=0)), color=_color(panel, beside_labels=True)
    )
    scale = alt.Scale(zero=False, padding=12, reverse=panel.better == "lower")
    x = alt.X("quality:Q", title=_quality_title(panel), scale=scale, axis=alt.Axis(tickCount=5, format=".4~g"))
    layers = [
        base.mark_rule(strokeWidth=2).encode(x=alt.X("quality_low:Q"), x2=alt.X2("quality_high:Q")),
        base.mark_point().encode(x=x, tooltip=_tooltip(label="", quality_shown=panel.quality)),
    ]
    return _sized(alt.layer(*layers), height=_height(points, 18))


def curves(panel: Panel, points: Points, by: str) -> Chart:
    """Return a chart of the learning curves, with one line for each run. `by` is ``step`` or ``seconds``."""
    title = {"step": "training steps", "seconds": "training time (s)"}[by]
    base = alt.Chart(alt.InlineData(values=points))
    encoded = base.encode(
        x=alt.X(f"{by}:Q", title=title),
        y=_quality(panel, "score", "validation "),
        color=_color(panel),
        detail=alt.Detail("run:N"),
        tooltip=_tooltip(label="", seed="seed", epoch="epoch", score=panel.quality, seconds="seconds"),
    )
    lines = encoded.mark_line(opacity=0.75, strokeWidth=1.75).encode(strokeDash=_by_variant(alt.StrokeDash, panel))
    dots = encoded.mark_point(size=22, opacity=0.9, aria=False)  # screen readers describe the lines instead
    return _sized(alt.layer(lines, dots))


def time_to_quality(panel: Panel, points: Points, level: float) -> Chart:
    """Return a bar chart of the training time of each row until the validation score reaches `level`."""
    title = f"training time until validation {panel.metric_title} is {level:.4g} (s)"
    return _bars(panel, points, "seconds", title)


def ratios(panel: Panel, points: Points) -> Chart:
    """Return a chart of throughput ratios with intervals, and a dashed line at 1."""
    base = alt.Chart(alt.InlineData(values=points))
    y = alt.Y("label:N", title=None, sort=None)
    offset = alt.YOffset("phase:N", sort=["training", "inference"])
    shape = alt.Shape("phase:N", title=None, sort=["training", "inference"], legend=alt.Legend(columns=1))
    x = alt.X("ratio:Q", title="throughput relative to the first backend", scale=_LOG, axis=_RATIOS)
    one = (
        alt.Chart(alt.InlineData(values=[{"one": 1}]))
        .mark_rule(strokeDash=[3, 3], color="gray")
        .encode(x=alt.X("one:Q"))
    )
    encoded = base.encode(y=y, yOffset=offset, color=_color(panel, beside_labels=True))
    tooltip = _tooltip(label="", phase="", ratio_shown="ratio")
    layers = [
        one,
        encoded.mark_rule(strokeWidth=2).encode(x=alt.X("ratio_low:Q"), x2=alt.X2("ratio_high:Q")),
        encoded.mark_point().encode(x=x, shape=shape, tooltip=tooltip),
    ]
    return _sized(alt.layer(*layers), height=_height(points, 44))


def memory(panel: Panel, points: Points) -> Chart:
    """Return a bar chart of each row's peak memory, with one bar for each memory counter."""
    unit = in_group("memory")[0].unit
    kinds = {point["kind"] for point in points}
    if len(kinds) == 1:
        return _bars(panel, points, "mib", f"peak memory, {kinds.pop()} ({unit})")
    offset = alt.YOffset("kind:N", sort=None)
    bars = _bar(panel, points, "mib", f"peak memory ({unit})").encode(
        yOffset=offset, opacity=alt.Opacity("kind:N", title=None, legend=alt.Legend(columns=1))
    )
    return _sized(bars, height=_height(points, 24 * len(kinds)))


def latency(panel: Panel, points: Points) -> Chart:
    """Return a chart of the cumulative distribution of batch latency, with one line for each row."""
    base = alt.Chart(alt.InlineData(values=points))
    x = alt.X("ms:Q", title="latency of a batch (ms)", scale=_LOG, axis=_AXIS_FEW_TICKS)
    y = alt.Y("share:Q", title="fraction of batches", axis=alt.Axis(format="%"))
    tooltip = _tooltip(label="", share="fraction", ms="ms")
    line = base.mark_line(interpolate="step-after", strokeWidth=2)
    return _sized(
        line.encode(
            x=x,
            y=y,
            color=_color(panel),
            strokeDash=_by_variant(alt.StrokeDash, panel),
            detail=alt.Detail("label:N"),
            tooltip=tooltip,
        )
    )


def roc(panel: Panel, points: Points) -> Chart:
    """Return a chart with the ROC curve of each row and the diagonal of a random classifier."""
    diagonal = alt.Chart(alt.InlineData(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
    chance = diagonal.mark_line(strokeDash=[3, 3], color="gray", strokeWidth=1).encode(x=alt.X("x:Q"), y=alt.Y("y:Q"))
    return _sized(alt.layer(chance, _decision(panel, points, "tpr", "false positive rate", "true positive rate")))


def precision_recall(panel: Panel, points: Points) -> Chart:
    """Return a chart with the precision-recall curve of each row."""
    return _sized(_decision(panel, points, "precision", "recall", "precision"))


def confusion(label: str, names: Sequence[str], matrix: Sequence[Sequence[int]], key: str) -> Chart:
    """Return a chart of a confusion matrix, normalized by true class. `key` must be unique within a figure."""
    cells = [
        {"true": i, "predicted": j, "count": count, "share": count / max(1, sum(row))}
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if count
    ]
    return confusion_chart(cells, names, key).properties(title=label)


def confusion_chart(cells: Any, names: Sequence[str], key: str = "") -> Chart:
    """Return a chart of a confusion matrix. The axes are numeric, which allows zooming when there are many classes.

    `cells` contains either the values themselves or the name of a dataset that contains them. Each cell has the fields
    ``true``, ``predicted``, ``count`` and ``share``.
    """
    data = alt.NamedData(cells) if isinstance(cells, str) else alt.InlineData(values=cells)
    labels = alt.param(name=f"names{key}", value=list(names))
    axis: dict[str, Any] = {
        "labelExpr": f"datum.value >= 0 ? names{key}[datum.value] || '' : ''",
        "tickMinStep": 1,
        "grid": False,
    }
    domain = alt.Scale(domain=[-0.5, len(names) - 0.5], nice=False)
    flipped = alt.Scale(domain=[-0.5, len(names) - 0.5], nice=False, reverse=True)
    low, high = ("datum.{0} - 0.5", "datum.{0} + 0.5")
    chart = alt.Chart(data)
    for name, end in (("predicted", "x"), ("true", "y")):
        chart = chart.transform_calculate(
            **{
                f"{end}_low": low.format(name),
                f"{end}_high": high.format(name),
                f"{name}_name": f"names{key}[datum.{name}]",
            }
        )
    return (
        chart.mark_rect(clip=True)
        .encode(
            x=alt.X("x_low:Q", title="predicted", scale=domain, axis=alt.Axis(labelAngle=-45, **axis)),
            x2=alt.X2("x_high:Q"),
            y=alt.Y("y_low:Q", title="true", scale=flipped, axis=alt.Axis(**axis)),
            y2=alt.Y2("y_high:Q"),
            color=alt.Color(
                "share:Q", title="fraction of the true class", scale=alt.Scale(domain=[0, 1], interpolate="rgb")
            ),
            tooltip=[
                alt.Tooltip("true_name:N", title="true"),
                alt.Tooltip("predicted_name:N", title="predicted"),
                alt.Tooltip("count:Q", title="examples"),
                alt.Tooltip("share:Q", title="fraction", format=".1%"),
            ],
        )
        .add_params(labels, alt.selection_interval(bind="scales", name=f"zoom{key}"))
        .properties(width=300, height=300)
    )


def _decision(panel: Panel, points: Points, value: str, x_title: str, y_title: str) -> Chart:
    base = alt.Chart(alt.InlineData(values=points))
    return base.mark_line(strokeWidth=2).encode(
        x=alt.X("x:Q", title=x_title),
        y=alt.Y(f"{value}:Q", title=y_title),
        color=_color(panel),
        strokeDash=_by_variant(alt.StrokeDash, panel),
        detail=alt.Detail("label:N"),
        tooltip=_tooltip(label="", x=x_title, **{value: y_title}),
    )


def _bars(panel: Panel, points: Points, value: str, title: str) -> Chart:
    base = alt.Chart(alt.InlineData(values=points))
    interval = base.mark_rule(strokeWidth=2, color="gray").encode(
        x=alt.X(f"{value}_low:Q"), x2=alt.X2(f"{value}_high:Q"), y=alt.Y("label:N", title=None, sort=None)
    )
    return _sized(alt.layer(_bar(panel, points, value, title), interval), height=_height(points, 28))


def _bar(panel: Panel, points: Points, value: str, title: str) -> Chart:
    return (
        alt.Chart(alt.InlineData(values=points))
        .mark_bar(cornerRadiusEnd=3, height={"band": 0.65})
        .encode(
            x=alt.X(f"{value}:Q", title=title),
            y=alt.Y("label:N", title=None, sort=None),
            color=_color(panel, beside_labels=True),
            tooltip=_tooltip(label="", **{f"{value}_shown": title}),
        )
    )


def _quality(panel: Panel, field: str, prefix: str = "") -> Any:
    """Return the quality axis. If the direction of the metric is known, better values are at the top."""
    scale = alt.Scale(zero=False, padding=12, reverse=panel.better == "lower")
    title = f"{prefix}{_quality_title(panel)}"
    return alt.Y(
        f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=".4~g")
    )  # the default format shows only one digit if the axis has a single value


def _quality_title(panel: Panel) -> str:
    remark = {"lower": ", lower is better", "": ", not ranked"}.get(panel.better, "")
    return f"{panel.quality}{remark}"


def _color(panel: Panel, *, beside_labels: bool = False) -> Any:
    """Return the color encoding of backends, which is the same in all plots of a report. The legend lists only the
    panel's backends. With `beside_labels`, there is no legend, because the names of the rows contain the backend."""
    here = {row.text("backend") for _, row in panel.rows}
    shown = [backend for backend in panel.report.backends if backend in here]
    columns = min(4, LEGEND_WIDTH // (max(map(len, shown), default=0) + 5)) or 1
    legend = None if beside_labels else alt.Legend(values=shown, columns=columns)
    return alt.Color("backend:N", title=None, scale=alt.Scale(domain=panel.report.backends), legend=legend)


def _by_variant(channel: Any, panel: Panel) -> Any:
    """Return a channel, such as `altair.Shape`, that distinguishes the rows of each backend, because the color shows
    only the backend.

    Rows are distinguished by the fields whose values differ within the panel. If these fields have more values than
    there are symbols, only the models are distinguished. Return `altair.Undefined` if no field differs.
    """
    variants = list(dict.fromkeys(panel.block.variants))
    if len(variants) > MAX_VARIANTS:
        models = {row.text("model") for _, row in panel.rows}
        return channel("model:N", title=None) if len(models) > 1 else alt.Undefined
    legend = alt.Legend(columns=1, labelExpr="datum.label || 'no options'")
    return channel("variant:N", title=None, sort=variants, legend=legend) if len(variants) > 1 else alt.Undefined


def _tooltip(**titles: str) -> list[Any]:
    """Return tooltips for the given fields and titles.

    If a title is empty, the field name is used. Numbers are shown with four significant digits.
    """
    texts = ("label", "phase", "kind")
    return [
        alt.Tooltip(f"{name}:N", title=title or name)
        if name in texts or name.endswith("_shown")
        else alt.Tooltip(f"{name}:Q", title=title or name, format=".4~g")
        for name, title in titles.items()
    ]


def _height(points: Points, step: int) -> int:
    return max(60, step * len({point["label"] for point in points}))


def _sized(chart: Chart, *, height: int = HEIGHT) -> Chart:
    return chart.properties(width=WIDTH, height=height)
