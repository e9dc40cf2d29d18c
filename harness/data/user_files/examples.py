"""Rows of a file or folder with their labels, splits and groups, before files are decoded and splits are drawn."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from harness.data.user_files import columns as reading
from harness.data.user_files import dates, spelling
from harness.data.user_files import features as values
from harness.data.user_files.columns import Columns
from harness.data.user_files.folders import Tree, check_names, files_by_class, ignored_files, scan
from harness.data.user_files.location import MEDIA, is_hidden, is_table
from harness.data.user_files.media import UNREAD, UnreadableError, check_header, content_digest, file_digests
from harness.data.user_files.notations import PLAIN, Notation, with_missing
from harness.data.user_files.options import AudioOptions, OwnOptions, TableOptions, TextOptions
from harness.data.user_files.problems import Problems
from harness.data.user_files.spelling import Name
from harness.data.user_files.splitting import NAMES
from harness.data.user_files.tables import Table, read_table
from harness.errors import DataError, UsageError

TARGETS = ("label", "target", "class")
TEXTS = ("text", "sentence")
PATHS = ("path", "file", "file_name", "filename")


@dataclass
class Examples:
    """Sequences with one item per row, including the bad rows listed in `problems`."""

    where: list[str]
    options: OwnOptions
    """Options with all columns and the content's digest filled in."""
    problems: Problems
    labels: list[str] | None = None
    """Class labels; None for regression, whose targets are in `numbers`."""
    numbers: list[list[float]] = field(default_factory=list)
    """Values of each target column."""
    splits: list[str] | None = None
    groups: list[str] | None = None
    slices: dict[str, list[float] | list[str]] = field(default_factory=dict)
    """Values of each slice column."""
    texts: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    """Digest of each file's content, and of the decoded content once it is known."""
    bytes_digests: list[str] = field(default_factory=list)
    """Digest of each file's content if `digests` are those of the decoded content."""
    features: list[list[float]] = field(default_factory=list)
    """Values of each numeric column; NaN marks a missing value."""
    feature_names: list[str] = field(default_factory=list)
    """Name of each numeric column. The parts of a date are separate columns."""
    categories: list[list[str | None]] = field(default_factory=list)
    category_names: list[str] = field(default_factory=list)
    times: list[float] | None = None
    """Time of each row, by which the rows are split."""
    ordered: list[str] = field(default_factory=list)
    """Columns of times by which the rows of the file are in order."""
    guessed: tuple[str, ...] = ()
    """Names of the options that were inferred."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about what was ignored, merged or changed."""
    table: Table | None = None
    """Table with the rows; None for a folder of class folders."""

    def contents(self) -> list[Hashable] | None:
        """Return a value for each row that is equal for copies of one example. None if repeated rows are not copies.

        Texts are compared without letter case and invisible characters and with single blanks, files by their digests,
        and tables by all features.
        If at least half of the rows of a table repeat others, its features have few distinct values, so that equal rows
        are different examples.
        """
        if self.texts:
            return [spelling.visible(unicodedata.normalize("NFC", text).casefold()) for text in self.texts]
        if self.digests:
            return [row if digest == UNREAD else digest for row, digest in enumerate(self.digests)]
        features = [
            [None if value != value else value for value in column] if any(map(math.isnan, column)) else column
            for column in self.features
        ]  # NaN does not equal NaN
        rows: list[Hashable] = list(zip(*features, *self.categories, strict=True))
        return rows if 2 * len(set(rows)) > len(rows) else None

    def all_warnings(self) -> tuple[str, ...]:
        """Return the warnings, each of them once, with one about the rows that were skipped."""
        return tuple(dict.fromkeys((*self.problems.warnings(), *self.warnings)))

    def good(self) -> list[int]:
        """Return the indices of the rows without problems."""
        if not self.problems:
            return list(range(len(self.where)))
        return [number for number, where in enumerate(self.where) if where not in self.problems]


def read(path: Path, kind: str, objective: str, options: OwnOptions) -> Examples:
    """Return the rows of `path`. Problems with individual rows are collected in the result's `problems`.

    Raises `harness.DataError` and `harness.UsageError` for problems with the whole file or folder.
    """
    problems = Problems(path.name, options.on_bad_row)
    entries = _folder_entries(path)
    if entries is not None and kind in MEDIA:
        metadata = [file for file in entries if _is_metadata(file)]
        if len(metadata) > 1:
            names = ", ".join(file.name for file in metadata)
            raise DataError(f"{path}: the folder has several metadata files: {names}; pass the path of one of them")
        if not metadata:
            by_split = _split_metadata(path, entries)
            if by_split:
                table = _joined(path, by_split, problems, options)
                return _from_table(path, table, kind, objective, options, problems, listed_in=path)
            return _from_folders(path, kind, options, problems)
        folder, path = path, metadata[0]
        table = read_table(path, problems, encoding=options.encoding, separator=options.separator)
        return _from_table(path, table, kind, objective, options, problems, listed_in=folder)
    if entries is not None:
        tables = [file.name for file in entries if is_table(file) and not is_hidden(file.name)]
        hint = f"; the folder contains {', '.join(tables[:5])}" if tables else ""
        raise UsageError(f"{path} is a folder; pass a CSV, TSV, JSONL or Parquet file{hint}")
    if not is_table(path) and kind in MEDIA:
        raise UsageError(
            f"{path}: unsupported file; pass a folder with a subfolder for each class, or a CSV, TSV, JSONL or Parquet "
            "file with paths and labels"
        )
    table = read_table(path, problems, encoding=options.encoding, separator=options.separator)
    return _from_table(path, table, kind, objective, options, problems)


def _is_metadata(file: Path) -> bool:
    return file.stem.lower() == "metadata" and is_table(file)


def _folder_entries(path: Path) -> list[Path] | None:
    """Return the sorted entries of a folder; None for a file. Raises `harness.UsageError` if `path` does not exist or
    cannot be read."""
    try:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        return sorted(path.iterdir()) if path.is_dir() else None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _split_metadata(root: Path, entries: Sequence[Path]) -> dict[str, Path]:
    """Return the metadata file of each split folder in `root`; empty if no split folder has one.

    Raises `harness.DataError` if a split folder has none or several while others have one.
    """
    folders = [entry for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
    found = {folder.name: sorted(file for file in folder.iterdir() if _is_metadata(file)) for folder in folders}
    if not any(found.values()):
        return {}
    for name, files in found.items():
        if name.lower() not in NAMES:
            raise DataError(
                f"{root}: there are metadata files in split folders, but {name} is not the name of a split; rename it, "
                "or use one metadata file in the top-level folder with a split column"
            )
        if len(files) != 1:
            count = "no" if not files else "more than one"
            raise DataError(f"{root}: the folder {name} has {count} metadata file; each split folder needs one")
    check_names(root, sorted(found))
    return {name: files[0] for name, files in found.items()}


def _joined(root: Path, files: Mapping[str, Path], problems: Problems, options: OwnOptions) -> Table:
    """Return the rows of the metadata files of split folders, with the split of each row."""
    tables = {}
    for name, file in files.items():
        found, prefix = Problems(f"{name}/{file.name}", problems.policy), f"{name}/{file.name} "
        table = read_table(file, found, encoding=options.encoding, separator=options.separator)
        problems.include(found, prefix)
        tables[name] = dataclasses.replace(table, where=[prefix + where for where in table.where])
    (first, expected), *others = tables.items()
    for name, table in others:
        if table.columns.keys() != expected.columns.keys():
            raise DataError(
                f"{root}: the metadata files in {first} and {name} have different columns: "
                f"{', '.join(expected.columns)} and {', '.join(table.columns)}; use the same columns"
            )
    return Table(
        source=f"{root.name}: metadata",
        columns={column: [cell for t in tables.values() for cell in t.columns[column]] for column in expected.columns},
        where=[where for table in tables.values() for where in table.where],
        folders=[name for name, table in tables.items() for _ in range(len(table))],
        warnings=[f"{name}: {warning}" for name, table in tables.items() for warning in table.warnings],
    )


def _from_folders(path: Path, kind: str, options: OwnOptions, problems: Problems) -> Examples:
    for name in ("encoding", "separator", "date_format"):
        if getattr(options, name):
            raise UsageError(
                f"dataset.{name} describes a table, but {path} is a folder of class folders; remove this option"
            )
    for name in ("target_column", "split_column", "group_column", "time_column", "path_column", "slice_columns"):
        if getattr(options, name):
            raise UsageError(
                f"dataset.{name} specifies a column, but {path} is a folder of class folders, which has no columns; "
                "add a metadata file to it (metadata.csv with a path and a label in each row)"
            )
    found = files_by_class(path, kind, getattr(options, "class_level", None))
    names = found.files
    files = [path / name for name in names]
    for name, file in zip(names, files, strict=True):
        _check_file(name, file, kind, problems)
    digests = file_digests(files)
    options = _with_digest(path, options, content_digest(names, digests))
    labels = _spelled(found.labels, "class folder", found.warnings)
    return Examples(
        names,
        options,
        problems,
        labels=labels,
        splits=found.splits,
        files=files,
        digests=digests,
        warnings=found.warnings,
    )


def _from_table(
    path: Path,
    table: Table,
    kind: str,
    objective: str,
    options: OwnOptions,
    problems: Problems,
    listed_in: Path | None = None,
) -> Examples:
    """Return the rows of a table. `listed_in` is the folder whose files a metadata table is expected to list."""
    columns = Columns(table)
    assigned = {
        name: columns.assign(getattr(options, name, None))
        for name in ("split_column", "group_column", "text_column", "path_column")
    }
    slices = columns.joined(options.slice_columns)
    for name in slices:
        columns.require(name)
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
    elif not table.folders:
        assigned["split_column"] = assigned["split_column"] or columns.infer_by_name(
            "split_column", ("split",), reading.holds_splits
        )
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
            found.warnings.append(f"{cases:,} paths differ from the names of the files in letter case")
        windows = sum("\\" in name and file.exists() for name, file in zip(names, found.files, strict=True))
        if windows:
            found.warnings.append(f"{windows:,} paths with backslashes were read as paths with slashes")
        if listed_in is not None:
            found.warnings += _unlisted(listed_in, kind, found.files)
        found.digests = file_digests(found.files)
        file_names = names
    if not targets:
        targets = (columns.infer_only("target_column"),)
    if isinstance(options, TableOptions):
        features = features or tuple(columns.infer_rest("feature_columns"))
        _features(found, table, features, options)
    if objective == "classification":
        found.labels = _spelled(reading.words(table, targets[0], "label", problems), "label", found.warnings)
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
        found.times = values.moments(table, time_column, problems, options.date_format)
    else:
        found.ordered = _ordered(table)
    found.warnings += reading.unused_splits(table, assigned["split_column"])
    if assigned["group_column"]:
        found.groups = _spelled(
            reading.words(table, assigned["group_column"], "group", problems), "group", found.warnings
        )
        found.warnings += reading.word_warnings(found.groups, assigned["group_column"], "groups")
    declared = getattr(options, "categorical_columns", ())
    found.slices = {
        name: reading.slice_values(table, name, names=name in declared, notation=notation) for name in slices
    }
    for where, file in zip(table.where, found.files, strict=False):
        if where not in problems:
            _check_file(where, file, kind, problems)
    filled: dict[str, Any] = {name: column for name, column in assigned.items() if hasattr(options, name)}
    filled["slice_columns"] = slices
    filled["target_column"] = targets[0] if objective == "classification" else targets
    if isinstance(options, TableOptions):
        filled["feature_columns"] = features
    tables = [] if table.folders else [path]
    digest = content_digest(
        [*(file.suffix.lower() for file in tables), *file_names], [*file_digests(tables), *found.digests]
    )
    found.options = _with_digest(path, msgspec.structs.replace(options, **filled), digest)
    found.guessed = tuple(columns.guessed)
    return found


def _spelled(names: Sequence[Name], what: str, warnings: list[str]) -> list[Name]:
    """Return the names in composed form, and add warnings about spellings that were merged or that look alike."""
    unified: tuple[list[Name], list[str]] = spelling.composed(names, what)
    warnings += [*unified[1], *spelling.lookalikes(unified[0], what), *spelling.mixed_truths(unified[0], what)]
    return unified[0]


def resolved(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder.

    If the file does not exist, the name is also looked up with slashes in place of backslashes, as Windows writes
    paths, in the composed and decomposed forms of Unicode, in which file systems differ, and without letter case.
    """
    plain = folder / name
    forms = [form for text in (name, name.replace("\\", "/")) for form in (text, *_normal_forms(text))]
    try:
        found = next((folder / form for form in forms if (folder / form).exists()), None)
        return found or next((path for form in forms if (path := _without_case(folder, form))), plain)
    except (OSError, ValueError):  # not a valid name; reported when the file is read
        return plain


def _without_case(folder: Path, name: str) -> Path | None:
    """Return the only file whose path below the folder differs from the name in letter case at most."""
    found = [folder]
    for part in Path(name).parts:
        if part in ("..", "/"):
            return None
        found = [path / entry for path in found for entry in _entries(path).get(part.casefold(), ())]
    return found[0] if len(found) == 1 else None


@cache
def _entries(folder: Path) -> dict[str, list[str]]:
    """Return the names in a folder by their case-folded form; empty for a file."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder) if folder.is_dir() else ():  # noqa: PTH208 - names, not paths
        names.setdefault(name.casefold(), []).append(name)
    return names


def _normal_forms(text: str) -> tuple[str, ...]:
    return () if text.isascii() else (unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))


def _unlisted(root: Path, kind: str, files: Sequence[Path]) -> list[str]:
    """Return a warning if there are files below `root` that the metadata do not list."""
    tree: Tree = scan(root, kind)
    listed = {os.path.normpath(file) for file in files}
    missing = [name for name in tree.files if os.path.normpath(root / name) not in listed]
    tables = {name for name in tree.others if _is_metadata(Path(name))}
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


def _declared(options: OwnOptions) -> Notation:
    """Return the notation of numbers that the options declare."""
    if not isinstance(options, TableOptions):
        return PLAIN
    return with_missing(options.missing_values, options.decimal, options.thousands)


def _target(found: Examples, table: Table, name: str, declared: Notation) -> list[float]:
    """Return the values of a target column, and add warnings about it."""
    notation, warnings = values.notation_of(table, name, declared, target=True)
    numbers, more = values.numbers(table, name, found.problems, notation or declared, target=True)
    found.warnings += [*warnings, *more]
    return numbers


def _features(found: Examples, table: Table, features: Sequence[str], options: TableOptions) -> None:
    """Add the features of a table."""
    if not features:
        raise UsageError(f"{table.source}: there are no feature columns, because every column has another role")
    for option, listed in (("categorical", options.categorical_columns), ("date", options.date_columns)):
        unknown = [name for name in listed if name not in features]
        if unknown:
            raise UsageError(f"{option} column {unknown[0]!r} is not one of the feature columns: {', '.join(features)}")
    both = [name for name in options.date_columns if name in options.categorical_columns]
    if both:
        raise UsageError(f"column {both[0]!r} is listed in dataset.date_columns and in dataset.categorical_columns")
    declared = _declared(options)
    for name in features:
        if name in options.date_columns:
            parts = values.date_parts(table, name, found.problems, options.date_format, declared)
            found.features += parts.values()
            found.feature_names += parts
            continue
        categorical = name in options.categorical_columns
        notation, warnings = (None, []) if categorical else values.notation_of(table, name, declared)
        if notation is None:
            cells, more = values.categories(table, name, found.problems, declared, declared=categorical)
            found.categories.append(_spelled(cells, f"category of column {name!r}", found.warnings))
            found.category_names.append(name)
        else:
            numbers, more = values.numbers(table, name, found.problems, notation)
            found.features.append(numbers)
            found.feature_names.append(name)
            if all(map(math.isnan, numbers)):
                raise DataError(
                    f"{table.source}: column {name!r} has no values; select the features with --feature-columns "
                    "(dataset.feature_columns)"
                )
        found.warnings += [*warnings, *more]


def _ordered(table: Table) -> list[str]:
    """Return the columns of times by which the rows are in order."""
    found = []
    for name, cells in table.columns.items():
        dated = (
            name.strip().lower() in dates.NAMES
            or all(map(dates.looks_dated, cells[:20]))
            or dates.are_digits(cells)
            or (dates.are_epochs(cells[:20]) and dates.are_epochs(cells))
        )
        if dated and dates.is_ordered(cells, [PLAIN.number(cell) for cell in cells]):
            found.append(name)
    return found


def _check_file(where: str, file: Path, kind: str, problems: Problems) -> None:
    try:
        check_header(file, kind)
    except UnreadableError as error:
        problems.add(where, unreadable(where, file, error))


def unreadable(where: str, file: Path, error: UnreadableError) -> str:
    """Return the message for an unreadable file. It includes the file's path unless `where` is that path."""
    if file.as_posix().endswith(where):
        return str(error)
    hint = ""
    if not file.exists():
        name = file.as_posix()
        if re.search(r"(^|/)[A-Za-z]:[\\/]", name):
            hint = "; it is an absolute path of Windows: write paths relative to the metadata file"
        elif re.search(r"(^|/)[a-z]+:/", name):
            hint = "; it is a URL: download the files, and write their paths"
        elif "\\" in name:
            hint = "; it was also looked up with slashes instead of backslashes"
    return f"{file}: {error}{hint}"


def _with_digest(path: Path, options: OwnOptions, digest: str) -> OwnOptions:
    if options.sha256 not in ("", digest):
        raise DataError(
            f"{path}: the content has changed: its SHA-256 is {digest[:16]}..., expected {options.sha256[:16]}... "
            "(dataset.sha256); restore the content, or start a new run"
        )
    return msgspec.structs.replace(options, sha256=digest)
