"""Conversion of data in memory, such as a DataFrame, into columns of JSON values, images and recordings.

A value that JSON cannot represent exactly is rejected, so that the data read from a file are identical to the data in
memory.
"""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from harness.data.user_files.columns import shown
from harness.data.user_files.dates import parsed
from harness.data.user_files.memory_media import SAMPLE_RATE, Media, is_missing, media_of
from harness.data.user_files.splitting import NAMES, same_split
from harness.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

ADVICE = {
    "Decimal": "convert the column with .astype(float)",
    "Timedelta": "convert the column to numbers with .dt.total_seconds()",
    "timedelta": "convert the column to numbers with .dt.total_seconds()",
    "Period": "convert the column with .dt.to_timestamp()",
    "Interval": "convert the column to strings with .astype(str)",
    "complex": "convert the column to real numbers",
    "bytes": "decode the column to strings",
}
"""Advice on values that cannot be stored, keyed by the name of the type."""
RESET_FRAME = ("call frame.reset_index()", "frame.reset_index(drop=True)")
RESET_SERIES = ("add it to the dict as a list", "call .reset_index(drop=True) on each Series")
OTHER = "convert the column to strings, numbers, booleans or dates, or remove it"
SPLIT = "split"
FINER = ("ps", "fs", "as")
"""numpy time units that are finer than those of pandas, which reads them incorrectly."""


@dataclass(kw_only=True)
class MemoryData:
    """Data in memory, converted to columns."""

    origin: str
    """Name of the object's type, such as ``DataFrame``."""
    columns: dict[str, list[Any]]
    """Cells of each column, excluding images and recordings. Each cell is a str, bool, int, float or None."""
    categorical: list[str] = field(default_factory=list)
    """Columns that have a categorical type."""
    warnings: list[str] = field(default_factory=list)
    media: Media | None = None
    """The images or recordings, if the data contain any."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        if self.media is not None:
            return len(self.media)
        return len(next(iter(self.columns.values()), ()))

    def all_warnings(self) -> list[str]:
        """Return the warnings, including those about partly ignored images."""
        return [*self.warnings, *(self.media.warnings() if self.media is not None else ())]


def is_in_memory(data: Any) -> bool:
    """Return whether an object is a DataFrame, a mapping, or has the interface of ``datasets.Dataset``.

    The types are recognized by their attributes, so that no library is imported.
    """
    return isinstance(data, Mapping) or _is_frame(data) or _is_dataset(data)


def from_memory(data: Any, *, keeps_index: bool = False) -> MemoryData:
    """Return the columns of a DataFrame, a ``datasets.Dataset``, a mapping from column names to sequences, or a mapping
    from split names to any of these.

    The indexes of DataFrames and Series are not part of the data, and an index that may contain data is rejected. If
    `keeps_index` is true, the index of a single DataFrame is not checked, because the caller handles it.

    Raises `harness.UsageError` if the object has another type, or if it contains values or names that cannot be stored
    exactly.
    """
    if isinstance(data, Mapping) and data and all(map(is_in_memory, data.values())):
        return _splits(data)
    if _is_frame(data):
        found = _frame(data, keeps_index=keeps_index)
    elif _is_dataset(data):
        found = _dataset(data)
    elif isinstance(data, Mapping):
        found = _mapping(data)
    else:
        raise UsageError(
            f"a dataset must be a name, a path, a pandas DataFrame, a datasets.Dataset (not streamed) or a dict of "
            f"columns, got {_type(data)}; pass, for example, {{'text': texts, 'label': labels}}"
        )
    if not found.rows:
        raise UsageError(f"the {found.origin} has no rows or no columns; pass at least one of each")
    return found


# ---- containers -------------------------------------------------------------------------------------------


def _is_frame(data: Any) -> bool:
    return hasattr(data, "iloc") and hasattr(data, "columns") and hasattr(data, "dtypes")


def _is_dataset(data: Any) -> bool:
    return hasattr(data, "column_names") and hasattr(data, "features") and hasattr(data, "__getitem__")


def _type(data: Any) -> str:
    return type(data).__name__


def _frame(frame: pd.DataFrame, *, keeps_index: bool) -> MemoryData:
    import pandas as pd

    if isinstance(frame.columns, pd.MultiIndex):
        raise UsageError(
            "the columns of the DataFrame have several levels (MultiIndex); join the levels into one name, for example "
            "with frame.columns = ['_'.join(names) for names in frame.columns]"
        )
    _check_names("DataFrame", list(frame.columns))
    warnings = [] if keeps_index else _index_warnings(frame.index, "DataFrame", *RESET_FRAME)
    values = {name: frame.iloc[:, place] for place, name in enumerate(frame.columns)}
    return _converted("DataFrame", values, len(frame), warnings)


def _index_warnings(index: pd.Index, owner: str, keep: str, remove: str) -> list[str]:
    """Return a warning if an index of integers is ignored. Raises `harness.UsageError` for any other index, because it
    may contain data. `owner` is the object that has the index. `keep` and `remove` are the instructions for keeping and
    removing the index, which are included in the error."""
    import pandas as pd

    names = [name for name in index.names if name is not None]
    if names or isinstance(index, pd.MultiIndex) or not pd.api.types.is_integer_dtype(index.dtype):
        what = f"index {names[0]!r}" if names else "index"
        raise UsageError(
            f"the {what} of the {owner} would be lost; {keep} to keep it as a column, or {remove} to remove it"
        )
    if isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1:
        return []
    return [f"the index of the {owner} (integers without a name) was ignored; rows are numbered from 1"]


def _dataset(data: Any) -> MemoryData:
    """Convert an object with the interface of ``datasets.Dataset``. Class labels are replaced with their names."""
    _check_names("Dataset", list(data.column_names))
    plain = data.with_format(None) if hasattr(data, "with_format") else data
    values: dict[str, Any] = dict(plain[:])
    features = data.features or {}
    for name in values:
        classes = getattr(features.get(name), "names", None)
        if classes is not None:
            values[name] = [_class(cell, classes, name) for cell in values[name]]
    return _converted("Dataset", values, len(data))


def _class(cell: Any, classes: Sequence[str], column: str) -> str | None:
    if cell is None or cell == -1:  # Hugging Face Datasets uses -1 for unknown labels
        return None
    number = int(cell) if isinstance(cell, numbers.Integral) else -1
    if not 0 <= number < len(classes):
        raise UsageError(f"column {column!r} contains {shown(cell)}, which is not a class number")
    return classes[number]


def _mapping(data: Mapping[Any, Any]) -> MemoryData:
    import pandas as pd

    _check_names("dict", list(data))
    indexes = [value.index for value in data.values() if isinstance(value, pd.Series | pd.DataFrame)]
    if any(not index.equals(indexes[0]) for index in indexes):
        raise UsageError("the Series in the dict have different indexes; call .reset_index(drop=True) on each of them")
    warnings = [text for index in indexes for text in _index_warnings(index, "Series in the dict", *RESET_SERIES)]
    rate = data.get(SAMPLE_RATE)
    single = isinstance(rate, numbers.Real)
    values = {name: _one_per_row(name, value) for name, value in data.items() if not (name == SAMPLE_RATE and single)}
    lengths = {name: len(value) for name, value in values.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} has {length:,}" for name, length in lengths.items())
        raise UsageError(f"the columns of the dict differ in length: {listed}; pass one value for each row")
    rows = next(iter(lengths.values()), 0)
    if single:
        values[SAMPLE_RATE] = [rate] * rows
    return _converted("dict", values, rows, dict.fromkeys(warnings))


def _one_per_row(name: str, value: Any) -> Any:
    """Return the values of a column of a dict as a sequence, or as a numpy or pandas array. Raises `harness.UsageError`
    unless the column contains one value per row."""
    import numpy as np
    import pandas as pd

    arrays = pd.Series | pd.Index | pd.api.extensions.ExtensionArray
    if isinstance(value, arrays):
        return value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise UsageError(
            f"column {name!r} of the dict is an array with masked values, whose mask would be lost; replace them, for "
            "example with .astype(object).filled(None)"
        )
    found = np.asarray(value) if hasattr(value, "__array__") else value
    if isinstance(found, str | bytes | Mapping) or not (
        isinstance(found, Sequence) or (isinstance(found, np.ndarray) and found.ndim)
    ):
        what = "a single value" if isinstance(found, np.ndarray) else _type(value)
        raise UsageError(f"column {name!r} of the dict is {what}, not a list or an array; pass one value for each row")
    return found


def _splits(data: Mapping[Any, Any]) -> MemoryData:
    """Return the rows of all splits, with a column that contains the name of each row's split."""
    names = {name: _plain(name) for name in data}
    unknown = [name for name in data if names[name].lower() not in NAMES]
    if unknown:
        raise UsageError(
            f"{unknown[0]!r} is not the name of a split; use {', '.join(NAMES)}, or pass a single DataFrame or Dataset"
        )
    if (pair := same_split(names.values())) is not None:
        raise UsageError(
            f"{pair[0]!r} and {pair[1]!r} are both names of the {NAMES[pair[0].lower()]} split; merge them or rename "
            "one of them"
        )
    parts = {name: from_memory(part) for name, part in data.items()}
    first = next(iter(parts.values()))
    for name, part in parts.items():
        if list(part.columns) != list(first.columns) or (part.media is None) != (first.media is None):
            raise UsageError(f"the columns of the split {name!r} differ from those of the split {next(iter(parts))!r}")
        if part.categorical != first.categorical:
            raise UsageError(
                f"the categorical columns of the split {name!r} differ from those of the split {next(iter(parts))!r}"
            )
    if SPLIT in first.columns:
        raise UsageError(f"the data already have a column {SPLIT!r}; remove the column, or pass a single DataFrame")
    columns = {name: [cell for part in parts.values() for cell in part.columns[name]] for name in first.columns}
    columns[SPLIT] = [NAMES[names[name].lower()] for name, part in parts.items() for _ in range(part.rows)]
    media = None if first.media is None else Media.joined([part.media for part in parts.values() if part.media])
    return MemoryData(
        origin=_type(data),
        columns=columns,
        categorical=first.categorical,
        warnings=list(dict.fromkeys(text for part in parts.values() for text in part.warnings)),
        media=media,
    )


def _check_names(what: str, names: Sequence[Any]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise UsageError(
                f"the {what} has the column name {shown(name)}, which is not a string; rename the columns, for example "
                "with frame.columns = frame.columns.map(str)"
            )
        if not name.strip():
            raise UsageError(f"the {what} has the column name {name!r}, which is empty; rename the column")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(f"the {what} has several columns with the name {repeated[0]!r}; rename the columns")


# ---- columns and cells ------------------------------------------------------------------------------------


def _converted(origin: str, values: Mapping[str, Any], rows: int, warnings: Iterable[str] = ()) -> MemoryData:
    media, rest = media_of(values, rows)
    found = MemoryData(origin=origin, columns={}, warnings=list(warnings), media=media)
    for name, column in rest.items():
        categories = getattr(getattr(column, "dtype", None), "categories", None)
        if categories is not None:
            if column.dtype.ordered:
                raise UsageError(
                    f"column {name!r} is an ordered categorical column, whose order would be lost; convert it to "
                    "numbers with .cat.codes, or discard the order with .cat.as_unordered()"
                )
            found.categorical.append(name)
        found.columns[name] = _cells(name, column)
    return found


def _cells(name: str, column: Any) -> list[Any]:
    """Return the cells of a column as JSON values."""
    import numpy as np

    dtype = getattr(column, "dtype", None)
    if isinstance(column, np.ndarray) and column.dtype.kind in "mM" and column.ndim == 1:
        column = _dates(name, column)
    if isinstance(column, np.ndarray) and column.ndim != 1:
        raise UsageError(
            f"column {name!r} is an array of shape {column.shape}; pass each of its columns separately, for "
            "example with pd.DataFrame(array).add_prefix('x')"
        )
    if isinstance(dtype, np.dtype) and (dtype.kind in "biu" or dtype in (np.float16, np.float32, np.float64)):
        plain: list[Any] = np.asarray(column).tolist()
        return [None if cell != cell else cell for cell in plain] if dtype.kind == "f" else plain
    values = column.astype(object) if hasattr(column, "astype") else column
    return [
        cell if type(cell) is str else _cell(cell, name, number)
        for number, cell in enumerate(values.tolist() if isinstance(values, np.ndarray) else values, start=1)
    ]


def _dates(name: str, values: NDArray[Any] | np.datetime64 | np.timedelta64) -> Any:
    """Return a numpy array of dates or durations as a Series, and a single date or duration as a Timestamp or
    Timedelta. The conversion is exact, unlike the conversion by ``values.tolist()``."""
    import numpy as np
    import pandas as pd

    try:
        if np.datetime_data(values.dtype)[0] not in FINER:
            if isinstance(values, np.ndarray):
                return pd.Series(values)
            return pd.Timestamp(values) if isinstance(values, np.datetime64) else pd.Timedelta(values)
    except (TypeError, ValueError):  # without a unit, or out of range
        pass
    to_dates, to_numbers = ".astype('datetime64[us]')", "values / np.timedelta64(1, 's')"
    raise UsageError(
        f"column {name!r} contains values of dtype {values.dtype} that pandas cannot represent; convert them, for "
        f"example with {to_dates if values.dtype.kind == 'M' else to_numbers}"
    )


def _cell(cell: Any, column: str, row: int) -> Any:
    """Return a cell as a str, bool, int, float or None. Raises `harness.UsageError` if the conversion is not exact."""
    import numpy as np

    if isinstance(cell, np.datetime64 | np.timedelta64):
        cell = _dates(column, cell)
    if is_missing(cell):
        return None
    if isinstance(cell, np.bool_):
        return bool(cell)
    if isinstance(cell, bool | str):
        return _plain(cell) if isinstance(cell, str) else cell
    if isinstance(cell, numbers.Integral):
        return int(cell)
    if isinstance(cell, float | np.floating):
        value = float(cell)
        if value == cell:
            return value
    if isinstance(cell, date | time):
        text = cell.isoformat()
        if not getattr(cell, "nanosecond", 0) and _is_exact(text, cell):
            return text
        raise UsageError(
            f"column {column!r} contains {shown(cell)} in row {row}, which is more precise than microseconds, has an "
            "unusual time zone or is not between the years 1 and 9999; round the column with .dt.floor('us'), or "
            "convert it with .dt.tz_convert('UTC')"
        )
    kind = _type(cell)
    advice = ADVICE.get(kind.removesuffix("128").removesuffix("64"), OTHER)
    raise UsageError(f"column {column!r} contains {shown(cell)} ({kind}) in row {row}; {advice}")


def _plain(value: Any) -> str:
    """Return a string as an instance of str itself. For a member of an Enum of strings, ``str(value)`` returns the
    member's name instead of its value."""
    return str.__str__(value) if isinstance(value, str) else str(value)


def _is_exact(text: str, cell: date | time) -> bool:
    found = parsed(text, None)
    if found is None or not isinstance(cell, datetime | time):
        return isinstance(found, datetime) and found.date() == cell
    # Compare the offsets explicitly. Python considers a time in the hour that a time zone repeats when daylight saving
    # time ends to be different from all times in other time zones.
    same_clock = found.replace(tzinfo=None) == cell.replace(tzinfo=None)
    return same_clock and found.utcoffset() == cell.utcoffset()
