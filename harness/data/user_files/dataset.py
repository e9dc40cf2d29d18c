"""`UserDataset`, a dataset that reads the user's file or folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.user_files.divided_rows import DividedRows
from harness.data.user_files.location import is_path
from harness.data.user_files.memory_about import about
from harness.data.user_files.options import OPTIONS, UserOptions
from harness.errors import CombinationError
from harness.interfaces import Dataset, RawData, Split, Task
from harness.records import DataSource, Objective, RunSpec
from harness.records.files import real_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.data.user_files.column_info import ColumnInfo
    from harness.data.user_files.examples import Examples
    from harness.plugins.catalog import Catalog

PILLOW = {"PIL": "ml-harness[vision]"}
SOUNDFILE = {"soundfile": "ml-harness[speech]"}
PYARROW = {"pyarrow": "ml-harness[parquet]"}


def find_dataset(name: str, task: Task, catalog: Catalog) -> Dataset:
    """Return the dataset with this name, or a `UserDataset` if the name is a path.

    Raises `harness.UnknownNameError` if the name is unknown, and `harness.CombinationError` if data for the task cannot
    be read from files.
    """
    known = {*catalog.datasets, *(name for kind, name in catalog.conflicts if kind == "dataset")}
    return UserDataset(Path(name), task.kind, task.objective) if is_path(name, known) else catalog.dataset(name)


def dataset_of(spec: RunSpec, catalog: Catalog) -> Dataset:
    """Return the dataset that a run uses."""
    if spec.source is None:
        return catalog.dataset(spec.dataset)
    task = catalog.task(spec.task)
    return UserDataset(Path(spec.source.path), task.kind, task.objective)


class UserDataset(Dataset[UserOptions]):
    """A dataset that is read from a user's file or folder, for tasks with one kind of input and one objective.

    The inputs depend on the dataset's kind:

    - text: ``text``, an object array of str with shape [N].
    - image: ``image``, an object array of uint8 arrays [H, W, C] (C = 1 or 3), which may differ in size.
    - audio: ``waveform``, an object array of float32 arrays [samples] in [-1, 1], and ``sample_rate_hz``, int64 [N].
    - table: ``features``, float64 [N, F] with NaN for missing numbers, including the parts of dates. If there are
      categorical columns, there is also ``categories``, an object array of str or None with shape [N, C].

    `targets` is an int64 array [N] with indices into the sorted class names, or a float64 array [N, T] for regression.
    `groups` contains the group column and the slice columns, if specified.
    """

    license = "your own data"

    def __init__(self, path: Path, kind: str, objective: Objective) -> None:
        if kind not in OPTIONS:
            raise CombinationError(
                f"{path}: tasks of kind {kind!r} read only datasets from plugins, not files; use a task of kind "
                f"{' or '.join(OPTIONS)} (the kind attribute of the task)"
            )
        if objective == "token_classification":
            raise CombinationError(
                f"{path}: token classification needs one label per position, but files have one label per row; "
                "use a dataset from a plugin"
            )
        self.path = real_path(path)
        self.name, self.kind, self.objective = self.path.name or "/", kind, objective  # type: ignore[misc]
        self.summary = str(self.path)  # type: ignore[misc]
        self.Options = OPTIONS[kind]  # type: ignore[misc]
        decoder: Mapping[str, str] = {"image": PILLOW, "audio": SOUNDFILE}.get(kind, {})
        self.requires = {**decoder, **(PYARROW if path.suffix.lower() == ".parquet" else {})}  # type: ignore[misc]

    def settle(self, options: UserOptions) -> tuple[UserOptions, DataSource, RawData | None]:
        """Return the options, the data source and the data of the selected split or, by default, of the first split;
        see `settle_splits`."""
        numbers = [1] if options.is_resampled and not options.split else []
        ((settled, source, divided),) = self.settle_splits(options, numbers)
        return settled, source, None if divided is None else divided.raw()

    def settle_splits(
        self, options: UserOptions, numbers: Sequence[int] = ()
    ) -> list[tuple[UserOptions, DataSource, DividedRows | None]]:
        """Return the options (completed with all columns and the digest), the data source and the data of each split.
        All splits share one copy of the rows.

        `numbers` selects folds or random splits; by default, all splits are returned. Images and recordings are not
        decoded: None is returned in place of the images or recordings, and the data source contains only the warnings
        that do not depend on the decoded content. The warnings about duplicates, skipped rows and the splits depend on
        the decoded content and are returned by `load`. Raises `harness.UsageError` and `harness.DataError` if the
        options or the data are invalid.
        """
        from harness.data.user_files.assignment import resampled

        examples = self._read(options)
        examples.problems.settle(left=len(examples.good()))
        decoded = decoded_inputs(examples, self.kind) if self.kind in ("text", "table") else None
        settled: list[tuple[UserOptions, DataSource, DividedRows | None]] = []
        for one in resampled(examples, numbers):
            settled.append(self._settled(one, decoded, settled[0][2] if settled else None))
        return settled

    def _settled(
        self, examples: Examples, decoded: Mapping[str, NDArray[Any]] | None, first: DividedRows | None
    ) -> tuple[UserOptions, DataSource, DividedRows | None]:
        from harness.data.user_files.assignment import drawn_despite_order, planned_size

        divided = None
        if decoded is not None:
            divided = self._divided(examples, decoded, first)
            parts, warnings = divided.parts, divided.warnings
        else:
            known = list(examples.warnings)
            _, _, parts, details = self._classes_and_splits(examples)
            warnings = tuple(dict.fromkeys(known + drawn_despite_order(examples, str(details["splits"]))))
        origin = about(self.path)
        source = DataSource(
            path=str(self.path),
            memory=origin.origin if origin else "",
            guessed=examples.guessed,
            warnings=tuple(warnings),
            training_examples=planned_size(examples.options, parts, len(examples.good())),
        )
        return examples.options, source, divided

    def columns(self, options: Mapping[str, Any]) -> tuple[ColumnInfo, ...]:
        """Return the role and type of each column of the table, or an empty tuple for a folder without a table.

        `options` are the options that `settle` returned, converted to built-in types.
        """
        import msgspec

        from harness.data.user_files.column_info import of_table

        examples = self._read(msgspec.convert(options, OPTIONS[self.kind]))
        return () if examples.table is None else of_table(examples.table, examples.options, examples.category_names)

    def load(self, options: UserOptions) -> RawData:
        """Return the data. Raises `harness.DataError` if there are bad rows, or if the content does not match
        ``sha256``."""
        examples = self._read(options)
        decoded = decoded_inputs(examples, self.kind)
        examples.problems.settle(left=len(examples.good()))
        return self._divided(examples, decoded).raw()

    def _divided(
        self, examples: Examples, decoded: Mapping[str, NDArray[Any]], other: DividedRows | None = None
    ) -> DividedRows:
        """Return the rows with decoded inputs, and the rows of each split. The result includes all warnings about the
        rows. If `other` contains the same rows with different splits, the arrays of `other` are reused.
        """
        targets, label_names, parts, details = self._classes_and_splits(examples, decoded)
        rows = examples.good()
        if self.kind == "table":
            examples.warnings += _leaks(examples, rows)
        everything = self._everything(examples, decoded, targets) if other is None else other.everything
        inputs = everything.inputs
        reading = examples.reading()
        if self.kind == "image":
            image_range = _scale(inputs["image"], parts["train"], examples)
            if image_range is not None:
                details["image_range"] = f"{image_range[0]:g} to {image_range[1]:g}"
                reading["image_range"] = list(image_range)
        details |= examples.encodings([rows[row] for row in parts["train"]])
        return DividedRows(
            everything=everything,
            parts=parts,
            label_names=label_names,
            details=details,
            warnings=examples.all_warnings(),
            feature_names=tuple(examples.feature_names),
            reading=reading,
        )

    def _everything(self, examples: Examples, decoded: Mapping[str, NDArray[Any]], targets: NDArray[Any]) -> Split:
        """Return all good rows."""
        import numpy as np

        rows = examples.good()
        groups = {name: np.array(values)[rows] for name, values in examples.slices.items()}
        if examples.groups is not None:
            groups[str(examples.options.group_column)] = np.array(examples.groups)[rows]
        return Split(
            inputs={name: array[rows] for name, array in decoded.items()},
            targets=targets,
            groups=groups,
            rows=examples.origins()[rows],
            weights=None if examples.weights is None else np.array(examples.weights, np.float64)[rows],
        )

    def _read(self, options: UserOptions) -> Examples:
        from harness.data.user_files.read_examples import read

        return read(self.path, self.kind, self.objective, options)

    def _classes_and_splits(
        self, examples: Examples, decoded: Mapping[str, NDArray[Any]] | None = None
    ) -> tuple[NDArray[Any], tuple[str, ...], dict[str, NDArray[Any]], dict[str, bool | int | float | str]]:
        """Return the targets, the label names, the row indices of each split, and the details to record. Bad rows are
        omitted.

        `decoded` contains the decoded arrays of all rows. Near-duplicates are found only in decoded images and
        recordings.
        """
        import numpy as np

        from harness.data.names import in_order
        from harness.data.suspicions import majority
        from harness.data.user_files.assignment import assigned
        from harness.data.user_files.duplicates import find_duplicates
        from harness.data.user_files.leaks import check_ranges, check_trained, constant_targets, coverage
        from harness.data.user_files.missing_codes import in_labels, in_numbers
        from harness.data.user_files.splitting import check_classes
        from harness.errors import DataError

        rows = examples.good()
        classes = None
        if examples.labels is not None:
            labels = [examples.labels[row] for row in rows]
            names = in_order(labels)
            if len(names) < 2:
                raise DataError(
                    f"{self.name}: all rows have the label {names[0]!r}; classification needs at least two classes"
                )
            numbers = {name: number for number, name in enumerate(names)}
            targets: NDArray[Any] = np.array([numbers[label] for label in labels], np.int64)
            classes = targets
        else:
            targets = np.array(examples.numbers, np.float64).T[rows]
            names = tuple(examples.options.target_column or ())
        duplicates = find_duplicates(examples, rows, decoded or {}, self.kind)
        groups = None if examples.groups is None else np.array(examples.groups)[rows]
        try:
            parts, made = assigned(examples, rows, classes, names, duplicates.together)
        except DataError as error:
            raise DataError(f"{self.name}: {error}") from None
        title = examples.options.title
        where = f"{title}: " if title else ""
        try:
            missing, few = check_classes(parts, classes, names) if classes is not None else ({}, [])
        except DataError as error:
            raise DataError(f"{self.name}: {where}{error}") from None
        if examples.splits is None and examples.times is None:
            examples.warnings += duplicates.joins(groups)
        examples.warnings += [where + warning for warning in [*few, *duplicates.between(parts)]]
        features, categories, values = _by_name(examples, rows)
        check_trained(f"{self.name}: {title}" if title else self.name, features, parts["train"])
        check_ranges(self.name, {**features, **values})
        parts_of_dates = {f"{name} ({part})" for name, found in examples.date_parts.items() for part in found}
        examples.warnings += in_numbers(
            {name: column for name, column in {**features, **values}.items() if name not in parts_of_dates}
        )
        found = [*coverage(features, categories, parts), *constant_targets(values, parts)]
        if classes is not None:
            found += majority(classes[parts["test"]], names)
        examples.warnings += [where + warning for warning in found]
        if classes is not None:
            examples.warnings += in_labels([names[number] for number in classes])
        return targets, names, parts, {**examples.problems.details(), **made, **missing}


def _by_name(
    examples: Examples, rows: Sequence[int]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[Any]], dict[str, NDArray[np.float64]]]:
    """Return the numeric features, the categories and the regression targets, keyed by name."""
    import numpy as np

    targets = (examples.options.target_column or ()) if examples.numbers else ()
    return (
        {name: np.array(values)[rows] for name, values in zip(examples.feature_names, examples.features, strict=True)},
        {
            name: np.array(cells, object)[rows]
            for name, cells in zip(examples.category_names, examples.categories, strict=True)
        },
        {name: np.array(values)[rows] for name, values in zip(targets, examples.numbers, strict=True)},
    )


def _leaks(examples: Examples, rows: Sequence[int]) -> list[str]:
    """Return warnings about features that contain row numbers or determine the target."""
    import numpy as np

    from harness.data.user_files.leaks import giveaways, label_giveaways, row_numbers

    features, categories, targets = _by_name(examples, rows)
    found = [*row_numbers(features), *giveaways(features, categories, targets)]
    if examples.labels is not None:
        found += label_giveaways({**features, **categories}, np.array(examples.labels, object)[rows])
    return found


def decoded_inputs(examples: Examples, kind: str) -> dict[str, NDArray[Any]]:
    """Return the input arrays for all rows. Files that cannot be decoded are added to `problems` of the examples."""
    import numpy as np

    count = len(examples.where)
    if kind == "text":
        return {"text": np.array(examples.texts, object)}
    if kind == "table":
        features = np.array(examples.features, np.float64).reshape(-1, count).T
        arrays = {"features": np.ascontiguousarray(features)}
        if examples.categories:
            arrays["categories"] = np.array(examples.categories, object).T
        return arrays
    from harness.data.user_files.examples import unreadable
    from harness.data.user_files.media import UnreadableError, decoded_digest, described, read_audio, read_image

    decoded = np.empty(count, object)
    rates_hz = np.zeros(count, np.int64)
    notes: Counter[str] = Counter()
    for row in examples.good():
        try:
            if kind == "image":
                decoded[row] = read_image(examples.files[row], examples.options.shorter_side, notes)  # type: ignore[attr-defined]
            else:
                decoded[row], rates_hz[row] = read_audio(examples.files[row], notes)
        except UnreadableError as error:
            where, file = examples.where[row], examples.files[row]
            examples.problems.add(where, unreadable(where, file, error))
    examples.warnings += described(notes, kind)
    good = examples.good()
    examples.bytes_digests, examples.digests = examples.digests, list(examples.digests)
    for row in good:
        examples.digests[row] = decoded_digest(decoded[row], int(rates_hz[row]))
    return {"image": decoded} if kind == "image" else {"waveform": decoded, "sample_rate_hz": rates_hz}


def _scale(images: NDArray[Any], train: NDArray[Any], examples: Examples) -> tuple[float, float] | None:
    """Scale images with more than 8 bits to uint8 in place. Return the range of values that was mapped to 8 bits, or
    None if no image has more than 8 bits.

    `images` is an object array ``[N]`` of arrays ``[H, W, C]``, and `train` contains the indices of the training split.
    """
    import numpy as np

    from harness.data.user_files.media import is_unscaled, scaled, value_range
    from harness.errors import DataError

    declared = examples.options.image_range  # type: ignore[attr-defined]
    unscaled = [index for index, pixels in enumerate(images) if is_unscaled(pixels)]
    if not unscaled:
        if declared is not None:
            examples.warnings.append("dataset.image_range has no effect, because no image has more than 8 bits")
        return None
    learned = [index for index in train if is_unscaled(images[index])]
    if declared is None and not learned:
        raise DataError(
            "the range of images with more than 8 bits is unknown, because the training split contains no such images; "
            "set dataset.image_range to the smallest and the largest value, such as [0, 4095]"
        )
    low, high = declared or value_range(images[index] for index in learned)
    clipped = sum(bool(images[index].min() < low or images[index].max() > high) for index in unscaled)
    warning = (
        f"{len(unscaled):,} images with more than 8 bits were scaled to 8 bits from the range {low:g} to "
        f"{high:g} ({'as declared' if declared else 'the range of the training split'})"
    )
    if clipped:
        warning += f"; values outside of this range were clipped in {clipped:,} of them"
    if len(unscaled) < len(images):
        others = len(images) - len(unscaled)
        what = "other images have 8 bits and were" if others > 1 else "other image has 8 bits and was"
        warning += f"; {others:,} {what} not scaled"
    if declared is None:
        warning += _crowded(np.concatenate([images[index].reshape(-1) for index in learned[:64]]), low, high)
    for index in unscaled:
        images[index] = scaled(images[index], low, high)
    examples.warnings.append(warning)
    return low, high


def _crowded(values: NDArray[Any], low: float, high: float) -> str:
    """Return a warning if most of the value range is due to a few outliers."""
    import numpy as np

    first, last = (float(end) for end in np.quantile(values, (0.001, 0.999)))
    if last - first > 0.25 * (high - low):
        return ""
    return (
        f"; 99.8% of the values are between {first:g} and {last:g}, so little contrast is left; set "
        "dataset.image_range if the other values are outliers"
    )
