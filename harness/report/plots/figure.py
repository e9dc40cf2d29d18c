"""The available plots, by name, and functions that export them to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import altair as alt
import msgspec
from altair.utils.schemapi import debug_mode

from harness.analysis.metrics import in_group
from harness.errors import UnknownNameError, UsageError
from harness.report.plots import charts, points
from harness.report.plots.embedding import cleaned, embedded_json, vega
from harness.report.plots.formats import check_suffix
from harness.report.plots.points import Panel
from harness.report.plots.theme import config
from harness.report.report import Report


def _pareto(panel: Panel) -> Iterator[tuple[str, Any]]:
    for metric in in_group("throughput"):
        if data := points.pareto(panel, metric.name):
            yield f"Quality against {metric.headline}", charts.pareto(panel, data, metric)


def _quality(panel: Panel) -> Iterator[tuple[str, Any]]:
    if data := points.quality(panel):
        yield "Quality, without the options that most rows share", charts.quality(panel, data)


def _curves(panel: Panel) -> Iterator[tuple[str, Any]]:
    if data := points.curves(panel):
        yield "Learning curve by step", charts.curves(panel, data, "step")
        yield "Learning curve by time", charts.curves(panel, data, "seconds")
    level, data = points.time_to_quality(panel)
    if level is not None:
        yield "Time to quality", charts.time_to_quality(panel, data, level)


def _ratios(panel: Panel) -> Iterator[tuple[str, Any]]:
    if data := points.ratios(panel):
        yield "Throughput ratios", charts.ratios(panel, data)


def _confusion(panel: Panel) -> Iterator[tuple[str, Any]]:
    for number, (label, names, matrix) in enumerate(points.confusion(panel)):
        yield "Confusion matrix", charts.confusion(label, names, matrix, f"_{panel.number}_{number}")


def _roc(panel: Panel) -> Iterator[tuple[str, Any]]:
    if data := points.roc(panel):
        yield "ROC curve, mean over classes", charts.roc(panel, data)
        yield "Precision-recall curve, mean over classes", charts.precision_recall(panel, data)


def _latency(panel: Panel) -> Iterator[tuple[str, Any]]:
    if data := points.latency(panel):
        yield "Cumulative distribution of batch latency", charts.latency(panel, data)


def _memory(panel: Panel) -> Iterator[tuple[str, Any]]:
    if data := points.memory(panel):
        yield "Peak memory", charts.memory(panel, data)


PLOTS: dict[str, Callable[[Panel], Iterator[tuple[str, Any]]]] = {
    "pareto": _pareto,
    "quality": _quality,
    "curves": _curves,
    "ratios": _ratios,
    "confusion": _confusion,
    "roc": _roc,
    "latency": _latency,
    "memory": _memory,
}
"""Mapping from plot names to functions that yield the titles and charts for a panel. A function yields nothing if the
runs lack the required data."""


def drawn(name: str, panel: Panel) -> list[tuple[str, Any]]:
    """Return the titles and charts for one of `PLOTS`, built without schema validation (see `unchecked`)."""
    with unchecked():
        return list(PLOTS[name](panel))


@contextmanager
def unchecked() -> Iterator[None]:
    """Disable schema validation while charts are built.

    Altair validates each part of a chart against the Vega-Lite schema. This takes longer than all other steps of
    writing a report. The validity of a chart depends only on the code and not on the data. Charts are therefore
    validated in the tests.
    """
    with debug_mode(False):
        yield


def figure(report: Report, name: str, suffix: str) -> bytes:
    """Draw a plot for all panels of a report, and return it as the contents of a file with the suffix `suffix`.

    Raises `harness.UnknownNameError` if the plot is unknown. Raises `harness.UsageError` if the suffix is unknown or if
    the runs lack the data for the plot.
    """
    if name not in PLOTS:
        raise UnknownNameError("plot", name, PLOTS)
    check_suffix(suffix)
    rows = []
    with unchecked():
        for panel in points.panels(report):
            charts = [chart.properties(title=_title(title, chart)) for title, chart in drawn(name, panel)]
            if charts:
                row = alt.concat(*charts, columns=4).resolve_scale(shape="independent", strokeDash="independent")
                rows.append(row.properties(title=panel.title))
        if not rows:
            raise UsageError(
                f"none of these runs has the data for the plot {name!r}; choose other runs or another plot"
            )
        document = alt.vconcat(*rows).resolve_scale(color="independent").to_dict(validate=False)
    return written(document, suffix)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:; base-uri 'none'; form-action 'none'">
<title>Plot</title>
<script>%s</script>
</head>
<body>
<div id="plot"></div>
<script type="application/json" id="specification">%s</script>
<script>
vegaEmbed("#plot", JSON.parse(document.getElementById("specification").textContent), {
  actions: { export: true, source: false, compiled: false, editor: false },
  loader: { load: () => Promise.reject(new Error("network access is disabled")) },
});
</script>
</body>
</html>
"""


def _page(document: dict[str, Any]) -> bytes:
    """Return an HTML page with a plot.

    `vl_convert.vegalite_to_html` is not used, because it does not escape names from the specification.
    """
    return (_PAGE % (vega().decode(), embedded_json(document))).encode(errors="replace")


def _title(title: str, chart: Any) -> str:
    return title if chart.title is alt.Undefined else f"{title}: {chart.title}"


def written(document: dict[str, Any], suffix: str) -> bytes:
    import vl_convert

    document["config"] = config() | {"background": "white"}
    if suffix == ".json":
        return msgspec.json.format(msgspec.json.encode(document), indent=1)
    document = cleaned(document)
    if suffix == ".html":
        return _page(document)
    if suffix == ".png":
        return bytes(vl_convert.vegalite_to_png(document, scale=2))
    if suffix == ".pdf":
        return bytes(vl_convert.vegalite_to_pdf(document))
    return vl_convert.vegalite_to_svg(document).encode()
