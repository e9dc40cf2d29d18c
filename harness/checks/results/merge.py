"""Merging of results directories."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from harness.checks.parity.verdict import ParityVerdict, keep
from harness.checks.parity.verdict import load as load_verdicts
from harness.errors import RecordError, UsageError
from harness.records import RunRecord
from harness.records.files import make_directory, replacing
from harness.records.reading import open_stored
from harness.records.store import RECORD, Store, StoredRun, renumbered, run_id, write_json

MAX_FILE_BYTES = 64 * 2**30
"""Maximum size of a copied file, in bytes."""
_BUFFER_BYTES = 2**20
_RENAMING = "-renaming"
"""Suffix added to the name of a run's directory while its repeat number is being changed.

If a merge is interrupted, the next merge finishes renaming the runs.
"""


@dataclass
class Merged:
    """Numbers of added runs and files, and messages about files that could not be merged."""

    added: int = 0
    """Number of runs copied."""
    present: int = 0
    """Number of runs that were already in the results directory."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Old and new ids of each run whose repeat number was changed."""
    ids: dict[Path, str] = field(default_factory=dict)
    """Id of each merged run in the target directory, keyed by the original path of the run's directory."""
    verdicts: int = 0
    """Number of parity verdicts added."""
    problems: list[str] = field(default_factory=list)
    """Messages about runs and files that were not merged."""


def merge(target: Path, others: Sequence[Path]) -> Merged:
    """Add the runs and parity verdicts of `others` to the results directory `target`.

    Runs whose records differ only in the id and the repeat number are treated as one run. Files of a run that are
    missing from `target`, such as an audit or saved weights, are added. Repeats of a specification are then numbered by
    start time, so the result does not depend on the order of the directories or the number of merges. Files in `others`
    are not changed. Links, pipes and devices are not copied.

    Raises `harness.UsageError` if one of `others` is not a directory. Raises `harness.RecordError` if a directory
    cannot be read or `target` cannot be written.
    """
    for other in others:
        if not other.is_dir():
            raise UsageError(
                f"{other}: this results directory does not exist; pass the path of an existing results directory"
            )
    merged = Merged()
    Store(target).prepare()
    present = Store(target).load()
    merged.problems += present.problems
    kept = _with_file_names(present.runs, merged)
    brought: list[StoredRun] = []
    for other in (other for other in others if other.resolve() != target.resolve()):
        loaded = Store(other).load()
        merged.problems += loaded.problems
        brought += _with_file_names(loaded.runs, merged)
        merged.verdicts += _merge_verdicts(other, target)
    contents = _contents([*kept, *brought])
    here = dict(zip(contents, kept, strict=False))
    arriving: dict[str, StoredRun] = {}
    copies: dict[str, list[Path]] = defaultdict(list)
    for content, run in zip(contents[len(kept) :], brought, strict=True):
        if content in here:
            merged.present += 1
            merged.problems += _copy_files(run.path, here[content].path)
        elif content in arriving:
            merged.present += 1
            copies[content].append(run.path)
        else:
            arriving[content] = run
    numbers = _numbers({**here, **arriving})
    for content, run in zip(contents, [*kept, *brought], strict=True):
        merged.ids[run.path] = renumbered(run.record, numbers[content]).run_id
    _renumber(target, here, numbers, merged)
    if arriving:
        with Store(target).scratch() as made_in:
            for content, run in arriving.items():
                merged.problems += _add(run, copies[content], made_in, numbers[content])
                merged.added += 1
        os.sync()
    return merged


def combined(runs: Iterable[StoredRun]) -> list[StoredRun]:
    """Return the runs of one or more results directories, ordered by start time. Duplicates are removed, and ids are
    made unique.

    Runs whose records differ only in the id and the repeat number are treated as one run. If two runs have the same id,
    the repeats of their specification are numbered by start time, as in `merge`. No file is changed.
    """
    by_content: dict[str, StoredRun] = {}
    listed = list(runs)
    for content, run in zip(_contents(listed), listed, strict=True):
        known = by_content.get(content)
        if known is None or _file_count(run.path) > _file_count(known.path):
            by_content[content] = run
    counts = Counter(run.record.run_id for run in by_content.values())
    ambiguous = {run.record.spec.key for run in by_content.values() if counts[run.record.run_id] > 1}
    numbers = _numbers({content: run for content, run in by_content.items() if run.record.spec.key in ambiguous})
    found = [
        StoredRun(run.path, renumbered(run.record, numbers[content])) if content in numbers else run
        for content, run in by_content.items()
    ]
    return sorted(found, key=lambda run: (run.record.started_at, run.record.run_id))


def newest_verdicts(folders: Iterable[Path]) -> list[ParityVerdict]:
    """Return the parity verdicts of several results directories. If several verdicts have the same key, the newest is
    returned."""
    newest: dict[str, ParityVerdict] = {}
    for folder in folders:
        for key, verdict in load_verdicts(folder).items():
            if key not in newest or _age(newest[key]) < _age(verdict):
                newest[key] = verdict
    return list(newest.values())


def _file_count(directory: Path) -> int:
    """Return the number of files in a run's directory, or 0 if the directory cannot be read."""
    try:
        return sum(1 for _ in directory.iterdir())
    except OSError:
        return 0


def _with_file_names(runs: Iterable[StoredRun], merged: Merged) -> list[StoredRun]:
    """Return the runs whose ids are valid file names. The id in a record from an untrusted source can be arbitrary
    text.
    """
    found = []
    for run in runs:
        name = run_id(run.record.spec, "", 1)
        if name == Path(name).name and not name.startswith(".") and "\0" not in name:
            found.append(run)
        else:
            merged.problems.append(f"{run.path}: not merged, because the id {name!r} is not a valid file name")
    return found


def _contents(runs: Sequence[StoredRun]) -> list[str]:
    """Return an identifier for each run. Runs whose records differ only in the id and the repeat number have the same
    identifier.

    Runs with different specifications or start times are distinct, so only the records of the remaining runs are
    compared.
    """
    kinds = [(run.record.spec.key, run.record.started_at) for run in runs]
    counts = Counter(kinds)
    return [
        " ".join(kind) if counts[kind] == 1 else _content(run.record) for kind, run in zip(kinds, runs, strict=True)
    ]


def _content(record: RunRecord) -> str:
    """Return a digest of a record without the run id and the repeat number."""
    plain = msgspec.structs.replace(record, run_id="", repeat=0)
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def _numbers(runs: Mapping[str, StoredRun]) -> dict[str, int]:
    """Return the repeat number of each run. The keys are the identifiers returned by `_contents`.

    Runs with the same specification are numbered in the order in which they started.
    """
    repeats: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for content, run in runs.items():
        repeats[run.record.spec.key].append((run.record.started_at, content))
    return {content: number for each in repeats.values() for number, (_, content) in enumerate(sorted(each), start=1)}


def _renumber(target: Path, runs: Mapping[str, StoredRun], numbers: Mapping[str, int], merged: Merged) -> None:
    """Assign the new repeat numbers to the runs in the target.

    Each run is renamed twice, because the old and new names may overlap.
    """
    moved = []
    for content, run in runs.items():
        named = renumbered(run.record, numbers[content])
        if run.path.name != named.run_id:
            moved.append((run.path.with_name(f"{run.path.name}{_RENAMING}"), named))
            merged.renamed[run.record.run_id] = named.run_id
            _rename(run.path, moved[-1][0])
    for path, named in moved:
        write_json(path / RECORD, named)
        _rename(path, target / named.run_id)


def _rename(path: Path, new: Path) -> None:
    try:
        path.rename(new)
    except OSError as error:
        raise RecordError(f"{path}: cannot be renamed to {new.name}: {error.strerror}") from None


def _add(run: StoredRun, copies: Sequence[Path], made_in: Path, number: int) -> list[str]:
    """Copy a run to the target. Files that are missing from this copy of the run are added from its other copies.
    Return a message about each file that could not be copied.

    The run is first copied to a hidden directory, so an incomplete copy is never read as a run.
    """
    named = renumbered(run.record, number)
    target, directory = made_in.parent / named.run_id, made_in / named.run_id
    problems = []
    try:
        directory.mkdir()
        for source in (run.path, *copies):
            problems += _copy_files(source, directory, visible=False)
        with _new_file(directory / RECORD) as file:
            file.write(msgspec.json.format(msgspec.json.encode(named), indent=1))
        directory.rename(target)
    except OSError as error:
        raise RecordError(f"{target}: cannot be written: {error.strerror}") from None
    return problems


def _copy_files(source: Path, directory: Path, *, visible: bool = True) -> list[str]:
    """Copy the files of a run that are missing from `directory`, except the record. Return a message about each file
    that could not be copied.

    Files in a hidden directory are written directly, which is faster than atomic replacement.
    """
    writer: Callable[[Path], AbstractContextManager[BinaryIO]] = replacing if visible else _new_file
    left_out = []
    folders = [("", os.fspath(source))]
    try:
        while folders:
            inside, folder = folders.pop()
            with os.scandir(folder) as entries:
                found = list(entries)
            if inside and any(not entry.is_dir(follow_symlinks=False) for entry in found):
                make_directory(directory / inside)
            for entry in found:
                name = f"{inside}{entry.name}"
                if entry.is_dir():
                    if not entry.is_symlink():
                        folders.append((f"{name}/", entry.path))
                elif name == RECORD or os.path.lexists(f"{directory}/{name}"):
                    continue
                elif entry.is_file(follow_symlinks=False):
                    _copy(Path(entry.path), directory / name, writer)
                else:
                    left_out.append(f"{entry.path}: not copied, because it is not a regular file")
    except OSError as error:
        raise RecordError(f"{error.filename or source}: cannot be copied: {error.strerror}") from None
    return left_out


def _copy(file: Path, place: Path, writer: Callable[[Path], AbstractContextManager[BinaryIO]]) -> None:
    with writer(place) as copy, open_stored(file, MAX_FILE_BYTES) as original:
        shutil.copyfileobj(original, copy, _BUFFER_BYTES)


def _new_file(path: Path) -> BinaryIO:
    return path.open("xb")


def _merge_verdicts(other: Path, target: Path) -> int:
    """Copy the parity verdicts that are missing from the target or are newer than those in the target. Return the
    number of copied verdicts.
    """
    present, added = load_verdicts(target), 0
    for key, verdict in load_verdicts(other).items():
        if key not in present or _age(present[key]) < _age(verdict):
            keep(verdict, target)
            added += 1
    return added


def _age(verdict: ParityVerdict) -> tuple[str, bytes]:
    return verdict.checked_at, msgspec.json.encode(verdict)
