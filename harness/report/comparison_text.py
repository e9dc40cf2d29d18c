"""Comparisons of two sets of runs as text."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from harness.analysis.compare.gates import shown
from harness.analysis.compare.judge import Compared, Comparison
from harness.analysis.metrics import named_with_unit, unranked_note

HEADERS = ("metric", "base", "new", "change", "interval", "detectable", "verdict", "evidence")


def render(compared: Sequence[Compared]) -> str:
    """Return a table for each pair of settings, followed by notes."""
    parts = []
    for pair in compared:
        align = ["left", *["right"] * 5, "left", "left"]
        rows = [row_of(comparison) for comparison in pair.comparisons]
        grid = tabulate(rows, headers=HEADERS, tablefmt="simple", colalign=align, disable_numparse=True)
        lines = [f"  {name}: {before} -> {after}" for name, before, after in pair.differences]
        parts.append("\n".join([pair.name, "", grid, *(["", "other differences", *lines] if lines else [])]))
    promise, detectable, *others = notes(compared)
    return "\n\n".join([*parts, f"{promise}\n{detectable}", *others])


def row_of(comparison: Comparison) -> list[str]:
    """Return the text of each column in `HEADERS` for one comparison."""
    return [
        named_with_unit(comparison.metric, comparison.unit),
        _number(comparison.base),
        _number(comparison.new),
        shown(comparison.change, comparison.relative),
        _interval(comparison),
        "–" if comparison.detectable is None else f"±{amount(comparison.detectable, comparison.relative)}",
        comparison.verdict if comparison.interleaved else f"{comparison.verdict}, not interleaved",
        comparison.evidence,
    ]


def notes(compared: Sequence[Compared]) -> list[str]:
    """Return the notes that explain the comparisons."""
    comparisons = [comparison for pair in compared for comparison in pair.comparisons]
    judged = sum(comparison.low is not None for comparison in comparisons)
    if not judged:
        promise = "No comparison has a confidence interval; see the 'evidence' column for the reasons."
    elif all(comparison.interleaved for comparison in comparisons):
        promise = (
            f"The probability of a false difference in any of {judged} comparisons is at most 1% (Bonferroni "
            "correction)."
        )
    else:
        promise = (
            "not interleaved: the runs of BASE and NEW did not alternate (A B B A), so a change in the machine\n"
            "may be mistaken for a difference between them. The interval is wider, but the probability of a false "
            "difference is unknown."
        )
    detectable = "detectable: the smallest change that would have been detected with probability 0.95."
    unranked = {comparison.metric for comparison in comparisons if comparison.higher_is_better is None}
    return [promise, detectable, *([unranked_note(sorted(unranked))] if unranked else [])]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"


def _interval(comparison: Comparison) -> str:
    if comparison.low is None or comparison.high is None:
        return "–"
    return " to ".join(shown(end, comparison.relative) for end in (comparison.low, comparison.high))


def amount(value: float, relative: bool) -> str:
    """Return the size of a change as text."""
    return f"{100 * value:.2f}%" if relative else f"{value:.4g}"
