"""Explanations of a run, formatted as text and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.deploy.explanations import Arrays, Attribution, Attributions, PermutationImportance

if TYPE_CHECKING:
    import pandas as pd

LARGE_DELTA = 0.05
"""Convergence delta, relative to the difference between the outputs, above which more steps are recommended."""
MOST_TOKENS = 12
"""Maximum number of tokens listed as text for each example."""


def importance_table(found: PermutationImportance) -> tuple[list[str], list[list[str | float | None]]]:
    """Return the headers and rows of the table of importances, with the most important column first."""
    ordered = sorted(found.columns, key=lambda column: -column.importance)
    rows: list[list[str | float | None]] = [
        [" + ".join(each.columns), each.importance, *(each.interval or (None, None)), each.std] for each in ordered
    ]
    return ["column", "importance", "95% interval from", "to", "standard deviation"], rows


def importance_note(found: PermutationImportance) -> str:
    """Return a sentence that describes how the importances were computed."""
    change = "Decrease" if found.higher_is_better else "Increase"
    return (
        f"{change} in {found.metric} ({found.score:.4g}) on the {found.examples:,} examples of the {found.split} split "
        f"when the values of a column are permuted; mean of {found.repeats} repeats (seed {found.seed}, "
        f"{found.backend} on {found.device}). The intervals account only for the choice of the permutations."
    )


def importance_text(found: PermutationImportance) -> str:
    """Return the permutation importance as text."""
    from tabulate import tabulate

    headers, rows = importance_table(found)
    shown = [
        [value if isinstance(value, str) else "–" if value is None else f"{value:.4g}" for value in row] for row in rows
    ]
    align = ["left", *["right"] * (len(headers) - 1)]
    table = tabulate(shown, headers=headers, tablefmt="plain", disable_numparse=True, colalign=align)
    lines = "\n".join(f"  {line}".rstrip() for line in table.splitlines())
    return f"permutation importance\n{lines}\n{importance_note(found)}"


def importance_frame(found: PermutationImportance) -> pd.DataFrame:
    """Return the table of `harness.Run.explain` for a permutation importance, in the order of the columns."""
    import numpy as np
    import pandas as pd

    rows = [
        (" + ".join(one.columns), one.importance, *(one.interval or (np.nan, np.nan)), one.std) for one in found.columns
    ]
    table = pd.DataFrame(rows, columns=["column", "importance", "low", "high", "std"])
    table.attrs["values"] = np.array([one.values for one in found.columns])
    return table


def attributions_frame(found: Attributions, arrays: Arrays) -> pd.DataFrame:
    """Return the table of `harness.Run.explain` for attributions, with one row per attributed output."""
    import msgspec
    import pandas as pd

    columns = [name for name in Attribution.__struct_fields__ if name != "inputs"]
    table = pd.DataFrame([msgspec.structs.asdict(each) for each in found.found], columns=columns)
    table.attrs["arrays"] = arrays
    return table


def attributions_note(found: Attributions) -> str:
    """Return a sentence that describes how the attributions were computed."""
    return (
        f"Integrated gradients with {found.steps} steps ({found.backend} on {found.device}). Positive values increase "
        "the output of the class, relative to a neutral baseline. The values add up to the difference "
        "between the two outputs, except for the convergence delta."
    )


def heading(each: Attribution) -> str:
    """Return the classes, the outputs and the convergence delta of an attribution as one line."""
    place = "" if each.position is None else f", position {each.position}"
    classes = f"true {each.label}, predicted {each.predicted}, attributed {each.target}"
    outputs = f"output {each.output:.4g}, baseline {each.baseline_output:.4g}, convergence delta {each.delta:.2g}"
    warning = "; use more --steps" if _is_imprecise(each) else ""
    return f"example {each.example}{place}: {classes}; {outputs}{warning}"


def _is_imprecise(each: Attribution) -> bool:
    return abs(each.delta) > LARGE_DELTA * max(abs(each.output - each.baseline_output), 1e-6)


def attributions_text(found: Attributions) -> str:
    """Return the attributions as text, listing the tokens that have the largest absolute values."""
    parts = ["integrated gradients"]
    for each in found.found:
        ordered = sorted(range(len(each.tokens)), key=lambda place: -abs(each.scores[place]))[:MOST_TOKENS]
        tokens = [f"    {each.scores[place]:+.4f}  {each.tokens[place]} ({place})" for place in ordered]
        parts += [f"  {heading(each)}", *tokens]
    if not found.found:
        parts.append("  There is nothing to attribute: all true and predicted classes are the most frequent class.")
    return "\n".join([*parts, attributions_note(found)])
