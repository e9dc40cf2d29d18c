"""Colors and fonts of plots, for light and dark backgrounds."""

from __future__ import annotations

from typing import Any

# The palette by Okabe and Ito without black. Its colors can be distinguished by color-blind readers
# (https://jfly.uni-koeln.de/color/). The colors for dark backgrounds have the same hues but are lighter.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b57f00", "#3d8fc4", "#7a6fd0")
DARK = ("#4ea8de", "#ff8c4b", "#2fd0a5", "#e7a5c9", "#f0b93a", "#8fcdf5", "#b3aaff")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def config(*, dark: bool = False) -> dict[str, Any]:
    """Return the Vega-Lite ``config`` object."""
    ink, faint, grid = ("#e6e9ef", "#a9b1bf", "#343b48") if dark else ("#1c2430", "#566172", "#e3e7ed")
    palette = list(DARK if dark else LIGHT)
    axis = {
        "labelColor": faint,
        "titleColor": ink,
        "gridColor": grid,
        "domainColor": faint,
        "tickColor": faint,
        "titleFontWeight": 500,
        "labelFontSize": 11,
        "titleFontSize": 12,
    }
    return {
        "font": FONT,
        "background": None,
        "view": {"stroke": None},
        "axis": axis,
        "legend": {
            "labelColor": ink,
            "titleColor": faint,
            "orient": "bottom",
            "columns": 4,
            "symbolStrokeWidth": 2,
            "labelLimit": 0,
        },
        "title": {"color": ink, "anchor": "start", "fontSize": 13, "fontWeight": 600},
        "header": {"labelColor": ink, "titleColor": faint},
        "range": {"category": palette, "heatmap": ["#161b24", "#4ea8de"] if dark else ["#ffffff", "#0b5c94"]},
        "mark": {"color": palette[0]},
        "point": {"filled": True, "size": 90},
        "rule": {"color": faint},
        "text": {"color": ink},
    }


def site_config(*, dark: bool = False) -> dict[str, Any]:
    """Return the ``config`` object for plots on the site, whose containers are narrow and clip whatever does not fit.

    Legends are placed below each other, and long names are cut. Vega supports this layout, but the schema of Vega-Lite
    does not contain it.
    """
    made = config(dark=dark)
    narrow = {"labelLimit": 215, "layout": {"bottom": {"direction": "vertical"}}}
    return made | {"legend": made["legend"] | narrow}
