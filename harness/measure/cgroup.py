"""CPU quotas of Linux control groups, versions 1 and 2.

A quota limits the CPU time of a group but not its set of cores, and is therefore not visible in a process's affinity
mask. The quotas of a group's ancestors also apply. The formats are documented in the kernel's
``admin-guide/cgroup-v2.rst`` and ``scheduler/sched-bwc.rst``.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

Groups = tuple[Path, ...]
"""Directories of a process's group and its visible ancestors, starting with the group itself."""


def cpu_groups(root: Path = Path("/")) -> Groups:
    """Return the directories of this process's groups that have the CPU controller.

    `root` is the directory that contains ``proc`` and ``sys``. The result is empty if there are no control groups.
    """
    with contextlib.suppress(OSError, ValueError):
        memberships = [
            line.split(":", 2) for line in (root / "proc/self/cgroup").read_text(errors="surrogateescape").split("\n")
        ]
        mounts = list(_mounts(root))
        for controller, kind in (("cpu", "cgroup"), ("", "cgroup2")):
            for number, controllers, path in (each for each in memberships if len(each) == 3):
                if controller in controllers.split(",") if controller else number == "0":
                    groups = _directories(mounts, kind, controller, path)
                    if groups:
                        return groups
    return ()


def cpu_quota(groups: Groups) -> float | None:
    """Return the smallest quota of the groups, in cores, or None if no group has a quota."""
    quotas = [quota for quota in map(_quota, groups) if quota is not None]
    return min(quotas, default=None)


def quota_throttled_s(groups: Groups) -> float | None:
    """Return the total time, in seconds, for which the groups with a quota have been throttled.

    Returns 0 if no group has a quota. Returns None if there are no groups or a counter cannot be read.
    """
    if not groups:
        return None
    total = 0.0
    for group in groups:
        if _quota(group) is None:
            continue
        fields = dict(line.split(" ", 1) for line in _text(group / "cpu.stat").split("\n") if " " in line)
        try:
            total += int(fields["throttled_usec"]) / 1e6 if "throttled_usec" in fields else _nanoseconds(fields)
        except (KeyError, ValueError):
            return None
    return total


def available_cores(root: Path = Path("/")) -> int:
    """Return the number of CPU cores that this process may use.

    The result is the smaller of two numbers: the number of cores in the process's affinity mask, and the process's CPU
    quota, rounded up.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    quota = cpu_quota(cpu_groups(root))
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _mounts(root: Path) -> Iterator[tuple[str, str, PurePosixPath, Path]]:
    """Yield the type, options, root within the hierarchy and directory of each mounted cgroup file system."""
    for line in (root / "proc/self/mountinfo").read_text(errors="surrogateescape").split("\n"):
        mount, dash, rest = line.partition(" - ")
        fields, described = mount.split(" "), rest.split(" ")
        if dash and len(fields) >= 5 and described[0] in ("cgroup", "cgroup2"):
            directory = root / _unescaped(fields[4]).lstrip("/")
            yield described[0], described[-1], PurePosixPath(_unescaped(fields[3])), directory


def _unescaped(path: str) -> str:
    """Decode the octal escapes of ``mountinfo``, such as ``\\040`` for a space."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def _directories(
    mounts: list[tuple[str, str, PurePosixPath, Path]], kind: str, controller: str, path: str
) -> tuple[Path, ...]:
    """Return the directories of a group and its ancestors.

    If several mounts contain the group, use the mount in which the most ancestors are visible.
    """
    group = PurePosixPath(path)
    found: list[tuple[bool, tuple[Path, ...]]] = []
    for type_, mount_options, top, directory in mounts:
        if type_ != kind or (controller and controller not in mount_options.split(",")):
            continue
        # In a container without a cgroup namespace, the mount shows only the container's group, whose path is `top`.
        # A path outside of every mount, such as in a namespace that was entered later, is replaced with the top of a
        # mount.
        inside = group.is_relative_to(top) and ".." not in group.relative_to(top).parts
        parts = group.relative_to(top).parts if inside else ()
        chain = [directory.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]
        found.append((inside, tuple(each for each in chain if each.is_dir())))
    return max(found, key=lambda each: (each[0], len(each[1])), default=(False, ()))[1]


def _quota(group: Path) -> float | None:
    """Return the quota of one group in cores, or None if the group has no quota."""
    with contextlib.suppress(ValueError, ZeroDivisionError):
        if maximum := _text(group / "cpu.max").split():
            return None if maximum[0] == "max" else int(maximum[0]) / int(maximum[1])
        allowed = int(_text(group / "cpu.cfs_quota_us"))
        return None if allowed < 0 else allowed / int(_text(group / "cpu.cfs_period_us"))
    return None


def _nanoseconds(fields: dict[str, str]) -> float:
    return int(fields["throttled_time"]) / 1e9


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
