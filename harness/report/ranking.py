"""Rankings across datasets as text, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
from tabulate import tabulate

from harness.analysis.formatting import one_line
from harness.analysis.rank import Placement, Ranking
from harness.analysis.standings import Standing, Standings
from harness.report.csv_json import line, no_formula
from harness.report.markdown import escape

HEADERS = ("mean rank", "interval", "win rate", "interval", "won/tied/lost", "ratio", "interval", "p")
COLUMNS = (
    *("metric", "by", "ties_by", "baseline", "failures", "datasets", "cases", "failed"),
    *Standing.__struct_fields__,
)
"""Columns of the CSV file."""
MAX_LISTED = 10
"""Maximum number of unused cases, such as datasets without results, that are listed with a reason."""

LEGEND = (
    "mean rank: mean over the datasets; 1 is best. win rate: fraction of comparisons won; a tie counts as half a win.",
    "ratio: geometric mean over the datasets, relative to the baseline; above 1 is better, for all metrics.",
    "The intervals of ratios are too narrow if a small fraction of all datasets has far more extreme ratios.",
    "p: p-value of the difference from the baseline's mean rank, with Holm's correction. Intervals are 95% intervals.",
)


def text(rankings: Sequence[Ranking]) -> str:
    """Return the rankings as plain text."""
    return "\n".join(_written(rankings, partial(one_line, limit=10_000), "simple", "", "  "))


def markdown(rankings: Sequence[Ranking]) -> str:
    """Return the rankings as GitHub-flavored Markdown."""
    return "\n".join(_written(rankings, escape, "pipe", "### ", "- "))


def csv(rankings: Sequence[Ranking]) -> str:
    """Return the rankings as CSV, with one line for each candidate and policy. Missing values are empty fields."""
    lines = [line(list(COLUMNS))]
    for ranking in rankings:
        for placement in ranking.placements:
            found = placement.standings
            for one in found.contenders if found else ():
                values = {
                    "metric": ranking.metric,
                    "by": " ".join(ranking.by),
                    "ties_by": ranking.ties,
                    "baseline": ranking.baseline,
                    "failures": placement.failures,
                    "datasets": found.datasets if found else 0,
                    "cases": found.cases if found else 0,
                    "failed": ranking.failed[one.name],
                } | msgspec.structs.asdict(one)
                lines.append(line([_field(values[name]) for name in COLUMNS]))
    return "".join(lines)


def _field(value: object) -> str:
    if value is None:
        return ""
    return no_formula(value) if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)


def shown_placements(ranking: Ranking) -> list[Placement]:
    """Return the placements to show. If no runs failed, the two placements are identical, and only one of them is
    returned."""
    return ranking.placements if any(ranking.failed.values()) else ranking.placements[:1]


def heading(ranking: Ranking, placement: Placement) -> str:
    """Return a heading such as ``quality by backend · 5 datasets · failed runs excluded``."""
    found = placement.standings
    parts = [f"{ranking.metric} by {', '.join(ranking.by)}"]
    if found is not None:
        datasets = f"{found.datasets} dataset{'s' * (found.datasets != 1)}"
        parts.append(datasets if found.cases == found.datasets else f"{datasets}, {found.cases} cases")
    failed = sum(ranking.failed.values())
    if not failed:
        parts.append("no failed runs")
    elif placement.failures == "excluded":
        parts.append("failed runs excluded")
    else:
        parts.append(f"failed runs imputed with results of {ranking.baseline}")
    return " · ".join(parts)


def rows(found: Standings) -> list[list[str]]:
    """Return the table cells of each candidate, except the cell with its name."""
    return [
        [
            f"{one.mean_rank:.2f}",
            _interval(one.mean_rank_low, one.mean_rank_high, ".2f"),
            f"{one.win_rate:.0%}",
            _interval(one.win_rate_low, one.win_rate_high, ".0%"),
            f"{one.wins}/{one.ties}/{one.losses}",
            "–" if one.ratio is None else f"{one.ratio:.4g}×",
            _interval(one.ratio_low, one.ratio_high, ".4g"),
            "–" if one.p_holm is None else "<0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}",
        ]
        for one in found.contenders
    ]


def tests(found: Standings) -> str:
    """Return a sentence with the result of Friedman's test and Nemenyi's critical difference."""
    if found.friedman_chi2 is None or found.friedman_p is None:
        return "Friedman's test and the critical difference need at least two datasets."
    p = "<0.001" if found.friedman_p < 0.001 else f"= {found.friedman_p:.3f}"
    if found.critical_difference is None:
        nemenyi = (
            f"With {found.datasets} datasets, no difference between mean ranks is significant (Nemenyi's test, 5%)."
        )
    else:
        nemenyi = (
            f"Mean ranks differ significantly if they differ by at least {found.critical_difference:.2f} (Nemenyi's "
            "critical difference, 5%)."
        )
    return f"Friedman's test: chi2 = {found.friedman_chi2:.2f}, p {p}. {nemenyi}"


def ties_note(ranking: Ranking, placement: Placement) -> str:
    """Return an explanation of how ties were determined."""
    if ranking.ties == "exact":
        return "Only equal means tie."
    note = "Two candidates tie on a dataset if the verdict of `harness compare` is inconclusive at the 95% level."
    if placement.undecided:
        note += (
            f" {placement.undecided} of {placement.comparisons} comparisons are ties because there are too few runs or "
            "the runs are not interleaved."
        )
    return note


def remarks(ranking: Ranking, placement: Placement) -> list[str]:
    """Return the notes on a placement: missing intervals, failed runs and unused cases."""
    failed = [f"{name} {count}" for name, count in ranking.failed.items() if count]
    left = placement.left_out
    return [
        *placement.notes,
        *([f"failed runs: {', '.join(failed)}"] if failed else []),
        *(f"not used: {one.case}: {one.reason}" for one in left[:MAX_LISTED]),
        *([f"not used: {len(left) - MAX_LISTED} more cases"] if len(left) > MAX_LISTED else []),
    ]


def _written(
    rankings: Sequence[Ranking], clean: Callable[[str], str], tablefmt: str, head: str, bullet: str
) -> Iterator[str]:
    for ranking in rankings:
        for placement in shown_placements(ranking):
            yield f"{head}{clean(heading(ranking, placement))}\n"
            found = placement.standings
            if found is not None:
                names = [one.name for one in found.contenders]
                marked = [clean(name) + " (baseline)" * (name == ranking.baseline) for name in names]
                cells = [[name, *row] for name, row in zip(marked, rows(found), strict=True)]
                header = [clean(", ".join(ranking.by)), *HEADERS]
                align = ["left", *["right"] * len(HEADERS)]
                yield tabulate(cells, header, tablefmt=tablefmt, colalign=align, disable_numparse=True) + "\n"
                yield f"{tests(found)}\n{ties_note(ranking, placement)}\n"
            notes = [f"{bullet}{clean(note)}" for note in (*ranking.notes, *remarks(ranking, placement))]
            if notes:
                yield "\n".join(notes) + "\n"
    yield from (f"{bullet}{line_}" if bullet == "- " else line_ for line_ in LEGEND)


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "–" if low is None or high is None else f"{low:{form}} to {high:{form}}"
