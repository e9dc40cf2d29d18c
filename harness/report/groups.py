"""Rates by group and the gaps between groups, formatted as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from harness.analysis.groups import RATES, SMALL, GroupRates, Groups, Interval, Rate

if TYPE_CHECKING:
    import pandas as pd


def rates_frame(found: Groups) -> pd.DataFrame:
    """Return a table with one row per group value and class. Each rate has the columns ``<rate>``, ``<rate>_low`` and
    ``<rate>_high`` (95% interval), and ``<rate>_of`` (number of examples from which the rate is computed)."""
    import pandas as pd

    rows = []
    for one in found.rates:
        row: dict[str, Any] = {name: getattr(one, name) for name in ("group", "value", "label", "examples", "small")}
        for name in RATES:
            rate: Rate = getattr(one, name)
            low, high = rate.interval or (None, None)
            row |= {name: rate.value, f"{name}_low": low, f"{name}_high": high, f"{name}_of": rate.examples}
        rows.append(row)
    return _numeric(pd.DataFrame(rows))


def gaps_frame(found: Groups) -> pd.DataFrame:
    """Return a table with one row per gap. The groups in ``left_out`` are separated by semicolons."""
    import pandas as pd

    rows = []
    for gap in found.gaps:
        row = msgspec.structs.asdict(gap) | {"left_out": "; ".join(gap.left_out)}
        for name in ("difference", "ratio"):
            row[f"{name}_low"], row[f"{name}_high"] = row.pop(f"{name}_interval") or (None, None)
        rows.append(row)
    return _numeric(pd.DataFrame(rows))


def _numeric(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert columns that contain numbers and None to float64, with NaN for None."""
    texts = ("group", "value", "label", "rate", "highest", "lowest", "left_out")
    return frame.astype({name: float for name in frame if name not in texts and frame[name].dtype == object})


def rates_table(found: Groups, *, of_classes: bool = True) -> tuple[list[str], list[list[str | int]]]:
    """Return the headers and rows of the table of rates. If `of_classes` is false, only the accuracy is included, with
    one row per group value."""
    several = len(found.classes) > 1
    names = RATES if of_classes else RATES[:1]
    headers = ["group", "value", *(["class"] if several and of_classes else []), "examples", *map(_title, names)]
    rows: list[list[str | int]] = []
    for one in found.rates:
        if of_classes or one.label == found.classes[0]:
            labels = [one.label] if several and of_classes else []
            rates = [_with_interval(getattr(one, name).value, getattr(one, name).interval) for name in names]
            rows.append([one.group, _value(one), *labels, one.examples, *rates])
    return headers, rows


def gaps_table(found: Groups) -> tuple[list[str], list[list[str | int]]]:
    """Return the headers and rows of the table of gaps."""
    several = len(found.classes) > 1
    rows: list[list[str | int]] = [
        [
            gap.group,
            _title(gap.rate),
            *([gap.label or "all"] if several else []),
            _with_interval(gap.difference, gap.difference_interval),
            _with_interval(gap.ratio, gap.ratio_interval),
            gap.highest or "–",
            gap.lowest or "–",
        ]
        for gap in found.gaps
    ]
    return ["group", "rate", *(["class"] if several else []), "difference", "ratio", "highest", "lowest"], rows


def notes(found: Groups) -> Iterator[str]:
    """Yield sentences about the tables."""
    if len(found.classes) == 1:
        yield f"The rates are for the class {found.classes[0]!r}."
    yield (
        "Brackets contain 95% intervals over test examples. The intervals of the gaps in a rate hold simultaneously "
        "for all groups and classes."
    )
    small = dict.fromkeys(f"{one.group}={one.value}" for one in found.rates if one.small)
    if small:
        yield f"Groups with fewer than {SMALL} test examples are marked as small: {_listed(list(small))}."
    left_out = dict.fromkeys(f"{gap.group}={value}" for gap in found.gaps for value in gap.left_out)
    if left_out:
        yield (
            f"Rates computed from fewer than {found.min_examples} examples have no interval and are not included in "
            f"gaps. Groups with such rates: {_listed(list(left_out))}."
        )


def render(found: Groups) -> str:
    """Return the rates and gaps of a run as text."""
    from tabulate import tabulate

    def grid(title: str, headers: list[str], rows: list[list[str | int]]) -> str:
        return f"{title}\n" + tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True)

    parts = [
        found.run,
        grid("rates by group, test split", *rates_table(found)),
        grid("largest gaps between groups", *gaps_table(found)),
        "\n".join(notes(found)),
    ]
    return "\n\n".join(parts)


def _value(one: GroupRates) -> str:
    return f"{one.value} (small)" if one.small else one.value


def _title(name: str) -> str:
    return name.replace("_", " ")


def _with_interval(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _listed(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
