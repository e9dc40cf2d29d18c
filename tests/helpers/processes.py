"""State of other processes."""

from __future__ import annotations

import time

import psutil


def gone(pid: int, within_s: float = 5) -> bool:
    """Return True if the process ends within the time. A zombie process counts as ended."""
    end = time.monotonic() + within_s
    while True:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
