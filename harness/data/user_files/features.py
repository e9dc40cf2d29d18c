"""Detection and conversion of numeric, categorical and date columns."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, time
from typing import Any

from harness.data.user_files import dates
from harness.data.user_files.columns import is_missing, listed, shown, word_warnings
from harness.data.user_files.encodings import INCOMPLETE, is_encodable
from harness.data.user_files.notations import MISSING, PLAIN, Finding, Notation, examined
from harness.data.user_files.problems import Problems
from harness.data.user_files.tables import Table
from harness.data.user_files.training_values import spelled_as, spellings
from harness.errors import DataError

LARGEST = 1e100
"""Largest accepted absolute value of a number. The limit ensures that the sum of squares computed for standardization
is finite.
"""
NESTED = re.compile(r"\[.*[,\d].*\]|\{.*:.*\}", re.DOTALL)
"""Pattern that matches text that looks like a list or an object."""
POINT, WHOLE = re.compile(r"-?[1-9]\d{0,2}\.\d{3}"), re.compile(r"-?\d{1,3}")
"""Patterns for numbers whose point may be a thousands separator, and for integers with at most three digits.
"""
QUANTITY = re.compile(r"[(<>=~\u2264\u2265\u2248\u00b1+-]*\s*[$\u20ac\u00a3]?\s?\d|P(T\d|\d+[YMWD])")
"""Pattern that matches the start of text containing a quantity, such as a range, a fraction, a duration or a bound."""
LONGEST_QUANTITY = 20
"""Maximum length of a text that is considered a quantity. Identifiers that start with a digit are often longer."""
FEW, RARE = 3, 0.05
"""Cells of a different type are treated as isolated errors if there are fewer than `FEW` of them. If there are at least
`FEW` cells of a different type, they are treated as isolated errors only if each value occurs fewer than `FEW` times
and at most a fraction `RARE` of the known cells are of a different type.
"""


def notation_of(
    table: Table, column: str, declared: Notation, *, target: bool = False
) -> tuple[Notation | None, list[str]]:
    """Return the notation of a numeric column (None for a categorical column), and a list of warnings.

    Whether a column is numeric or categorical is determined by the majority of its cells, ignoring missing values.
    Raises `harness.DataError` if the column contains dates, nested values, or numbers whose notation was not declared.
    """
    cells = table.columns[column]
    where = f"{table.source}: {'target ' * target}column {column!r}"
    if plain_numbers(table.columns[column], declared) is not None:
        return declared, _doubts(column, cells, declared)
    cells = [cell for cell in cells if not declared.is_missing(cell)]
    _check_kinds(where, column, cells, target)
    finding = examined(cells, declared)
    found, warnings = declared, []
    if finding is not None and 2 * finding.count > len(cells):
        if finding.notation is not None:
            found, warnings = finding.notation, [_read_as(column, finding)]
        elif finding.odd >= FEW or finding.odd > RARE * len(cells):
            raise DataError(f"{where} {_refusal(column, finding, declared, target=target)}")
    texts = sum(count for cell, count in _counted(cells) if found.number(cell) is None)
    if 2 * texts > len(cells) and not target:
        return None, []
    return found, [*warnings, *_doubts(column, cells, found)]


def _counted(cells: Sequence[Any]) -> Iterable[tuple[Any, int]]:
    """Return the distinct cells, and the number of times each cell occurs. If any cell is not a string, all cells are
    listed separately.
    """
    return Counter(cells).items() if all(type(cell) is str for cell in cells) else ((cell, 1) for cell in cells)


def _check_kinds(where: str, column: str, cells: Sequence[Any], target: bool) -> None:
    """Raise `harness.DataError` if most of the cells are nested values, dates or times."""
    if _most(_is_nested, cells):
        nested = next(filter(_is_nested, cells))
        raise DataError(
            f"{where} contains nested values, such as {shown(nested)}; write each value into a separate column"
            + ("" if target else ", or select the features with --feature-columns (dataset.feature_columns)")
        )
    if _most(_is_other, cells):
        kind = type(next(filter(_is_other, cells))).__name__
        raise DataError(
            f"{where} contains values of the type {kind}, which are neither numbers nor text; convert them"
            + ("" if target else ", or select the features with --feature-columns (dataset.feature_columns)")
        )
    if not _most(dates.looks_dated, cells):
        return
    dated = [cell for cell in cells if dates.looks_dated(cell)]
    first = dated[0]
    what = f"{where} contains dates or times ({len(dated):,} of {len(cells):,} cells, such as {str(first)!r})"
    if target:
        raise DataError(f"{what}; convert them to numbers, such as days since a fixed date")
    forms = " or ".join(repr(f"dataset.date_format={form}") for form in dates.fitting(dated[:1000]))
    declared = f" --set {forms}" if forms else " and set dataset.date_format to the format of the cells"
    iso = "" if dates.parsed(first, None) is not None else declared
    raise DataError(
        f"{what}; pass {_setting('date_columns', column)}{iso} to use year, month, day, weekday and hour as features, "
        f"{_setting('categorical_columns', column)} to use categories, --time-column to split the rows by time, or "
        "select the features with --feature-columns"
    )


def _most(condition: Callable[[Any], bool], cells: Sequence[Any]) -> bool:
    """Return True if the condition holds for most cells.

    A sample of the first cells and of evenly spaced cells is checked first. All cells are checked only if the condition
    holds for at least one cell in the sample.
    """
    if not any(map(condition, [*cells[:50], *cells[:: len(cells) // 500 + 1]])):
        return False
    return 2 * sum(map(condition, cells)) > len(cells)


def _is_other(cell: Any) -> bool:
    return not isinstance(cell, str | date | time) and PLAIN.number(cell) is None and not isinstance(cell, bool)


def _is_nested(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.lstrip()[:1] in ("[", "{") and NESTED.fullmatch(cell.strip()) is not None
    return isinstance(cell, list | dict)


def _read_as(column: str, finding: Finding) -> str:
    assert finding.notation is not None
    value = finding.notation.number(finding.example)
    how = "were read as numbers without" if finding.notation.affix else "were read with"
    return f"column {column!r}: {finding.odd:,} cells {how} {finding.what}, such as {finding.example!r} as {value:g}"


def _refusal(column: str, finding: Finding, declared: Notation, *, target: bool) -> str:
    """Return the reason why a numeric column is rejected, and the options that allow it to be read."""
    cells = f"{finding.odd:,} of {finding.count:,} numbers"
    categories = "" if target else f", or pass {_setting('categorical_columns', column)} to use categories"
    if not finding.of_separators:
        what = f"has {finding.what}, such as in {finding.example!r}"
        return f"{what}; convert all numbers to one unit and remove the unit from the cells{categories}"
    if not finding.options:
        return (
            f"contains numbers with different separators ({cells}, such as {finding.example!r}); write all of them "
            f"with the same separators{categories}"
        )
    if declared.decimal != "." or declared.thousands:
        stated = f"a decimal {'comma' if declared.decimal == ',' else 'point'}"
        stated += f" and the thousands separator {declared.thousands!r}" if declared.thousands else ""
        return (
            f"contains numbers with separators other than those declared, {stated} ({cells}, such as "
            f"{finding.example!r}); write the numbers of all columns with the same separators, or correct "
            f"dataset.decimal and dataset.thousands{categories}"
        )
    ways = [f"pass {_separators(decimal, thousands)} to read {value}" for decimal, thousands, value in finding.options]
    several = "; their meaning is unclear" if len(ways) > 1 else ""
    return (
        f"contains numbers with {finding.what} that were not declared ({cells}, such as {finding.example!r}{several}); "
        f"{', or '.join(ways)}{categories}"
    )


def _separators(decimal: str, thousands: str) -> str:
    settings = [f"dataset.decimal={decimal}"] if decimal != "." or thousands == "." else []
    settings += [f"dataset.thousands={json.dumps(thousands) if thousands == ' ' else thousands}"] if thousands else []
    return (
        " ".join(f"--set {_quoted(setting)}" for setting in settings)
        or "--set dataset.decimal=. and no dataset.thousands"
    )


def _setting(option: str, *values: str) -> str:
    return f"--set {_quoted(f'dataset.{option}={json.dumps(list(values), ensure_ascii=False)}')}"


def _quoted(setting: str) -> str:
    """Quote an argument for a POSIX shell."""
    return shlex.quote(setting) if "'" in setting else f"'{setting}'"


def _doubts(column: str, cells: Sequence[Any], notation: Notation) -> list[str]:
    """Return warnings about plain numbers that may have been misinterpreted, such as codes with leading zeros."""
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    warnings = []
    padded = next((text for text in texts if text.endswith("0") and POINT.fullmatch(text)), None)
    if (
        notation.decimal == "."
        and padded
        and all(POINT.fullmatch(text) or WHOLE.fullmatch(text) for text in texts)
        and any(map(WHOLE.fullmatch, texts))
    ):
        warnings.append(
            f"column {column!r}: {padded!r} was read with a decimal point; if the point separates thousands, pass "
            "--set dataset.decimal=, --set dataset.thousands=."
        )
    zeros = [text for text in texts if text[:1] == "0" and len(text) > 1 and text.isdecimal()]
    if zeros:
        warnings.append(
            f"column {column!r}: {len(zeros):,} cells that start with a zero, such as {zeros[0]!r}, were read as "
            f"numbers; if they are codes, pass {_setting('categorical_columns', column)}"
        )
    large = [cell for cell in cells if (not isinstance(cell, str) or len(cell) > 15) and _is_inexact(cell)]
    if large:
        warnings.append(
            f"column {column!r}: {len(large):,} integers, such as {str(large[0])[:30]!r}, are too large to be "
            f"represented exactly as floats; if they are identifiers, leave the column out with --feature-columns"
        )
    if dates.are_digits(cells):
        warnings.append(
            f"column {column!r} was read as numbers, but all of them look like dates, such as {shown(cells[0])}; pass "
            f"{_setting('date_columns', column)} to use year, month, day and weekday as features"
        )
    return warnings


def _is_inexact(cell: Any) -> bool:
    """Return whether a cell is an integer that may be too large for double precision."""
    if isinstance(cell, str):
        return cell.strip().isdecimal() and int(cell) > 2**53
    return isinstance(cell, int) and abs(cell) > 2**53


def plain_numbers(cells: Sequence[Any], notation: Notation) -> list[float] | None:
    """Return the numbers if all cells are strings with plain finite numbers.

    Converting all cells at once is much faster than converting them one by one.
    """
    if not notation.is_standard or not all(type(cell) is str for cell in cells) or "_" in "".join(cells):
        return None
    try:
        found = list(map(float, cells))
    except ValueError:
        return None
    return found if found and max(found) <= LARGEST and min(found) >= -LARGEST and sum(found) == sum(found) else None


def numbers(
    table: Table,
    column: str,
    problems: Problems,
    notation: Notation = PLAIN,
    *,
    target: bool = False,
    what: str = "",
    new: bool = False,
) -> tuple[list[float], list[str]]:
    """Return the numbers in a column, and a list of warnings. Rows whose value is not a finite number are added to
    `problems`.

    A missing value becomes NaN in a feature column and is added to `problems` in a target column. `what` describes the
    column in messages. Raises `harness.DataError` if several cells of a feature column contain text, because the text
    may be categories. For `new` data passed to a trained model, the error is not raised, because the column is known to
    be numeric.
    """
    plain = plain_numbers(table.columns[column], notation)
    if plain is not None:
        return plain, []
    found = []
    what = what or ("target column" if target else "column")
    texts: Counter[str] = Counter()
    for where, cell in zip(table.where, table.columns[column], strict=True):
        value = notation.number(cell)
        if value is None:
            mixed = "" if target else "mixed types: "
            problems.add(where, f"{mixed}{what} {column!r} contains {shown(cell)}, which is not a number")
            texts[str(cell).strip()] += 1
        elif math.isinf(value):
            problems.add(where, f"{what} {column!r} contains {shown(cell)}, which is not finite")
        elif abs(value) > LARGEST:
            problems.add(
                where, f"{what} {column!r} contains {shown(cell)}, which is larger than {LARGEST:g} in absolute value"
            )
        elif target and math.isnan(value):
            problems.add(where, f"{what} {column!r} has no value ({shown(cell)})")
        found.append(math.nan if value is None else value)
    if target:
        return found, []
    if not new:
        advice = _setting("missing_values", *list(texts)[:3]) + "  if the cells denote missing values, or  "
        _check_rare(table, column, texts, "numbers", advice)
    words = Counter(cell.strip() for cell in table.columns[column] if _is_word(cell) and notation.is_missing(cell))
    count = sum(words.values())
    how = "cell with {} was read as a missing value" if count == 1 else "cells with {} were read as missing values"
    return found, [f"column {column!r}: {count:,} {how.format(listed(words))}"] if words else []


def _is_word(cell: Any) -> bool:
    return isinstance(cell, str) and not cell.isspace() and cell != ""


def weights(table: Table, column: str, problems: Problems, notation: Notation = PLAIN) -> list[float]:
    """Return the numbers in the weight column. Rows whose weight is missing, negative or not a finite number are added
    to `problems`."""
    found, _ = numbers(table, column, problems, notation, target=True, what="weight column")
    for where, weight in zip(table.where, found, strict=True):
        if weight < 0:
            problems.add(where, f"weight column {column!r} contains {weight:g}, but a weight must be at least 0")
    return found


def categories(
    table: Table,
    column: str,
    problems: Problems,
    notation: Notation = PLAIN,
    *,
    declared: bool,
    trained: Collection[str | None] | None = None,
) -> tuple[list[str | None], list[str]]:
    """Return the category in each row of a column (None for missing values), and a list of warnings.

    Words such as ``NA`` are treated as categories, unless the user declared them as missing values. If a cell contains
    a number, its row is added to `problems`, unless the user declared the column as categorical (`declared`). Raises
    `harness.DataError` if several rows contain numbers, or if nearly every row contains a different string. For new
    data, `trained` contains the categories that the model knows, and the error is not raised. Numbers and booleans in
    files with typed cells are converted to the spelling of these categories, for example 2 to ``2.0``.
    """
    found: list[str | None] = []
    rare: Counter[str] = Counter()
    missing = notation.missing - MISSING
    known: dict[str, str] = {}
    written = spellings(trained or ())
    for where, cell in zip(table.where, table.columns[column], strict=True):
        if type(cell) is str and cell in known:
            found.append(known[cell])
        elif is_missing(cell) or str(cell).strip().lower() in missing:
            found.append(None)
        elif not isinstance(cell, str | int | float) or (isinstance(cell, float) and not math.isfinite(cell)):
            problems.add(where, f"column {column!r} contains {shown(cell)}, which is not a category")
            found.append(None)
        elif isinstance(cell, str) and not is_encodable(cell):
            problems.add(where, f"the category in column {column!r} contains {INCOMPLETE}")
            found.append(None)
        elif not declared and not notation.is_missing(cell) and notation.number(cell) is not None:
            problems.add(
                where,
                f"mixed types: column {column!r} contains the number {shown(cell)}, but most of its cells are text",
            )
            rare[str(cell).strip()] += 1
            found.append(None)
        else:
            found.append(cell.strip() if isinstance(cell, str) else _category(cell, written))
            if type(cell) is str:
                known[cell] = cell.strip()
    if trained is not None:
        return found, []
    _check_rare(table, column, rare, "text", "")
    distinct = len({cell for cell in found if cell is not None})
    if not declared and distinct > max(20, len(found) // 2):
        amounts = [cell for cell in found if cell and len(cell) <= LONGEST_QUANTITY and QUANTITY.match(cell)]
        several = 2 * len(amounts) > len(found)
        advice = f"convert cells such as {shown(amounts[0])} to plain numbers, or " if several else ""
        raise DataError(
            f"{table.source}: column {column!r} has {distinct} distinct strings in {len(found)} rows, too many for a "
            f"categorical feature; {advice}select the features with --feature-columns (dataset.feature_columns)"
        )
    known_cells = [cell for cell in found if cell]
    quantities = [] if declared else [cell for cell in known_cells if QUANTITY.match(cell)]
    warnings = word_warnings(known_cells, column, "categories")
    if 2 * len(quantities) > len(known_cells):
        shown_cells = listed(dict.fromkeys(quantities))
        warnings.append(
            f"column {column!r}: cells such as {shown_cells} contain numbers, but were read as {distinct:,} "
            "categories; convert them to plain numbers if their size or order matters, or pass "
            f"{_setting('categorical_columns', column)} if they are categories"
        )
    return found, warnings


def _category(cell: float, known: Mapping[float | str, Sequence[str]]) -> str:
    """Return a number or boolean as a category, spelled as in `known` if there is only one spelling."""
    if (name := spelled_as(cell, known)) is not None:
        return name
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _check_rare(table: Table, column: str, rare: Counter[str], usual: str, advice: str) -> None:
    """Raise `harness.DataError` if there are too many cells of a different type to treat them as isolated errors."""
    known = sum(not is_missing(cell) for cell in table.columns[column])
    total, most = rare.total(), max(rare.values(), default=0)
    if total < FEW or (most < FEW and total <= RARE * known):
        return
    values = ", ".join(f"{value[:40]!r} ({count:,})" for value, count in rare.most_common(3))
    more = f" and {len(rare) - 3} more" if len(rare) > 3 else ""
    raise DataError(
        f"{table.source}: column {column!r} contains {usual}, except for {total:,} of {known:,} cells: {values}{more}; "
        f"these cells are not treated as bad rows, because they may be categories: pass {advice}"
        f"{_setting('categorical_columns', column)} if the column contains categories, or correct the cells"
    )
