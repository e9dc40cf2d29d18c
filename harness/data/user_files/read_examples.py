"""Reading of examples from a table, a folder with metadata files, or a folder of class folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.data.user_files.examples import Examples, check_file, spelled, with_digest
from harness.data.user_files.folders import check_names, files_by_class
from harness.data.user_files.location import MEDIA, is_hidden, is_metadata, is_table
from harness.data.user_files.media import content_digest, file_digests
from harness.data.user_files.memory_about import about, is_from_memory
from harness.data.user_files.options import UserOptions
from harness.data.user_files.problems import Problems
from harness.data.user_files.splitting import NAMES
from harness.data.user_files.table_examples import from_table
from harness.data.user_files.tables import Table, read_table
from harness.errors import DataError, UsageError


def read(path: Path, kind: str, objective: str, options: UserOptions) -> Examples:
    """Return the rows of `path`. Problems with individual rows are collected in the result's `problems`.

    Raises `harness.DataError` or `harness.UsageError` if the whole file or folder cannot be used.
    """
    problems = Problems(path.name, options.on_bad_row)
    entries = _folder_entries(path)
    if entries is not None and kind in MEDIA:
        metadata = [file for file in entries if is_metadata(file)]
        if len(metadata) > 1:
            names = ", ".join(file.name for file in metadata)
            raise DataError(f"{path}: the folder has several metadata files: {names}; pass the path of one of them")
        if not metadata:
            by_split = _split_metadata(path, entries)
            if by_split:
                table = _joined(path, by_split, problems, options)
                return from_table(path, table, kind, objective, options, problems, listed_in=path)
            return _from_folders(path, kind, options, problems)
        folder, path = path, metadata[0]
        table = read_table(path, problems, encoding=options.encoding, separator=options.separator)
        table = _with_properties(table, folder)
        return from_table(path, table, kind, objective, options, problems, listed_in=folder)
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
    return from_table(path, _with_properties(table, path), kind, objective, options, problems)


def _with_properties(table: Table, path: Path) -> Table:
    """Return the table with the properties that `harness.save_data` stored for the data at `path`, if any."""
    found = about(path)
    if found is None:
        return table
    return dataclasses.replace(table, categorical=found.categorical, warnings=[*table.warnings, *found.warnings])


def _folder_entries(path: Path) -> list[Path] | None:
    """Return the sorted entries of a folder, or None for a file.

    Raises `harness.UsageError` if `path` does not exist or cannot be read.
    """
    try:
        if not path.exists():
            if is_from_memory(path):
                raise UsageError(
                    f"{path}: the data were saved from memory, but are no longer in the cache; pass the same data to "
                    "harness.run or harness.save_data again"
                )
            raise UsageError(f"{path}: no such file or folder")
        return sorted(path.iterdir()) if path.is_dir() else None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _split_metadata(root: Path, entries: Sequence[Path]) -> dict[str, Path]:
    """Return the metadata file of each split folder in `root`, or an empty dictionary if no split folder has one.

    Raises `harness.DataError` if only some split folders have a metadata file, or if a split folder has more than one.
    """
    folders = [entry for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
    found = {folder.name: sorted(file for file in folder.iterdir() if is_metadata(file)) for folder in folders}
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


def _joined(root: Path, files: Mapping[str, Path], problems: Problems, options: UserOptions) -> Table:
    """Return the rows of the metadata files in split folders, with the split of each row."""
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


def _from_folders(path: Path, kind: str, options: UserOptions, problems: Problems) -> Examples:
    for name in ("encoding", "separator", "date_format"):
        if getattr(options, name):
            raise UsageError(
                f"dataset.{name} describes a table, but {path} is a folder of class folders; remove this option"
            )
    for name in (
        "target_column",
        "split_column",
        "fold_column",
        "group_column",
        "time_column",
        "weight_column",
        "path_column",
        "slice_columns",
    ):
        if getattr(options, name):
            raise UsageError(
                f"dataset.{name} specifies a column, but {path} is a folder of class folders, which has no columns; "
                "add a metadata file to it (metadata.csv with a path and a label in each row)"
            )
    found = files_by_class(path, kind, getattr(options, "class_level", None))
    if found.splits is not None:
        options.check_no_given_splits(str(path), "the folders")
    names = found.files
    files = [path / name for name in names]
    for name, file in zip(names, files, strict=True):
        check_file(name, file, kind, problems)
    digests = file_digests(files)
    options = with_digest(path, options, content_digest(names, digests))
    labels = spelled(found.labels, "class folder", found.warnings)
    return Examples(
        names,
        options,
        problems,
        labels=labels,
        splits=found.splits,
        files=files,
        names=names,
        digests=digests,
        warnings=found.warnings,
    )
