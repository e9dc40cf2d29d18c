"""Questions about processes that are not ours."""

from __future__ import annotations

import time

import psutil


def gone(pid: int, within_s: float = 5) -> bool:
    """Whether the process ends; one that only waits for its parent to notice has ended."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False
