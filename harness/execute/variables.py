"""Environment variables of child processes."""

from __future__ import annotations

from harness.records import RunSpec


def child_environment(spec: RunSpec) -> dict[str, str]:
    """Return the environment variables that must be set before a backend loads any numerical library."""
    return thread_environment(spec.threads)


def thread_environment(threads: int) -> dict[str, str]:
    """Return the environment variables that make each library in a child process use `threads` threads."""
    count = str(threads)
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
    return {
        **dict.fromkeys(pools, count),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
