"""The plot of a learning-rate range test."""

from __future__ import annotations

from typing import Any

import altair as alt

from harness.report.plots.figure import unchecked, written
from harness.tuning.lr_range import LrRange


def plot(result: LrRange, suffix: str = ".svg") -> bytes:
    """Return a plot of the loss against the learning rate, as the contents of a file with this suffix."""
    with unchecked():
        return written(chart(result).to_dict(validate=False), suffix)


def chart(result: LrRange) -> Any:
    """Return the chart: the losses as points, their moving average as a line, and the useful range as a band."""
    points = [
        {"rate": rate, "loss": loss, "smoothed": smoothed}
        for rate, loss, smoothed in zip(result.rates, result.losses, result.smoothed, strict=True)
    ]
    base = alt.Chart(alt.InlineData(values=points))
    x = alt.X("rate:Q", title="learning rate", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="~g"))
    layers = [
        base.mark_point(size=18, opacity=0.4).encode(x=x, y=alt.Y("loss:Q", title="training loss")),
        base.mark_line(strokeWidth=2).encode(x=x, y="smoothed:Q"),
    ]
    if result.useful is not None:
        low, high = result.useful
        band = alt.Chart(alt.InlineData(values=[{"low": low, "high": high}]))
        layers.insert(0, band.mark_rect(opacity=0.12).encode(x=alt.X("low:Q"), x2="high:Q"))
    spec = result.spec
    title = f"Learning-rate range test: {spec.task}, {spec.model}, {spec.backend}"
    return alt.layer(*layers).properties(width=480, height=260, title=title)
