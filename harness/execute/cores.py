"""The CPU cores that this process may use and their distribution among processes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")


def ordered_cores() -> list[int]:
    """Return the indices of the available cores.

    If the system cannot restrict processes to cores, return an empty list.

    Hardware threads of the same physical core are adjacent, so that contiguous parts of the list share as few physical
    cores as possible.
    """

    def place(core: int) -> tuple[int, int, int]:
        try:
            folder = TOPOLOGY / f"cpu{core}/topology"
            return int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text()), core
        except (OSError, ValueError):
            return 0, core, core

    return sorted(os.sched_getaffinity(0), key=place) if hasattr(os, "sched_getaffinity") else []


def core_shares(cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Divide cores into `count` disjoint contiguous parts. If there are fewer cores than parts, all parts are empty."""
    if len(cores) < count:
        return [()] * count
    bounds = [len(cores) * rank // count for rank in range(count + 1)]
    return [tuple(cores[start:end]) for start, end in itertools.pairwise(bounds)]


def use_cores(cores: Sequence[int]) -> None:
    """Restrict this process, and any threads that it starts later, to `cores`.

    If `cores` is empty, do nothing.
    """
    if cores:
        os.sched_setaffinity(0, cores)
