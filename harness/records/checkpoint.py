"""Storage of training checkpoints on disk.

The directory of a run's checkpoints contains ``checkpoint.json``, which describes the last checkpoint, and a
safetensors file with the checkpoint's arrays. The arrays of a new checkpoint are written to a new file, and
``checkpoint.json`` is then replaced atomically. The previous checkpoint therefore remains valid until the new one is
complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from harness.errors import RecordError
from harness.records.checkpointing import Interval
from harness.records.events import EpochEnded
from harness.records.files import make_directory, write_new
from harness.records.reading import MAX_JSON_BYTES, decode, open_stored, read_stored
from harness.records.record import Ended, Environment
from harness.records.scratch import PREFIX
from harness.records.spec import PluginRef, RunSpec
from harness.records.store import write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

FOLDER = ".checkpoints"
"""Subdirectory of a results directory that contains the checkpoints of all runs, with one directory for each run."""
DESCRIPTION = "checkpoint.json"
SUFFIX = ".safetensors"
MAX_BYTES = 1 << 40


class Progress(Struct, frozen=True, kw_only=True):
    """State of the core's training loop. Losses and timed windows are stored as arrays."""

    curves: list[EpochEnded]
    """Learning curves of the completed epochs."""
    window_steps: int
    """Number of steps in the next timed window."""
    ended: Ended | None
    """Recipe setting that ended training. The value is None if training has not ended."""


class Identity(Struct, frozen=True, kw_only=True):
    """Properties of a run that must not change when it is resumed."""

    key: str
    """Key of `spec`."""
    spec: RunSpec
    """Specification as requested, before the worker resolved the device."""
    device: str
    """Name of the device on which the model is trained."""
    plugins: list[PluginRef]
    """Plugins that the run loads, with digests of their code."""
    environment: Environment
    """Hardware and software environment."""
    dataset_digest: str
    """Digest of the prepared data, as in `Provenance.dataset_digest`."""
    initial_weights_digest: str
    """Digest of the initial weights, as in `Provenance.initial_weights_digest`."""
    teacher_logits: str = ""
    """Note about the teacher's logits, which includes their digest, or an empty string if the run has no teacher."""


class Checkpoint(Struct, frozen=True, kw_only=True):
    """Description of a checkpoint."""

    version: Literal[2] = 2
    digest: str = ""
    """SHA-256 (hex) of this description in JSON, with an empty `digest`. `describe` replaces the value."""
    identity: Identity
    arrays: str
    """Name of the file that contains the arrays."""
    sha256: str
    """SHA-256 (hex) of the file with the arrays."""
    step: int
    """Number of completed training steps."""
    steps: int
    """Number of planned training steps."""
    every: Interval
    """Interval between checkpoints."""
    started_at: str
    """Start time of the last process that trained the run, in the format of `RunRecord.started_at`."""
    written: int
    """Number of checkpoints written so far, including this one."""
    write_s: float
    """Time in seconds spent on writing all checkpoints before this one."""
    phases_s: dict[str, float]
    """Total duration of the phases ``train`` and ``validate`` so far, in seconds, summed over all processes."""
    resumed_at: list[int]
    """Number of completed training steps at each resumption of training."""
    progress: Progress

    @property
    def title(self) -> str:
        """Position in training, such as ``step 1200 of 5000``."""
        return f"step {self.step} of {self.steps}"


def write(directory: Path, checkpoint: Checkpoint, arrays: Arrays) -> None:
    """Write a checkpoint and remove the previous one. The stored description has a new file name and new digests.

    Raises `OSError` if the checkpoint cannot be written. In this case, the previous checkpoint is left unchanged.
    """
    make_directory(directory.parent)
    make_directory(directory)
    path = directory / f"step-{checkpoint.step}-{secrets.token_hex(4)}{SUFFIX}"
    try:
        sha256 = _write_arrays(path, arrays)
        describe(directory, msgspec.structs.replace(checkpoint, arrays=path.name, sha256=sha256))
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # files that cannot be removed now are removed with the directory
        for other in directory.glob(f"*{SUFFIX}"):
            if other != path:
                other.unlink(missing_ok=True)


def describe(directory: Path, checkpoint: Checkpoint) -> None:
    """Replace the description of the checkpoint in a directory. The digest in the description is recomputed.

    Raises `OSError` if the description cannot be written.
    """
    try:
        described = msgspec.structs.replace(checkpoint, digest=_digest(checkpoint))
        write_json(directory / DESCRIPTION, described, linked_folder=False)
    except RecordError as error:
        raise OSError(errno.EIO, str(error)) from None


def read_description(directory: Path) -> Checkpoint:
    """Return the description of the checkpoint in a directory, without reading its arrays.

    Raises `harness.RecordError` if there is no checkpoint, or if the description is damaged or was changed.
    """
    path = directory / DESCRIPTION
    checkpoint = decode(read_stored(path, MAX_JSON_BYTES), Checkpoint, path)
    if checkpoint.digest != _digest(checkpoint):
        raise RecordError(f"{path}: the checkpoint is damaged: its description does not match the recorded SHA-256")
    if checkpoint.identity.key != checkpoint.identity.spec.key:
        raise RecordError(f"{path}: the checkpoint was changed: its key differs from the key of its specification")
    return checkpoint


def _digest(checkpoint: Checkpoint) -> str:
    """Return the value of `Checkpoint.digest` for a description."""
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(checkpoint, digest=""))).hexdigest()


def read(directory: Path) -> Checkpoint:
    """Return the description of the checkpoint in a directory.

    The arrays are checked against the digest in the description.

    Raises `harness.RecordError` if there is no checkpoint, if it cannot be read, or if it is damaged or was changed.
    """
    checkpoint = read_description(directory)
    arrays = directory / Path(checkpoint.arrays).name
    with open_stored(arrays, MAX_BYTES) as file:
        try:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RecordError(f"{arrays}: cannot be read: {error.strerror}") from None
    if actual != checkpoint.sha256:
        raise RecordError(f"{arrays}: the checkpoint is damaged: its SHA-256 differs from the recorded one")
    return checkpoint


def read_arrays(directory: Path, checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    """Return the arrays of a checkpoint whose description was returned by `read`. Raises `harness.RecordError`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = directory / Path(checkpoint.arrays).name
    try:
        arrays: dict[str, NDArray[Any]] = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from None
    return arrays


def remove(directory: Path) -> None:
    """Remove the checkpoints of a run. Raises `OSError` if the checkpoints cannot be removed.

    The directory is first renamed to a hidden name, so that a partially removed checkpoint is never read.
    """
    # The next command removes this directory if this process is killed.
    hidden = directory.parent.with_name(f"{PREFIX}{directory.name}-{secrets.token_hex(4)}")
    try:
        directory.rename(hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden)
    with contextlib.suppress(OSError):  # other runs may have checkpoints
        directory.parent.rmdir()


def directories(results: Path) -> list[Path]:
    """Return the directories with checkpoints in a results directory, sorted by name.

    The directory that contains all checkpoints is ignored if it is a symbolic link. Raises `harness.RecordError` if the
    directory cannot be read.
    """
    folder = results / FOLDER
    try:
        if folder.is_symlink() or not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise RecordError(f"{folder}: cannot be read: {error.strerror}") from None


def _write_arrays(path: Path, arrays: Arrays) -> str:
    """Write a safetensors file, flush it to disk, and return its SHA-256 (hex)."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    write_new(path, b"")  # unlike `save_file`, this never follows a link
    try:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path)
    except SafetensorError as error:  # raised if the disk is full
        raise OSError(errno.EIO, str(error), str(path)) from None
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
