"""Discovery of image and audio files in a tree of class folders."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.data.user_files.location import MEDIA, REMEDIES, is_hidden
from harness.data.user_files.splitting import NAMES, same_split
from harness.errors import DataError

SIDE_FILES = frozenset(("desktop.ini", "picasa.ini", "thumbs.db"))
"""Names of files that file managers create, in lower case. Files with these names are ignored without a warning."""
MAX_DEPTH = 32


@dataclass
class Tree:
    """Sorted paths of the files and folders below a folder, relative to the folder and with ``/`` as the separator."""

    files: list[str] = field(default_factory=list)
    """Files of the requested kind."""
    others: list[str] = field(default_factory=list)
    """Other files, except those created by file managers."""
    folders: list[str] = field(default_factory=list)
    """Folders, including empty ones."""
    hidden: list[str] = field(default_factory=list)
    """Files of the requested kind that are hidden or inside hidden folders."""


@dataclass(frozen=True)
class ClassFolders:
    """Files in a tree of folders, and their classes."""

    files: list[str]
    labels: list[str]
    splits: list[str] | None
    """Split of each file, or None if the folders do not define splits."""
    warnings: list[str]


def files_by_class(root: Path, kind: str, class_level: int | None = None) -> ClassFolders:
    """Return the files below `root` and their classes. If the folders define splits, also return the split of each
    file.

    By default, the classes are the top-level folders. If all top-level folders are named after splits, the classes are
    the folders below them. `class_level` (1 or 2) overrides this rule. At level 2, top-level folders that are not named
    after splits are ignored.

    Raises `harness.DataError` if the folders have any other structure, if a class or split has no files, or if the
    class level is ambiguous.
    """
    tree = scan(root, kind)
    suffixes = ", ".join(MEDIA[kind])
    if not tree.files:
        raise DataError(
            f"{root}: the folder and its subfolders contain no {kind} files ({suffixes}){_found(tree.others)}"
        )
    advice = "move each file into a folder named after its class, or add a metadata file with paths and labels"
    loose = next((file for file in tree.files if "/" not in file), None)
    if loose:
        raise DataError(f"{root}: {loose} is not in a class folder; {advice}")
    tops = [folder for folder in tree.folders if "/" not in folder]
    level, split_names = _level(root, kind, tree, tops, class_level)
    _check_empty(root, kind, tree, level, tops if level == 2 and split_names else [])
    if level == 2:
        shallow = next((file for file in tree.files if file.count("/") < 2), None)
        if shallow:
            raise DataError(f"{root}: {shallow} is in a split folder, but not in a class folder; {advice}")
    labels = [file.split("/")[level - 1] for file in tree.files]
    splits = [NAMES[file.split("/")[0].lower()] for file in tree.files] if split_names else None
    warnings = ignored_files(tree, kind)
    warnings += _nested(tree, level)
    if level == 1 and class_level is None:
        warnings += _named_like_splits(tops)
    if level == 2 and splits is None:
        warnings.append(f"the top-level folders ({_listed(tops)}) were ignored, because the class level is 2")
    if splits is not None:
        warnings += _absent(tree, tops)
    return ClassFolders(tree.files, labels, splits, warnings)


def scan(root: Path, kind: str) -> Tree:
    """Return all files and folders below `root`, except hidden ones.

    Raises `harness.DataError` if a folder cannot be read, if symbolic links form a loop, or if a name is not valid
    UTF-8.
    """

    def refuse(error: OSError) -> None:  # os.walk() would skip the folder and might silently drop a class
        raise DataError(f"{error.filename}: the folder cannot be read: {error.strerror}") from None

    tree = Tree()
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        relative = Path(folder).relative_to(root)
        for name in filter(is_hidden, folders):
            tree.hidden += _media(Path(folder) / name, relative / name, kind)
        tree.hidden += [(relative / name).as_posix() for name in names if is_hidden(name) and _is_media(name, kind)]
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in (*folders, *names):
            if not name.isprintable() and not is_utf8(name):
                shown = (relative / name).as_posix().encode(errors="backslashreplace").decode()
                raise DataError(f"{root}: the name {shown} is not encoded in UTF-8; rename the file or folder")
        tree.folders += [(relative / name).as_posix() for name in folders]
        for name in names:
            if not is_hidden(name) and name.lower() not in SIDE_FILES:
                kept = tree.files if Path(name).suffix.lower() in MEDIA[kind] else tree.others
                kept.append((relative / name).as_posix())
        if len(Path(folder).parts) - len(root.parts) > MAX_DEPTH:
            raise DataError(
                f"{folder}: folders are nested more than {MAX_DEPTH} levels deep; remove symbolic links that "
                "form a loop"
            )
    return Tree(sorted(tree.files), sorted(tree.others), sorted(tree.folders), sorted(tree.hidden))


def _media(folder: Path, shown: Path, kind: str) -> list[str]:
    """Return the files of the given kind below a hidden folder, which may be unreadable."""
    return [
        (shown / Path(inner).relative_to(folder) / name).as_posix()
        for inner, _, names in os.walk(folder)
        for name in names
        if _is_media(name, kind)
    ]


def _is_media(name: str, kind: str) -> bool:
    """Return whether a file has a suffix for the given kind of media, excluding macOS metadata files (``._name``)."""
    return Path(name).suffix.lower() in MEDIA[kind] and not name.startswith("._")


def is_utf8(name: str) -> bool:
    """Return whether a file name is valid UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def ignored_files(tree: Tree, kind: str, listed: Container[str] = ()) -> list[str]:
    """Return warnings about the number of files that are ignored because they are hidden or because of their suffixes.

    Files in `listed` are omitted, because they are ignored for a different reason.
    """
    others = [name for name in tree.others if name not in listed]
    return [*_hidden(tree.hidden, kind), *_unsuited(others, kind)]


def _hidden(names: Sequence[str], kind: str) -> list[str]:
    if not names:
        return []
    places = sorted({next(part for part in name.split("/") if is_hidden(part)) for name in names})
    verb = (
        "file is hidden or in a hidden folder and was"
        if len(names) == 1
        else ("files are hidden or in hidden folders and were")
    )
    return [f"{len(names):,} {kind} {verb} ignored ({_listed(places)})"]


def _unsuited(others: Sequence[str], kind: str) -> list[str]:
    counts = Counter(Path(name).suffix.lower() or "no suffix" for name in others)
    if not counts:
        return []
    total = sum(counts.values())
    shown = _listed([f"{suffix}: {count:,}" for suffix, count in counts.most_common()])
    files, are = ("file is", "was") if total == 1 else ("files are", "were")
    noun = {"image": "images", "audio": "recordings"}[kind]
    remedies = [REMEDIES[suffix] for suffix in REMEDIES if kind == "audio" and suffix in counts]
    advice = "".join(f"; {remedy}" for remedy in dict.fromkeys(remedies))
    return [f"{total:,} {files} not in a format that can be read as {noun} and {are} ignored ({shown}){advice}"]


def _level(root: Path, kind: str, tree: Tree, tops: list[str], class_level: int | None) -> tuple[int, bool]:
    """Return the level of the class folders, and whether the folders above them define splits."""
    named = [top for top in tops if top.lower() in NAMES]
    if class_level == 1:
        return 1, False
    if class_level == 2:
        if len(named) == len(tops):
            check_names(root, tops)
        return 2, len(named) == len(tops)
    if len(named) == len(tops):
        check_names(root, tops)
        return 2, True
    if len({NAMES[top.lower()] for top in named}) > 1:
        others = [top for top in tops if top not in named]
        raise DataError(
            f"{root}: split folders ({_listed(named)}) are mixed with other folders ({_listed(others)}); keep "
            f"only one of the two kinds of folders"
        )
    inner = {top: {f.split("/")[1] for f in tree.files if f.startswith(f"{top}/") and f.count("/") > 1} for top in tops}
    if len(tops) == 1 and len(inner[tops[0]]) > 1:
        raise DataError(f"{root}: all files are in the folder {tops[0]}; pass the path {root / tops[0]}")
    counts = Counter(name for names in inner.values() for name in names)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    alike = len(tops) > 1 and repeated and all(any(map(NAMES.get, _words(top))) for top in tops)
    if alike or (len(repeated) > 1 and 2 * len(repeated) >= len(counts)):
        raise DataError(
            f"{root}: cannot determine which folders are the classes: the top-level folders ({_listed(tops)}) contain "
            f"folders with the same names ({_listed(repeated)}); if the top-level folders are splits, rename them to "
            "train, validation and test; if they are the classes, pass --set dataset.class_level=1; if the folders "
            "below them are the classes, pass --set dataset.class_level=2"
        )
    return 1, False


def _named_like_splits(tops: list[str]) -> list[str]:
    """Return a warning if class folders have names that are commonly used for splits."""
    named = [top for top in tops if top.lower() in NAMES]
    if not named:
        return []
    if len(named) == 1:
        what = "this folder is named after a split, but is read as a class"
    else:
        what = "these folders are named after splits, but are read as classes"
    return [
        f"{_listed(named)}: {what}, because there are also other folders; pass --set dataset.class_level=1 if this is "
        "correct"
    ]


def _words(name: str) -> list[str]:
    """Return the words in a name such as ``training_set`` or ``testset``, in lower case."""
    return [word.removesuffix("set") for word in re.findall(r"[^\W\d_]+", name.lower())]


def _check_empty(root: Path, kind: str, tree: Tree, level: int, splits: list[str]) -> None:
    """Raise `harness.DataError` if the folder of a split or class contains no files, because it would otherwise be
    silently dropped.
    """
    empty = [top for top in splits if not any(file.startswith(f"{top}/") for file in tree.files)]
    if empty:
        raise DataError(
            f"{root}: the split folder {empty[0]} has no {kind} files; add files, or remove the folder to draw this "
            "split from the training split"
        )
    used = {file.split("/")[level - 1] for file in tree.files if file.count("/") >= level}
    classes = [folder for folder in tree.folders if folder.count("/") == level - 1]
    unused = [folder for folder in classes if folder.split("/")[-1] not in used]
    if unused:
        inside = [other for other in tree.others if other.startswith(tuple(f"{folder}/" for folder in unused))]
        raise DataError(
            f"{root}: there are no {kind} files ({', '.join(MEDIA[kind])}) in the class "
            f"{'folder' if len(unused) == 1 else 'folders'} {_listed(unused)}{_found(inside)}; convert the files, or "
            "move the folder elsewhere"
        )


def _nested(tree: Tree, level: int) -> list[str]:
    """Return a warning if class folders contain subfolders, because the names of the subfolders are ignored."""
    inner = Counter(file.split("/")[level] for file in tree.files if file.count("/") > level)
    if not inner:
        return []
    return [
        f"{inner.total():,} {'file is' if inner.total() == 1 else 'files are'} in subfolders of class "
        f"folders ({_listed(sorted(inner))}); the names of these subfolders were ignored"
    ]


def check_names(root: Path, tops: Sequence[str]) -> None:
    """Raise `harness.DataError` if two folders are named after the same split, because merging them may not be
    intended.
    """
    if (pair := same_split(tops)) is not None:
        raise DataError(
            f"{root}: the folders {pair[0]} and {pair[1]} are both named after the {NAMES[pair[0].lower()]} split; "
            "merge them or rename one of them"
        )


def _absent(tree: Tree, splits: list[str]) -> list[str]:
    """Return a warning for each class folder that is empty in some of the splits."""
    used = {"/".join(file.split("/")[:2]) for file in tree.files}
    inner = [folder for folder in tree.folders if folder.count("/") == 1 and folder.split("/")[0] in splits]
    empty = [folder for folder in inner if folder not in used]
    return [f"the folder {folder} has no files" for folder in empty]


def _found(others: list[str]) -> str:
    return f"; it contains {_listed(others)}" if others else ""


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
