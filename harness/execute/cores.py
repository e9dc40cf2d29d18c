"""The CPU cores that this process may use, and how they are divided among processes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")


def ordered_cores() -> list[int]:
    """Return the indices of the available cores, or an empty list if the system cannot restrict processes to cores.

    Hardware threads of the same physical core are adjacent, so contiguous parts of the list share as few physical cores
    as possible.
    """

    def place(core: int) -> tuple[int, int, int]:
        try:
            folder = TOPOLOGY / f"cpu{core}/topology"
            return int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text()), core
        except (OSError, ValueError):
            return 0, core, core

    return sorted(os.sched_getaffinity(0), key=place) if hasattr(os, "sched_getaffinity") else []


def core_shares(cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Divide cores into `count` disjoint contiguous parts. If there are fewer cores than parts, the parts are empty."""
    if len(cores) < count:
        return [()] * count
    bounds = [len(cores) * rank // count for rank in range(count + 1)]
    return [tuple(cores[start:end]) for start, end in itertools.pairwise(bounds)]


def use_cores(cores: Sequence[int]) -> None:
    """Restrict this process and any threads it starts later to `cores`, unless `cores` is empty."""
    if cores:
        os.sched_setaffinity(0, cores)
