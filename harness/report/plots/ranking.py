"""The critical-difference plot of a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import altair as alt

from harness.errors import UsageError
from harness.report.plots.figure import unchecked, written
from harness.report.plots.formats import check_suffix
from harness.report.ranking import heading, shown_placements

if TYPE_CHECKING:
    from harness.analysis.rank import Ranking
    from harness.analysis.standings import Standings

WIDTH, STEP = 420, 26


def critical_difference(found: Standings) -> Any:
    """Return a chart of the mean ranks with bars that extend by half the critical difference in both directions.

    Two candidates differ significantly according to Nemenyi's test if their bars do not overlap. The best candidate is
    at the top, and better ranks are on the right.
    """
    half = (found.critical_difference or 0.0) / 2
    points = tuple(
        {
            "name": one.name,
            "rank": one.mean_rank,
            "low": one.mean_rank - half,
            "high": one.mean_rank + half,
            "won": f"{one.wins} won, {one.ties} tied, {one.losses} lost",
        }
        for one in found.contenders
    )
    base = alt.Chart(alt.InlineData(values=points)).encode(
        y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=260))
    )
    if half:
        title = f"mean rank (bars overlap if the difference is below the critical difference {2 * half:.2f})"
    else:
        title = "mean rank (no critical difference, because there are too few datasets)"
    scale = alt.Scale(zero=False, nice=False, padding=12, reverse=True)
    layers = [
        base.mark_rule(strokeWidth=5, opacity=0.35).encode(
            x=alt.X("low:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5, format="~g")), x2=alt.X2("high:Q")
        ),
        base.mark_point().encode(
            x=alt.X("rank:Q"),
            tooltip=[
                alt.Tooltip("name:N", title="name"),
                alt.Tooltip("rank:Q", title="mean rank", format=".2f"),
                alt.Tooltip("won:N", title="comparisons"),
            ],
        ),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=max(60, STEP * len(points)))


def figure(rankings: Sequence[Ranking], suffix: str) -> bytes:
    """Return the plots of all rankings as the contents of a file with the suffix `suffix`.

    Raises `harness.UsageError` if the suffix is unknown or there is nothing to plot.
    """
    check_suffix(suffix)
    with unchecked():
        charts = [
            critical_difference(placement.standings).properties(title=heading(ranking, placement))
            for ranking in rankings
            for placement in shown_placements(ranking)
            if placement.standings is not None
        ]
        if not charts:
            raise UsageError(
                "there is nothing to plot, because no dataset has successful runs of all ranked candidates"
            )
        document = alt.vconcat(*charts).resolve_scale(x="independent", y="independent").to_dict(validate=False)
    return written(document, suffix)
