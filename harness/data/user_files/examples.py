"""Rows of a file or folder with their labels, splits and groups, before files are decoded and splits are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from harness.data.user_files import columns as reading
from harness.data.user_files.columns import Columns
from harness.data.user_files.location import MEDIA, is_hidden, is_table
from harness.data.user_files.media import UnreadableError, check_header, content_digest, files_by_class
from harness.data.user_files.options import AudioOptions, OwnOptions, TableOptions, TextOptions
from harness.data.user_files.problems import Problems
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
    features: list[list[float]] = field(default_factory=list)
    """Values of each numeric column; NaN marks a missing value."""
    categories: list[list[str | None]] = field(default_factory=list)
    guessed: tuple[str, ...] = ()
    """Names of the options that were inferred."""

    def good(self) -> list[int]:
        """Return the indices of the rows without problems."""
        return [number for number, where in enumerate(self.where) if where not in self.problems]


def read(path: Path, kind: str, objective: str, options: OwnOptions) -> Examples:
    """Return the rows of `path`. Problems with individual rows are collected in the result's `problems`.

    Raises `harness.DataError` and `harness.UsageError` for problems with the whole file or folder.
    """
    problems = Problems(path.name, options.on_bad_row)
    entries = _folder_entries(path)
    if entries is not None and kind in MEDIA:
        metadata = [file for file in entries if file.stem == "metadata" and is_table(file)]
        if len(metadata) > 1:
            names = ", ".join(file.name for file in metadata)
            raise DataError(f"{path}: the folder has several metadata files: {names}; pass the path of one of them")
        if not metadata:
            return _from_folders(path, kind, options, problems)
        path = metadata[0]
    elif entries is not None:
        tables = [file.name for file in entries if is_table(file) and not is_hidden(file.name)]
        hint = f"; the folder contains {', '.join(tables[:5])}" if tables else ""
        raise UsageError(f"{path} is a folder; pass a CSV, TSV, JSONL or Parquet file{hint}")
    elif not is_table(path) and kind in MEDIA:
        raise UsageError(
            f"{path}: unsupported file; pass a folder with a subfolder for each class, or a CSV, TSV, JSONL or Parquet "
            "file with paths and labels"
        )
    return _from_table(path, read_table(path, problems), kind, objective, options, problems)


def _folder_entries(path: Path) -> list[Path] | None:
    """Return the sorted entries of a folder; None for a file. Raises `harness.UsageError` if `path` does not exist or
    cannot be read."""
    try:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        return sorted(path.iterdir()) if path.is_dir() else None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _from_folders(path: Path, kind: str, options: OwnOptions, problems: Problems) -> Examples:
    for name in ("target_column", "split_column", "group_column", "path_column", "slice_columns"):
        if getattr(options, name):
            raise UsageError(
                f"dataset.{name} specifies a column, but {path} is a folder of class folders, which has no columns; "
                "add a metadata file to it (metadata.csv with a path and a label in each row)"
            )
    names, labels, splits = files_by_class(path, kind)
    files = [path / name for name in names]
    for name, file in zip(names, files, strict=True):
        _check_file(name, file, kind, problems)
    options = _with_digest(path, options, content_digest(zip(names, files, strict=True)))
    return Examples(names, options, problems, labels=labels, splits=splits, files=files)


def _from_table(
    path: Path, table: Table, kind: str, objective: str, options: OwnOptions, problems: Problems
) -> Examples:
    columns = Columns(table)
    assigned = {
        name: columns.assign(getattr(options, name, None))
        for name in ("split_column", "group_column", "text_column", "path_column")
    }
    for name in options.slice_columns:
        columns.require(name)
    given = options.target_column
    targets = tuple(columns.assign(name) or "" for name in ((given,) if isinstance(given, str) else given or ()))
    if objective == "classification" and len(targets) > 1:
        raise UsageError(f"classification takes one target column, got {len(targets)}: {', '.join(targets)}")
    assigned["split_column"] = assigned["split_column"] or columns.infer_by_name(
        "split_column", ("split",), reading.holds_splits
    )
    features = tuple(columns.assign(name) or "" for name in getattr(options, "feature_columns", ()))
    if not targets:
        inferred = columns.infer_by_name("target_column", TARGETS)
        targets = (inferred,) if inferred else ()
    found = Examples(table.where, options, problems)
    content = [(path.suffix.lower(), path)]
    if isinstance(options, TextOptions):
        texts = assigned["text_column"] or columns.infer_by_name("text_column", TEXTS)
        assigned["text_column"] = texts = texts or columns.infer_only("text_column", reading.holds_text)
        found.texts = reading.texts(table, texts, problems)
    elif isinstance(options, AudioOptions):
        paths = assigned["path_column"] or columns.infer_by_name("path_column", PATHS)
        paths = paths or columns.infer_only("path_column", lambda cells: _holds_paths(cells, kind))
        assigned["path_column"] = paths
        names = reading.words(table, paths, "path", problems)
        found.files = [path.parent / name for name in names]
        content += list(zip(names, found.files, strict=True))
    if not targets:
        targets = (columns.infer_only("target_column"),)
    if isinstance(options, TableOptions):
        features = features or tuple(columns.infer_rest("feature_columns"))
        _features(found, table, features, options.categorical_columns)
    if objective == "classification":
        found.labels = reading.words(table, targets[0], "label", problems)
    else:
        found.numbers = [reading.numbers(table, name, problems, target=True) for name in targets]
    if assigned["split_column"]:
        found.splits = reading.splits(table, assigned["split_column"], problems)
    if assigned["group_column"]:
        found.groups = reading.words(table, assigned["group_column"], "group", problems)
    declared = getattr(options, "categorical_columns", ())
    found.slices = {name: reading.slice_values(table, name, names=name in declared) for name in options.slice_columns}
    for where, file in zip(table.where, found.files, strict=False):
        if where not in problems:
            _check_file(where, file, kind, problems)
    filled: dict[str, Any] = {name: column for name, column in assigned.items() if hasattr(options, name)}
    filled["target_column"] = targets[0] if objective == "classification" else targets
    if isinstance(options, TableOptions):
        filled["feature_columns"] = features
    found.options = _with_digest(path, msgspec.structs.replace(options, **filled), content_digest(content))
    found.guessed = tuple(columns.guessed)
    return found


def _holds_paths(cells: Sequence[Any], kind: str) -> bool:
    known = [cell for cell in cells if isinstance(cell, str) and cell]
    return bool(known) and 2 * sum(cell.lower().endswith(MEDIA[kind]) for cell in known) > len(known)


def _features(found: Examples, table: Table, features: Sequence[str], declared: Sequence[str]) -> None:
    unknown = [name for name in declared if name not in features]
    if unknown:
        raise UsageError(f"categorical column {unknown[0]!r} is not one of the feature columns: {', '.join(features)}")
    if not features:
        raise UsageError(f"{table.source}: there are no feature columns, because every column has another role")
    for name in features:
        if name in declared or reading.is_category(table, name):
            found.categories.append(reading.categories(table, name, found.problems, declared=name in declared))
        else:
            found.features.append(reading.numbers(table, name, found.problems))
            if all(map(math.isnan, found.features[-1])):
                raise DataError(
                    f"{table.source}: column {name!r} has no values; select the features with --feature-columns "
                    "(dataset.feature_columns)"
                )


def _check_file(where: str, file: Path, kind: str, problems: Problems) -> None:
    try:
        check_header(file, kind)
    except UnreadableError as error:
        problems.add(where, unreadable(where, file, error))


def unreadable(where: str, file: Path, error: UnreadableError) -> str:
    """Return the message for an unreadable file. It includes the file's path unless `where` is that path."""
    return str(error) if file.as_posix().endswith(where) else f"{file}: {error}"


def _with_digest(path: Path, options: OwnOptions, digest: str) -> OwnOptions:
    if options.sha256 not in ("", digest):
        raise DataError(
            f"{path}: the content has changed: its SHA-256 is {digest[:16]}..., expected {options.sha256[:16]}... "
            "(dataset.sha256); restore the content, or start a new run"
        )
    return msgspec.structs.replace(options, sha256=digest)
