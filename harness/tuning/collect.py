"""Collection of studies from several results directories, for merging and for bundles."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from harness.errors import RecordError
from harness.records.files import make_directory
from harness.records.store import write_json
from harness.tuning.study import FOLDER, STUDY, Study, directory, load, load_all, save

_MERGING = ".merging-"
"""A study is copied to a hidden directory in the results directory. The name of the hidden directory starts with this
prefix."""


def with_ids(study: Study, ids: Mapping[str, str]) -> Study:
    """Return the study with new ids for the runs that confirm its settings. `ids` maps the former id of each run to its
    new id."""
    confirmed = {contender: [ids.get(run, run) for run in runs] for contender, runs in study.confirmed.items()}
    return msgspec.structs.replace(study, confirmed=confirmed)


def merge_studies(target: Path, others: Sequence[Path], ids: Mapping[Path, str]) -> tuple[int, list[str]]:
    """Copy the studies of `others`, with their trials, to the results directory `target`. The runs of `others` must be
    merged into `target` before this function is called. Return the number of copied studies, and a message for each
    study or file that was not copied.

    `ids` maps the path that each run had before the merge to the run's id in `target`. In the
    copied studies, the former ids are replaced by the new ids. A study is not copied if `target` contains a different
    study with the same name. Raises `harness.RecordError` if `target` cannot be written.
    """
    present, problems = load_all(target)
    known = {study.name: study for study in present}
    for study in present:
        known[study.name] = renamed = with_ids(study, _ids_in(target, ids))
        if renamed != study and (directory(target, study.name) / STUDY).is_file():
            save(renamed, target)
    added = 0
    for other in (other for other in others if other.resolve() != target.resolve()):
        studies, unreadable = load_all(other)
        problems += unreadable
        for study in studies:
            brought = with_ids(study, _ids_in(other, ids))
            source = directory(other, study.name)
            if not (source / STUDY).is_file() or Path(study.name).name != study.name or study.name.startswith("."):
                problems.append(f"{other / FOLDER}: the study {study.name!r} is not in a directory with the same name")
            elif study.name not in known and not os.path.lexists(directory(target, study.name)):
                problems += _copy(source, brought, target)
                known[study.name] = brought
                added += 1
            elif known.get(study.name) != brought:
                problems.append(
                    f"{source}: not merged, because {target / FOLDER} contains a different study with the same name"
                )
    return added, problems


def selected(runs: Mapping[Path, str], folders: Iterable[Path]) -> tuple[list[Study], list[str]]:
    """Return the studies in the results directories `folders`, and the studies whose settings are confirmed by any of
    `runs`. The ids of the runs that confirm the settings are taken from `runs`. Also return a message for each study
    that is unreadable or differs from another study with the same name.

    `runs` maps the path of each run to its id.
    """
    whole = {folder.resolve() for folder in folders}
    found: dict[str, Study] = {}
    problems: list[str] = []
    for folder in sorted({*whole, *(path.parent.resolve() for path in runs)}):
        ids = {path.name: run for path, run in runs.items() if path.parent.resolve() == folder}
        studies, unreadable = load_all(folder)
        problems += unreadable
        for study in studies:
            if folder not in whole and not any(run in ids for each in study.confirmed.values() for run in each):
                continue
            renamed = with_ids(study, ids)
            if found.setdefault(study.name, renamed) != renamed:
                problems.append(
                    f"{folder / FOLDER}: the study {study.name!r} differs from another study with the same name"
                )
    return list(found.values()), problems


def _ids_in(folder: Path, ids: Mapping[Path, str]) -> dict[str, str]:
    return {path.name: run for path, run in ids.items() if path.parent == folder}


def _copy(source: Path, study: Study, target: Path) -> list[str]:
    """Copy the directory of a study. Links and special files are not copied. The copied study becomes visible when the
    copy is complete."""
    left_out: list[str] = []

    def ignored(folder: str, names: list[str]) -> list[str]:
        paths = [Path(folder, name) for name in names]
        links = [path for path in paths if path.is_symlink() or not (path.is_file() or path.is_dir())]
        left_out.extend(f"{path}: not copied, because it is not a regular file" for path in links)
        return [path.name for path in links]

    made = target / f"{_MERGING}{study.name}"
    try:
        make_directory(target / FOLDER)
        shutil.rmtree(made, ignore_errors=True)  # left by a merge that was killed
        shutil.copytree(source, made, ignore=ignored)
        write_json(made / STUDY, study)
        load(made)
        made.rename(directory(target, study.name))
    except (OSError, shutil.Error) as error:
        raise RecordError(f"{directory(target, study.name)}: cannot be written: {error}") from None
    return left_out
