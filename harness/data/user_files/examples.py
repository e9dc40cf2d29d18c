"""The rows of a file or folder, each with its label, split and group, before anything is decoded or split."""

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
from harness.data.user_files.media import UnreadableError, content_digest, in_folders, look_at
from harness.data.user_files.options import AudioOptions, OwnOptions, TableOptions, TextOptions
from harness.data.user_files.problems import Problems
from harness.data.user_files.tables import Table, read_table
from harness.errors import DataError, UsageError

TARGETS = ("label", "target", "class")
TEXTS = ("text", "sentence")
PATHS = ("path", "file", "file_name", "filename")


@dataclass
class Examples:
    """Sequences with an item for each row that was read; those in `problems` do not count."""

    where: list[str]
    options: OwnOptions
    """With every column filled in, and the content's digest."""
    problems: Problems
    labels: list[str] | None = None
    """Of classification; of regression there are `numbers`."""
    numbers: list[list[float]] = field(default_factory=list)
    """Target column by target column."""
    splits: list[str] | None = None
    groups: list[str] | None = None
    slices: dict[str, list[float] | list[str]] = field(default_factory=dict)
    """Column by column, what the test split is scored by."""
    texts: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    features: list[list[float]] = field(default_factory=list)
    """Column by column, NaN where a number is missing."""
    categories: list[list[str | None]] = field(default_factory=list)
    guessed: tuple[str, ...] = ()
    """The options that were not given."""

    def good(self) -> list[int]:
        """The rows that nothing is wrong with."""
        return [number for number, where in enumerate(self.where) if where not in self.problems]


def read(path: Path, kind: str, objective: str, options: OwnOptions) -> Examples:
    """The rows of `path`; what is wrong with single ones is in the result's `problems`.

    Raises `harness.DataError` and `harness.UsageError` for what is wrong with the source as a whole.
    """
    problems = Problems(path.name, options.on_bad_row)
    inside = _inside(path)
    if inside is not None and kind in MEDIA:
        metadata = [file for file in inside if file.stem == "metadata" and is_table(file)]
        if len(metadata) > 1:
            raise DataError(f"{path}: there are {' and '.join(file.name for file in metadata)}; give the one to use")
        if not metadata:
            return _from_folders(path, kind, options, problems)
        path = metadata[0]
    elif inside is not None:
        tables = [file.name for file in inside if is_table(file) and not is_hidden(file.name)]
        seen = f"; in it there are: {', '.join(tables[:5])}" if tables else ""
        raise UsageError(f"{path} is a folder; give a file: CSV, TSV, JSONL or Parquet{seen}")
    elif not is_table(path) and kind in MEDIA:
        raise UsageError(
            f"{path}: give a folder of class folders, or a CSV, TSV, JSONL or Parquet file of paths and labels"
        )
    return _from_table(path, read_table(path, problems), kind, objective, options, problems)


def _inside(path: Path) -> list[Path] | None:
    """What a folder holds, sorted; None for a file. Raises `harness.UsageError` where there is neither, or where it
    cannot be read."""
    try:
        if not path.exists():
            raise UsageError(f"{path}: there is no such file or folder")
        return sorted(path.iterdir()) if path.is_dir() else None
    except OSError as error:
        raise UsageError(f"{path}: it cannot be read: {error.strerror}") from None


def _from_folders(path: Path, kind: str, options: OwnOptions, problems: Problems) -> Examples:
    for name in ("target_column", "split_column", "group_column", "path_column", "slice_columns"):
        if getattr(options, name):
            raise UsageError(
                f"dataset.{name} names a column, and {path} is a folder of class folders; put a metadata file "
                "(metadata.csv with a path and a label in each row) into it to have columns"
            )
    names, labels, splits = in_folders(path, kind)
    files = [path / name for name in names]
    for name, file in zip(names, files, strict=True):
        _look(name, file, kind, problems)
    options = _with_digest(path, options, content_digest(zip(names, files, strict=True)))
    return Examples(names, options, problems, labels=labels, splits=splits, files=files)


def _from_table(
    path: Path, table: Table, kind: str, objective: str, options: OwnOptions, problems: Problems
) -> Examples:
    columns = Columns(table)
    said = {
        name: columns.said(getattr(options, name, None))
        for name in ("split_column", "group_column", "text_column", "path_column")
    }
    for name in options.slice_columns:
        columns.check(name)
    wanted = options.target_column
    targets = tuple(columns.said(name) or "" for name in ((wanted,) if isinstance(wanted, str) else wanted or ()))
    if objective == "classification" and len(targets) > 1:
        raise UsageError(f"classification has one target column, not {len(targets)}: {', '.join(targets)}")
    said["split_column"] = said["split_column"] or columns.called("split_column", ("split",), reading.holds_splits)
    features = tuple(columns.said(name) or "" for name in getattr(options, "feature_columns", ()))
    if not targets:
        called = columns.called("target_column", TARGETS)
        targets = (called,) if called else ()
    found = Examples(table.where, options, problems)
    content = [(path.suffix.lower(), path)]
    if isinstance(options, TextOptions):
        texts = said["text_column"] or columns.called("text_column", TEXTS)
        said["text_column"] = texts = texts or columns.only("text_column", reading.holds_text)
        found.texts = reading.texts(table, texts, problems)
    elif isinstance(options, AudioOptions):
        paths = said["path_column"] or columns.called("path_column", PATHS)
        said["path_column"] = paths = paths or columns.only("path_column", lambda cells: _holds_paths(cells, kind))
        names = reading.words(table, paths, "path", problems)
        found.files = [path.parent / name for name in names]
        content += list(zip(names, found.files, strict=True))
    if not targets:
        targets = (columns.only("target_column"),)
    if isinstance(options, TableOptions):
        features = features or tuple(columns.rest("feature_columns"))
        _features(found, table, features, options.categorical_columns)
    if objective == "classification":
        found.labels = reading.words(table, targets[0], "label", problems)
    else:
        found.numbers = [reading.numbers(table, name, problems, target=True) for name in targets]
    if said["split_column"]:
        found.splits = reading.splits(table, said["split_column"], problems)
    if said["group_column"]:
        found.groups = reading.words(table, said["group_column"], "group", problems)
    declared = getattr(options, "categorical_columns", ())
    found.slices = {name: reading.slice_values(table, name, names=name in declared) for name in options.slice_columns}
    for where, file in zip(table.where, found.files, strict=False):
        if where not in problems:
            _look(where, file, kind, problems)
    filled: dict[str, Any] = {name: column for name, column in said.items() if hasattr(options, name)}
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
        raise UsageError(f"categorical column {unknown[0]!r} is not among the feature columns: {', '.join(features)}")
    if not features:
        raise UsageError(f"{table.source}: no column is left to learn from")
    for name in features:
        if name in declared or reading.is_category(table, name):
            found.categories.append(reading.categories(table, name, found.problems, declared=name in declared))
        else:
            found.features.append(reading.numbers(table, name, found.problems))
            if all(map(math.isnan, found.features[-1])):
                raise DataError(
                    f"{table.source}: column {name!r} holds nothing; name the columns to use by "
                    "--feature-columns (dataset.feature_columns)"
                )


def _look(where: str, file: Path, kind: str, problems: Problems) -> None:
    try:
        look_at(file, kind)
    except UnreadableError as error:
        problems.add(where, unreadable(where, file, error))


def unreadable(where: str, file: Path, error: UnreadableError) -> str:
    """What is wrong with the file of a row; with its path, unless that is the row's place."""
    return str(error) if file.as_posix().endswith(where) else f"{file}: {error}"


def _with_digest(path: Path, options: OwnOptions, digest: str) -> OwnOptions:
    if options.sha256 not in ("", digest):
        raise DataError(
            f"{path}: the content is not what it was: its digest is {digest[:16]}..., dataset.sha256 is "
            f"{options.sha256[:16]}..."
        )
    return msgspec.structs.replace(options, sha256=digest)
