"""Conversion of a table into examples: column roles, targets, features and file paths."""

from __future__ import annotations

import math
import os
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from harness.data.user_files import columns as reading
from harness.data.user_files import dates
from harness.data.user_files import features as values
from harness.data.user_files.columns import Columns
from harness.data.user_files.date_columns import date_parts, date_values, moments
from harness.data.user_files.examples import Examples, check_file, spelled, with_digest
from harness.data.user_files.folders import Tree, ignored_files, scan
from harness.data.user_files.location import MEDIA, is_metadata
from harness.data.user_files.media import content_digest, file_digests
from harness.data.user_files.notations import PLAIN, Notation, with_missing
from harness.data.user_files.options import AudioOptions, TableOptions, TextOptions, UserOptions
from harness.data.user_files.problems import Problems
from harness.data.user_files.splitting import NAMES
from harness.data.user_files.tables import Table
from harness.errors import DataError, UsageError

TARGETS = ("label", "target", "class")

TEXTS = ("text", "sentence")

PATHS = ("path", "file", "file_name", "filename")


def from_table(
    path: Path,
    table: Table,
    kind: str,
    objective: str,
    options: UserOptions,
    problems: Problems,
    listed_in: Path | None = None,
) -> Examples:
    """Return the rows in a table. `listed_in` is the folder with the files that the metadata table should list."""
    columns = Columns(table)
    assigned = {
        name: columns.assign(getattr(options, name, None))
        for name in ("split_column", "fold_column", "group_column", "weight_column", "text_column", "path_column")
    }
    sliced = {
        reading.INTERSECTION.join(parts): parts
        for parts in map(columns.intersected, columns.joined(options.slice_columns))
    }
    slices = tuple(dict.fromkeys(name for parts in sliced.values() for name in parts))
    given = options.target_column
    named = columns.joined((given,) if isinstance(given, str) else given or ())
    targets = tuple(columns.assign(name) or "" for name in named)
    if objective == "classification" and len(targets) > 1:
        raise UsageError(f"classification takes one target column, got {len(targets)}: {', '.join(targets)}")
    chosen = columns.joined(getattr(options, "feature_columns", ()))
    time_column = options.time_column
    if time_column is not None:
        columns.require(time_column)
        if time_column not in (*chosen, *getattr(options, "date_columns", ())):
            columns.assign(time_column)
        if table.folders:
            raise UsageError(f"{table.source}: the folders define the splits; remove dataset.time_column")
        if columns.infer_by_name("split_column", ("split",), reading.holds_splits):
            raise UsageError(
                f"{table.source} has a split column; remove it from the file, or remove dataset.time_column"
            )
    elif table.folders:
        options.check_no_given_splits(table.source, "the folders")
    else:
        assigned["split_column"] = assigned["split_column"] or columns.infer_by_name(
            "split_column", ("split",), reading.holds_splits
        )
        if assigned["split_column"]:
            options.check_no_given_splits(table.source, f"column {assigned['split_column']!r}")
    features = tuple(columns.assign(name) or "" for name in chosen)
    if not targets:
        inferred = columns.infer_by_name("target_column", TARGETS) or columns.infer_by_name("target_column", ("y",))
        targets = (inferred,) if inferred else ()
    notation = _declared(options)
    found = Examples(table.where, options, problems, warnings=list(table.warnings), table=table)
    file_names: list[str] = []
    if isinstance(options, TextOptions):
        texts = assigned["text_column"] or columns.infer_by_name("text_column", TEXTS)
        assigned["text_column"] = texts = texts or columns.infer_only("text_column", reading.holds_text)
        found.texts = reading.texts(table, texts, problems)
        found.warnings += reading.word_warnings(found.texts, texts, "text")
    elif isinstance(options, AudioOptions):
        paths = assigned["path_column"] or columns.infer_by_name("path_column", PATHS)
        paths = paths or columns.infer_only("path_column", lambda cells: _holds_paths(cells, kind))
        assigned["path_column"] = paths
        names = reading.words(table, paths, "path", problems)
        folders = [path / name for name in table.folders] or [path.parent] * len(names)
        _entries.cache_clear()
        found.files = [resolved(folder, name) for folder, name in zip(folders, names, strict=True)]
        cases = sum(
            file.name != Path(name.replace("\\", "/")).name
            and file.name.casefold() == Path(name.replace("\\", "/")).name.casefold()
            for name, file in zip(names, found.files, strict=True)
        )
        if cases:
            found.warnings.append(f"{cases:,} paths differ from the file names in letter case")
        windows = sum("\\" in name and file.exists() for name, file in zip(names, found.files, strict=True))
        if windows:
            found.warnings.append(f"{windows:,} paths with backslashes were read as paths with slashes")
        if listed_in is not None:
            found.warnings += _unlisted(listed_in, kind, found.files)
        found.digests = file_digests(found.files)
        file_names = found.names = names
    if not targets:
        targets = (columns.infer_only("target_column"),)
    if isinstance(options, TableOptions):
        features = features or tuple(columns.infer_rest("feature_columns", without=slices))
        if unused := [name for name in columns.unassigned() if name in slices]:
            found.warnings.append(
                f"slice columns that are not features: {', '.join(map(repr, unused))}; to use them as features, list "
                "them in --feature-columns"
            )
        known = (*options.categorical_columns, *options.date_columns)
        if typed := tuple(name for name in table.categorical if name in features and name not in known):
            options = msgspec.structs.replace(options, categorical_columns=(*options.categorical_columns, *typed))
            columns.guessed.append("categorical_columns")
        _features(found, table, features, slices, options)
        found.warnings += _unused_words(table, (*features, *targets), options.missing_values)
    if objective == "classification":
        found.labels = spelled(reading.words(table, targets[0], "label", problems), "label", found.warnings)
        found.warnings += reading.word_warnings(found.labels, targets[0], "labels")
    else:
        found.numbers = [_target(found, table, name, notation) for name in targets]
    if table.folders:
        if assigned["split_column"]:
            raise UsageError(f"{table.source}: the folders define the splits; remove dataset.split_column")
        found.splits = [NAMES[name.lower()] for name in table.folders]
    elif assigned["split_column"]:
        found.splits = reading.splits(table, assigned["split_column"], problems)
        found.warnings += reading.split_warnings(table, assigned["split_column"])
    if time_column is not None:
        found.times = moments(table, time_column, problems, options.date_format)
    else:
        found.ordered = _ordered(table)
    found.warnings += reading.unused_splits(table, assigned["split_column"] or assigned["fold_column"])
    if assigned["weight_column"]:
        found.weights = values.weights(table, assigned["weight_column"], problems, notation)
    if assigned["group_column"]:
        found.groups = spelled(
            reading.words(table, assigned["group_column"], "group", problems), "group", found.warnings
        )
        found.warnings += reading.word_warnings(found.groups, assigned["group_column"], "groups")
    if assigned["fold_column"]:
        found.folds = spelled(reading.folds(table, assigned["fold_column"], problems), "fold", found.warnings)
    declared = (*getattr(options, "categorical_columns", ()), *table.categorical)
    found.slices = {
        name: reading.slice_values(table, name, names=name in declared, notation=notation) for name in slices
    }
    for where, file in zip(table.where, found.files, strict=False):
        if where not in problems:
            check_file(where, file, kind, problems)
    filled: dict[str, Any] = {name: column for name, column in assigned.items() if hasattr(options, name)}
    filled["slice_columns"] = tuple(sliced)
    filled["target_column"] = targets[0] if objective == "classification" else targets
    if found.folds is not None:
        filled["folds"] = reading.number_of_folds(found.folds, table.source, options)
    if isinstance(options, TableOptions):
        filled["feature_columns"] = features
    tables = [] if table.folders else [path]
    digest = content_digest(
        [*(file.suffix.lower() for file in tables), *file_names], [*file_digests(tables), *found.digests]
    )
    found.options = with_digest(path, msgspec.structs.replace(options, **filled), digest)
    found.guessed = tuple(columns.guessed)
    return found


def resolved(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder.

    If the file does not exist, variants of its name are tried. The variants differ in Unicode normalization form or
    letter case, or have slashes in place of Windows backslashes.
    """
    plain = folder / name
    forms = [form for text in (name, name.replace("\\", "/")) for form in (text, *_normal_forms(text))]
    try:
        found = next((folder / form for form in forms if (folder / form).exists()), None)
        return found or next((path for form in forms if (path := _without_case(folder, form))), plain)
    except (OSError, ValueError):  # an invalid name is reported when the file is read
        return plain


def _without_case(folder: Path, name: str) -> Path | None:
    """Return the file whose relative path matches the name, ignoring letter case. Return None unless exactly one file
    matches.
    """
    found = [folder]
    for part in Path(name).parts:
        if part in ("..", "/"):
            return None
        found = [path / entry for path in found for entry in _entries(path).get(part.casefold(), ())]
    return found[0] if len(found) == 1 else None


@cache
def _entries(folder: Path) -> dict[str, list[str]]:
    """Return the names in a folder, keyed by their case-folded form. Return an empty dictionary for a file."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder) if folder.is_dir() else ():  # noqa: PTH208 - names, not paths
        names.setdefault(name.casefold(), []).append(name)
    return names


def _normal_forms(text: str) -> tuple[str, ...]:
    return () if text.isascii() else (unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))


def _unlisted(root: Path, kind: str, files: Sequence[Path]) -> list[str]:
    """Return a warning if there are files below `root` that the metadata does not list."""
    tree: Tree = scan(root, kind)
    listed = {os.path.normpath(file) for file in files}
    missing = [name for name in tree.files if os.path.normpath(root / name) not in listed]
    tables = {name for name in tree.others if is_metadata(Path(name))}
    warnings = ignored_files(tree, kind, tables)
    if missing:
        warnings.append(
            f"{len(missing):,} {kind} files are not listed in the metadata and were ignored: {missing[0]}"
            + (", ..." if len(missing) > 1 else "")
        )
    return warnings


def _holds_paths(cells: Sequence[Any], kind: str) -> bool:
    known = [cell for cell in cells if isinstance(cell, str) and cell]
    return bool(known) and 2 * sum(cell.lower().endswith(MEDIA[kind]) for cell in known) > len(known)


def _declared(options: UserOptions) -> Notation:
    """Return the number notation declared by the options."""
    if not isinstance(options, TableOptions):
        return PLAIN
    return with_missing(options.missing_values, options.decimal, options.thousands)


def _unused_words(table: Table, names: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return a warning if words that the user declared as missing values do not occur in the columns."""
    cells = {str(cell).strip().lower() for name in names for cell in table.columns[name]} if words else set()
    numbers = {PLAIN.number(cell) for cell in cells} - {None}
    unused = [word for word in words if word.strip().lower() not in cells and PLAIN.number(word) not in numbers]
    return [f"no cell contains {reading.listed(unused)}, declared in dataset.missing_values"] if unused else []


def _target(found: Examples, table: Table, name: str, declared: Notation) -> list[float]:
    """Return the values of a target column, and add warnings about the column."""
    notation, warnings = values.notation_of(table, name, declared, target=True)
    found.notations[name] = notation or declared
    numbers, more = values.numbers(table, name, found.problems, notation or declared, target=True)
    found.warnings += [*warnings, *more]
    return numbers


def _features(
    found: Examples, table: Table, features: Sequence[str], slices: Sequence[str], options: TableOptions
) -> None:
    """Add the features of a table. Slice columns that are not features may also be declared categorical."""
    if not features:
        raise UsageError(f"{table.source}: there are no feature columns, because every column has another role")
    roles = (
        ("categorical", options.categorical_columns, (*features, *slices)),
        ("date", options.date_columns, features),
    )
    for option, listed, allowed in roles:
        unknown = [name for name in listed if name not in allowed]
        if unknown:
            raise UsageError(f"{option} column {unknown[0]!r} is not one of the feature columns: {', '.join(features)}")
    both = [name for name in options.date_columns if name in options.categorical_columns]
    if both:
        raise UsageError(f"column {both[0]!r} is listed in dataset.date_columns and in dataset.categorical_columns")
    refused: dict[str, DataError] = {}
    for name in features:
        try:
            _feature(found, table, name, options)
        except DataError as error:
            refused[name] = error
    if refused:
        raise DataError(_refusal(table, features, refused))


def _feature(found: Examples, table: Table, name: str, options: TableOptions) -> None:
    """Add one feature column of a table. Raises `harness.DataError` if the column cannot be used as a feature."""
    declared = _declared(options)
    if name in options.date_columns:
        known = date_values(table, name, found.problems, options.date_format, declared)
        parts, warnings = date_parts(table, name, known, options.date_format)
        found.warnings += warnings
        found.date_parts[name] = list(parts)
        found.time_zones[name] = sorted({dates.zone(value) for value in known if isinstance(value, datetime)})
        found.features += parts.values()
        found.feature_names += [f"{name} ({part})" for part in parts]
        return
    categorical = name in options.categorical_columns
    notation, warnings = (None, []) if categorical else values.notation_of(table, name, declared)
    if notation is None:
        cells, more = values.categories(table, name, found.problems, declared, declared=categorical)
        found.categories.append(spelled(cells, f"category of column {name!r}", found.warnings))
        found.category_names.append(name)
    else:
        found.notations[name] = notation
        numbers, more = values.numbers(table, name, found.problems, notation)
        found.features.append(numbers)
        found.feature_names.append(name)
        if all(map(math.isnan, numbers)):
            raise DataError(
                f"{table.source}: column {name!r} has no values; select the features with --feature-columns "
                "(dataset.feature_columns)"
            )
    found.warnings += [*warnings, *more]


def _refusal(table: Table, features: Sequence[str], refused: Mapping[str, DataError]) -> str:
    """Return a message about the columns that cannot be used as features. If other columns remain, the message includes
    the option that selects these columns.
    """
    others = [name for name in features if name not in refused]
    option = f"--feature-columns {shlex.quote(','.join(others))}"
    advice = f"to use only the other columns, pass {option}" if others else "no other column can be used as a feature"
    texts = [str(error).removeprefix(f"{table.source}: ") for error in refused.values()]
    if len(texts) == 1:
        return f"{table.source}: {texts[0]}; {advice}"
    reasons = [text.partition("; ")[0] for text in texts]
    remedy = texts[0].partition("; ")[2]
    return (
        f"{table.source}: {len(reasons)} columns cannot be used as features: {'; '.join(reasons)}"
        + (f"; for the first one: {remedy}" if remedy else "")
        + f"; {advice}"
    )


def _ordered(table: Table) -> dict[str, str]:
    """Return a description of the row order, keyed by the name of each time column whose values are ordered."""
    found = {}
    for name, cells in table.columns.items():
        dated = (
            name.strip().lower() in dates.NAMES
            or all(map(dates.looks_dated, cells[:20]))
            or dates.are_digits(cells)
            or (dates.are_epochs(cells[:20]) and dates.are_epochs(cells))
        )
        if dated and (order := dates.order(cells, [PLAIN.number(cell) for cell in cells])):
            found[name] = order
    return found
