"""Readers for new examples that are passed to a trained model. New examples are read in the same way as the training
data."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.user_files import columns as reading_columns
from harness.data.user_files import features as values
from harness.data.user_files.columns import Columns
from harness.data.user_files.date_columns import date_values, new_date_parts
from harness.data.user_files.encodings import decoded, is_utf8
from harness.data.user_files.examples import row_number, unreadable
from harness.data.user_files.folders import ignored_files, scan
from harness.data.user_files.location import MEDIA, is_metadata, is_table
from harness.data.user_files.media import UnreadableError, described, is_unscaled, read_audio, read_image, scaled
from harness.data.user_files.notations import PLAIN, Notation, with_missing
from harness.data.user_files.options import OPTIONS, ImageOptions, TableOptions, UserOptions
from harness.data.user_files.problems import Problems
from harness.data.user_files.table_examples import PATHS, TARGETS, TEXTS, resolved
from harness.data.user_files.tables import Table, check_lines, read_table
from harness.data.user_files.training_values import CATEGORIES, new_values, spelled_as, spellings
from harness.errors import CombinationError, DataError, RecordError, UnknownNameError, UsageError
from harness.interfaces import RawData
from harness.records.reading import read_named

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MAX_LINES_BYTES = 2**40
"""Maximum size of a text file. Text files are read into memory."""


@dataclass(frozen=True)
class NewData:
    """New examples, excluding those that were skipped."""

    rows: Array
    """Row number of each example (int64, starting at 1) or path of its file (str)."""
    positions: Array
    """Position of each example among all rows or files, including skipped ones (int64, starting at 0)."""
    inputs: dict[str, Array]
    """Raw inputs, keyed by name as in `UserDataset`."""
    labels: list[str | None] | None
    """Label of each example, or None if the data have no labels."""
    numbers: dict[str, list[float]]
    """Values of each regression target, with NaN for missing values, or an empty dictionary for classification."""
    warnings: tuple[str, ...]
    kept: dict[str, list[Any]] = field(default_factory=dict)
    """Cells of the columns that `Reader.read` keeps."""


@dataclass(frozen=True)
class Rows:
    """Rows of a source, including the bad rows, which are listed in `problems`."""

    where: Sequence[str]
    problems: Problems
    rows: Sequence[int | str]
    inputs: dict[str, Array]
    labels: list[str | None] | None = None
    numbers: dict[str, list[float]] | None = None
    warnings: Sequence[str] = ()
    table: Table | None = None
    """Table that contains the rows, or None for a file or folder of images or recordings."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A reader of new files for a single trained model."""

    kind: str
    """Kind of raw input: ``text``, ``table``, ``image`` or ``audio``."""
    objective: str
    label_names: Sequence[str]
    options: UserOptions
    """Options of the training data, with all columns filled in. If the model was not trained on the user's files, these
    are the default options.
    """
    reading: Mapping[str, Any]
    """`RawData.reading` of the training data."""
    most_rows: int | None = None
    """Maximum number of rows in a text file or table, except Parquet files. `TooManyRowsError` is raised for files with
    more rows, before their cells are examined."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the feature columns of a table."""
        return _columns(self.options, self.reading)

    def read(self, source: Path | Table, keep: Sequence[str] = ()) -> NewData:
        """Return the examples of a table, a text file with one text per line, an image, a recording, or a folder of
        images or recordings.

        Columns are identified by their names in the training data. The target columns are optional. The cells of the
        columns in `keep` are returned unchanged.

        Raises `harness.DataError` if there are bad rows that must not be skipped. Raises `harness.UsageError` or
        `harness.DataError` if the whole source cannot be used.
        """
        import numpy as np

        found = self.rows(source)
        if keep and found.table is None:
            raise UsageError(f"{source}: only tables have columns to keep; remove --keep")
        columns = {} if found.table is None else found.table.columns
        for name in keep:
            if name not in columns:
                raise UnknownNameError("column", name, columns)
        good = [number for number, where in enumerate(found.where) if where not in found.problems]
        found.problems.settle(left=len(good))
        labels, numbers = found.labels, found.numbers or {}
        return NewData(
            rows=np.array(found.rows)[good],
            positions=np.array(good, np.int64),
            inputs={name: array[good] for name, array in found.inputs.items()},
            labels=None if labels is None else [labels[row] for row in good],
            numbers={name: [cells[row] for row in good] for name, cells in numbers.items()},
            warnings=tuple(dict.fromkeys((*found.problems.warnings(), *found.warnings))),
            kept={name: [columns[name][row] for row in good] for name in keep},
        )

    def rows(self, source: Path | Table) -> Rows:
        """Return the rows of a source, including the bad rows. Use `read` to raise an error for bad rows."""
        if isinstance(source, Table):
            return self._from_table(source, Problems(source.source, self.options.on_bad_row), Path())
        try:
            is_folder, exists = source.is_dir(), source.exists()
        except OSError as error:
            raise UsageError(f"{source}: cannot be read: {error.strerror}") from None
        if not exists:
            raise UsageError(f"{source}: no such file or folder")
        problems = Problems(source.name, self.options.on_bad_row)
        if is_folder and self.kind in MEDIA:
            tables = [path for path in sorted(source.iterdir()) if is_metadata(path)]
            return self._from_folder(source, problems) if len(tables) != 1 else self.rows(tables[0])
        if is_folder:
            raise UsageError(f"{source} is a folder; pass a file with the {self.kind} data")
        suffix = source.suffix.lower()
        if suffix == ".txt" and self.kind == "text":
            return self._from_lines(source, problems)
        if suffix in MEDIA.get(self.kind, ()):
            return self._from_files([source.name], [source], [source.name], problems)
        if not is_table(source) and suffix != ".json":
            forms = {"text": "a text file (.txt) with one text per line, or ", "table": ""}
            form = forms.get(self.kind, f"a folder or file with {self.kind} data, or ")
            raise UsageError(f"{source}: unsupported file; pass {form}a CSV, TSV, JSONL or Parquet file")
        separator = self.options.separator if suffix == ".csv" else None
        encoding = self.options.encoding if suffix != ".parquet" else None
        table = read_table(source, problems, encoding=encoding, separator=separator, most_rows=self.most_rows)
        return self._from_table(table, problems, source.parent)

    def _from_lines(self, path: Path, problems: Problems) -> Rows:
        """Return the lines in a text file. Empty lines are bad rows, except at the end of the file."""
        try:
            text, warnings = decoded(path.name, read_named(path, MAX_LINES_BYTES), self.options.encoding)
        except RecordError as error:
            raise DataError(str(error)) from None
        if self.most_rows is not None:
            check_lines(path.name, text, self.most_rows)
        lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
        where = [f"row {number}" for number in range(1, len(lines) + 1)]
        for position, line in zip(where, lines, strict=True):
            if not is_utf8(line):
                problems.add(position, "the line contains bytes that are not UTF-8")
        table = Table(path.name, {"text": [*lines]}, where, warnings=warnings)
        return self._texts(table, "text", problems)

    def _from_table(self, table: Table, problems: Problems, folder: Path) -> Rows:
        if self.kind == "text":
            return self._texts(table, self._column(table, "text_column", TEXTS), problems)
        if self.kind == "table":
            return self._table(table, problems)
        paths = self._column(table, "path_column", PATHS)
        names = reading_columns.words(table, paths, "path", problems)
        files = [resolved(folder, name) for name in names]
        return self._from_files(table.where, files, names, problems, table)

    def _column(self, table: Table, option: str, names: Sequence[str]) -> str:
        """Return the column that `option` selected in the training data. For data from a plugin, infer this column, for
        example from the common column names in `names`.
        """
        chosen: str | None = getattr(self.options, option)
        columns = Columns(table)
        if chosen is not None:
            columns.require(chosen)
            return chosen
        if len(table.columns) == 1:
            return next(iter(table.columns))
        return columns.infer_by_name(option, names) or columns.infer_only(option, reading_columns.holds_text)

    def _texts(self, table: Table, column: str, problems: Problems) -> Rows:
        import numpy as np

        texts = np.empty(len(table), object)
        texts[:] = reading_columns.texts(table, column, problems)
        return self._with_targets(table, problems, {"text": texts})

    def _table(self, table: Table, problems: Problems) -> Rows:
        import numpy as np

        if not self.reading:
            raise CombinationError(
                "the model was trained on a dataset that does not name its columns, so the columns of a new table "
                "cannot be identified; train it on your own file, or ask the author of the dataset to set "
                "RawData.feature_names"
            )
        options = self.options if isinstance(self.options, TableOptions) else TableOptions()
        dates, categorical = self.reading.get("dates", {}), self.reading["categories"]
        names = self.columns
        declared = with_missing(options.missing_values, options.decimal, options.thousands)
        columns = Columns(table)
        for name in names:
            columns.require(name)
        numbers: list[list[float]] = []
        first_parts: dict[str, list[float]] = {}
        categories: dict[str, list[str | None]] = {}
        warnings: list[str] = []
        for name in names:
            if name in dates:
                known = date_values(table, name, problems, options.date_format, declared)
                zones = self.reading.get("time_zones", {}).get(name)
                parts, more = new_date_parts(name, known, dates[name], zones)
                warnings += more
                numbers += parts.values()
                if parts:
                    first_parts[name] = next(iter(parts.values()))
            elif name in categorical:
                is_declared = name in options.categorical_columns
                trained = self.reading.get(CATEGORIES, {}).get(name, ())
                cells, more = values.categories(table, name, problems, declared, declared=is_declared, trained=trained)
                categories[name] = [None if cell is None else unicodedata.normalize("NFC", cell) for cell in cells]
                warnings += more
            else:
                notation = Notation.from_json(self.reading["numbers"][name])
                column, more = values.numbers(table, name, problems, notation, new=True)
                numbers.append(column)
                first_parts[name] = column
                warnings += more
        good = [row for row, where in enumerate(table.where) if where not in problems]
        warnings += new_values(
            self.reading,
            {name: [cells[row] for row in good] for name, cells in first_parts.items()},
            {name: [cells[row] for row in good] for name, cells in categories.items()},
        )
        count = len(table)
        inputs: dict[str, Array] = {
            "features": np.ascontiguousarray(np.array(numbers, np.float64).reshape(-1, count).T)
        }
        if categorical:
            inputs["categories"] = np.array([categories[name] for name in categorical], object).T
        return self._with_targets(table, problems, inputs, warnings)

    def _with_targets(
        self, table: Table, problems: Problems, inputs: dict[str, Array], warnings: Sequence[str] = ()
    ) -> Rows:
        rows = [row_number(where) for where in table.where]
        labels, numbers = self._targets(table)
        return Rows(table.where, problems, rows, inputs, labels, numbers, [*table.warnings, *warnings], table)

    def _targets(self, table: Table) -> tuple[list[str | None] | None, dict[str, list[float]] | None]:
        """Return the labels or the target values, if the table contains the target columns."""
        chosen = self.options.target_column or (
            self.label_names if self.objective == "regression" else [name for name in TARGETS if name in table.columns]
        )
        names = (chosen,) if isinstance(chosen, str) else tuple(chosen)
        if not names or not all(name in table.columns for name in names):
            return None, None
        if self.objective == "classification":
            written = spellings(self.label_names)
            return [spelled_as(cell, written) or reading_columns.label(cell) for cell in table.columns[names[0]]], None
        found = {}
        for name in names:
            known = self.reading.get("numbers", {}).get(name)
            notation = PLAIN if known is None else Notation.from_json(known)
            numbers = [notation.number(cell) for cell in table.columns[name]]
            found[name] = [math.nan if number is None else number for number in numbers]
        return None, found

    def _from_folder(self, root: Path, problems: Problems) -> Rows:
        """Return all files below a folder. If each file is in a folder named after a class, the names of the folders
        are used as labels.
        """
        tree = scan(root, self.kind)
        if not tree.files:
            raise DataError(f"{root}: the folder contains no {self.kind} files ({', '.join(MEDIA[self.kind])})")
        warnings = ignored_files(tree, self.kind)
        classes = set(self.label_names)
        labels: list[str | None] = []
        for name in tree.files:
            folders = [unicodedata.normalize("NFC", part) for part in name.split("/")[:-1]]
            labels.append(next((folder for folder in folders if folder in classes), None))
        found = self._from_files(tree.files, [root / name for name in tree.files], tree.files, problems)
        known = labels if self.objective == "classification" and None not in labels else None
        return Rows(found.where, problems, found.rows, found.inputs, known, None, [*warnings, *found.warnings])

    def _from_files(
        self,
        where: Sequence[str],
        files: Sequence[Path],
        names: Sequence[str],
        problems: Problems,
        table: Table | None = None,
    ) -> Rows:
        import numpy as np

        decoded_files = np.empty(len(files), object)
        rates_hz = np.zeros(len(files), np.int64)
        notes: Counter[str] = Counter()
        image_options = self.options if isinstance(self.options, ImageOptions) else ImageOptions()
        for number, (position, file) in enumerate(zip(where, files, strict=True)):
            if position in problems:
                continue
            try:
                if self.kind == "image":
                    decoded_files[number] = self._in_range(read_image(file, image_options.shorter_side, notes))
                else:
                    decoded_files[number], rates_hz[number] = read_audio(file)
            except UnreadableError as error:
                problems.add(position, unreadable(position, file, error))
        inputs = {"image": decoded_files}
        if self.kind == "audio":
            inputs = {"waveform": decoded_files, "sample_rate_hz": rates_hz}
        labels, numbers = (None, None) if table is None else self._targets(table)
        warnings = [] if table is None else list(table.warnings)
        warnings += described(notes, self.kind)
        return Rows(where, problems, names, inputs, labels, numbers, warnings, table)

    def _in_range(self, pixels: Array) -> Array:
        """Scale an image with more than 8 bits using the range of the training images. Raises `UnreadableError` if the
        range of the training images is unknown."""
        if not is_unscaled(pixels):
            return pixels
        known = self.reading.get("image_range")
        if known is None:
            raise UnreadableError(
                "it has more than 8 bits per channel, but no training image had more than 8, so the range of its "
                "values is unknown; convert it to 8 bits"
            )
        return scaled(pixels, *known)


def named_columns(raw: RawData) -> dict[str, Any]:
    """Return `RawData.reading` for a plugin's table, or an empty dictionary if its columns are unnamed."""
    inputs = raw.train.inputs
    counts = [inputs[name].shape[1] if name in inputs else 0 for name in ("features", "categories")]
    if "features" not in inputs or counts != [len(raw.feature_names), len(raw.category_names)]:
        return {}
    return {
        "numbers": {name: PLAIN.as_json() for name in raw.feature_names},
        "dates": {},
        "categories": list(raw.category_names),
    }


def columns_of(options: Mapping[str, Any], reading: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the feature columns of a table; see `reader`."""
    import msgspec

    return _columns(msgspec.convert(dict(options), TableOptions) if options else UserOptions(), reading)


def _columns(options: UserOptions, reading: Mapping[str, Any]) -> tuple[str, ...]:
    chosen = options.feature_columns if isinstance(options, TableOptions) else ()
    return chosen or (*reading.get("numbers", ()), *reading.get("categories", ()))


def reader(
    kind: str, objective: str, label_names: Sequence[str], options: Mapping[str, Any], reading: Mapping[str, Any]
) -> Reader:
    """Return a reader for new data of the given kind.

    `options` are the dataset options of the user's training data, or an empty dictionary for data from a plugin. Raises
    `harness.CombinationError` if data of this kind cannot be read from files.
    """
    import msgspec

    if kind not in OPTIONS:
        raise CombinationError(
            f"tasks on {kind!r} data cannot read files; predictions for new files are supported only by tasks "
            f"on {', '.join(OPTIONS)} data"
        )
    if objective == "token_classification":
        raise CombinationError(
            "predictions for new files are not supported, because token-classification tasks cannot read files"
        )
    return Reader(
        kind=kind,
        objective=objective,
        label_names=label_names,
        options=msgspec.convert(dict(options), OPTIONS[kind]),
        reading=reading,
    )
