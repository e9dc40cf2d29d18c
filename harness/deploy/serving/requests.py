"""Reading and preparation of the examples in a request, in the model's process."""

from __future__ import annotations

import dataclasses
import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.user_files.location import MEDIA
from harness.data.user_files.new_data import Reader, Rows
from harness.data.user_files.problems import TooManyRowsError
from harness.data.user_files.tables import Table
from harness.deploy.serving.frames import File, Part
from harness.deploy.serving.limits import Limits
from harness.errors import HarnessError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SOURCE = "the request"
TABLES = (".csv", ".tsv", ".jsonl", ".json")
"""Suffixes of tables that can be uploaded. Parquet is excluded, because a small file can contain a huge table."""

FILES = 4
"""Maximum total number of pixels or samples in the files of one request, as a multiple of the maximum for one file."""


class RefusedError(Exception):
    """Error for a request that cannot be answered. The error contains the HTTP status, the problems of individual
    examples and, if the client may repeat the request, the number of seconds to wait before doing so.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[Mapping[str, Any]] = (),
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.retry_after_s = status, detail, list(errors), retry_after_s


class Requests:
    """Reader of the examples in requests. The examples are read in the same way as the model's training data.

    Uploaded files are stored temporarily in `folder`, because the decoders can only read files.
    """

    def __init__(self, reader: Reader, folder: Path, limits: Limits) -> None:
        self._reader = dataclasses.replace(reader, most_rows=limits.request_examples)
        self._folder, self._limits = folder, limits
        if reader.kind == "image":
            from PIL import EpsImagePlugin, Image

            EpsImagePlugin.gs_binary = False  # Pillow would start Ghostscript for EPS files, whatever their suffix.
            Image.MAX_IMAGE_PIXELS = limits.image_pixels // 2  # Pillow rejects images with twice as many pixels.

    def read(self, part: Part) -> tuple[dict[str, Array], list[str]]:
        """Return the raw inputs of a request, and a list of warnings. Raises `RefusedError` if any example is
        invalid.
        """
        import numpy as np

        try:
            found = list(self._sources(part))
        except TooManyRowsError as error:
            raise RefusedError(413, str(error)) from None
        except HarnessError as error:
            raise RefusedError(422, _shown(str(error), self._folder)) from None
        bad, first = [], 0
        for rows in found:
            problems = rows.problems.by_position()
            index = {where: first + number for number, where in enumerate(rows.where)}
            first += len(rows.where)
            # A row of a table that could not be read has a problem, but is not among the rows.
            bad += [
                {"index": index.get(where), "message": _shown(what, self._folder)} for where, what in problems.items()
            ]
        if bad:
            place = "" if bad[0]["index"] is None else f"example {bad[0]['index']}: "
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise RefusedError(422, f"{place}{bad[0]['message']}{more}", bad[:100])
        if first > self._limits.request_examples:
            raise RefusedError(413, _too_many(first, self._limits.request_examples))
        if not first:
            raise RefusedError(422, "the request contains no examples")
        inputs = {name: np.concatenate([rows.inputs[name] for rows in found]) for name in found[0].inputs}
        return inputs, list(dict.fromkeys(warning for rows in found for warning in rows.warnings))

    def read_texts(self, parts: Sequence[Part]) -> list[dict[str, Array]] | None:
        """Return the raw inputs of several requests whose examples are texts in JSON.

        The texts are read together to save time. Return None if a request has other content, or if there are problems
        or warnings. Use `read` for such requests.
        """
        if self._reader.kind != "text" or not all(part.instances and not part.files for part in parts):
            return None
        rows = self._reader.rows(self._table([text for part in parts for text in part.instances]))
        if rows.problems or rows.warnings:
            return None
        texts, counts = rows.inputs["text"], [len(part.instances) for part in parts]
        return [{"text": texts[end - count : end]} for count, end in zip(counts, accumulate(counts), strict=True)]

    def _sources(self, part: Part) -> Iterator[Rows]:
        if part.instances:
            yield self._reader.rows(self._table(part.instances))
        size = 0
        for number, file in enumerate(part.files):
            with self._written(number, file) as path:
                rows = self._reader.rows(path)
            size += self._size(rows)
            self._check_size(size)
            yield rows

    def _size(self, rows: Rows) -> int:
        """Return the number of pixels or samples in decoded files, or 0 for other kinds of input."""
        if self._reader.kind == "image":
            return sum(math.prod(image.shape[:2]) for image in rows.inputs["image"] if image is not None)
        if self._reader.kind == "audio":
            return sum(waveform.size for waveform in rows.inputs["waveform"] if waveform is not None)
        return 0

    def _check_size(self, size: int) -> None:
        """Raise `RefusedError` if the decoded files of a request are too large in total. Decoded files are kept in
        memory until all files have been read.
        """
        name, per_file = (
            ("pixels", self._limits.image_pixels)
            if self._reader.kind == "image"
            else ("samples", self._limits.audio_samples)
        )
        if size > FILES * per_file:
            raise RefusedError(
                413,
                f"the files in the request have more than {FILES * per_file:,} {name}; send fewer files per request",
            )

    def _table(self, instances: Sequence[Any]) -> Table:
        """Return JSON instances as a table. The instances are texts, or objects that map column names to
        values.
        """
        where = [f"row {number}" for number in range(1, len(instances) + 1)]
        if self._reader.kind == "text":
            column = getattr(self._reader.options, "text_column", None) or "text"
            return Table(SOURCE, {column: [*instances]}, where)
        names = self._reader.columns
        absent = [
            {"index": number, "message": f"the column {name!r} is missing; use null for a missing value"}
            for number, instance in enumerate(instances)
            for name in names
            if name not in instance
        ]
        if absent:
            raise RefusedError(422, f"example {absent[0]['index']}: {absent[0]['message']}", absent[:100])
        return Table(SOURCE, {name: [instance[name] for instance in instances] for name in names}, where)

    @contextmanager
    def _written(self, number: int, file: File) -> Iterator[Path]:
        """Write an uploaded file to a new folder. The client determines only the suffix of the file's new name."""
        kind, suffix = self._reader.kind, Path(file.name).suffix.lower()
        if kind in MEDIA:
            # Decoders recognize the format by the content, so a file without a known suffix may still be valid.
            suffix = suffix if suffix in MEDIA[kind] else MEDIA[kind][-1]
        elif suffix not in (*TABLES, *([".txt"] if kind == "text" else [])):
            forms = ", ".join((*TABLES, *([".txt"] if kind == "text" else [])))
            raise RefusedError(415, f"the file {file.name!r} has an unsupported format; send one of: {forms}")
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            path = Path(folder) / f"upload-{number}{suffix}"
            path.write_bytes(file.content)
            if kind == "audio":
                self._check_length(path)
            yield path

    def _check_length(self, path: Path) -> None:
        """Raise `RefusedError` if a recording is too long, before it is decoded."""
        import soundfile

        try:
            info = soundfile.info(str(path))
        except soundfile.SoundFileError:
            return  # `Reader.rows` reports the problem
        samples = info.frames * info.channels
        if samples > self._limits.audio_samples:
            raise RefusedError(
                413, f"the recording has {samples:,} samples; send at most {self._limits.audio_samples:,}"
            )


def _too_many(count: int, most: int) -> str:
    return f"the request contains {count:,} examples; send at most {most:,} per request"


def _shown(message: str, folder: Path) -> str:
    """Remove server paths and advice about command-line options from a message."""
    message = re.sub(rf"{re.escape(str(folder))}/\S*?(?=upload-)", "", message)
    return re.sub(r"; (fix the rows?, or )?pass (--|dataset\.)[^;]*", "", message)
