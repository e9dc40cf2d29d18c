"""Validation of the numbers of devices and CPU threads that planned runs use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.errors import CombinationError, UsageError
from harness.measure.cgroup import available_cores
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import Gpu, RunSpec
from harness.records.spec import MAX_DEVICES

MAX_THREADS = 1024
"""Maximum number of threads. Some libraries cannot start larger thread pools."""


def device_counts(selection: Selection) -> tuple[int, ...]:
    """Return the selected numbers of devices without duplicates.

    Raises `harness.UsageError` if a number is out of range.
    """
    counts = tuple(dict.fromkeys(selection.device_counts)) or (1,)
    for count in counts:
        if not 1 <= count <= MAX_DEVICES:
            raise UsageError(f"devices must be between 1 and {MAX_DEVICES}, got {count}")
    return counts


def threads_per_process(selection: Selection, jobs: int = 1) -> int:
    """Return the number of threads per process. Raises `harness.UsageError` if the number is invalid.

    By default, the available cores are divided equally among the `jobs` simultaneous runs, and among the processes of
    each run. All runs in a selection use the same number of threads. The scaling efficiency is therefore relative to
    one process with the same number of threads.
    """
    most = max(device_counts(selection))
    if selection.threads is not None:
        if not 1 <= selection.threads <= MAX_THREADS:
            raise UsageError(f"threads must be between 1 and {MAX_THREADS}, got {selection.threads}")
        return selection.threads
    cores = available_cores()
    if most > cores:
        raise UsageError(
            f"{most} devices require {most} processes, but this machine has only {cores} available CPU "
            f"{'core' if cores == 1 else 'cores'}; use fewer devices, or pass --threads 1 to let processes share cores"
        )
    return max(1, cores // (most * jobs))


def check_devices(spec: RunSpec, catalog: Catalog, gpus: Callable[[], Sequence[Gpu]] | None) -> None:
    """Raise `harness.UsageError` if a run cannot use the number of devices in its spec.

    `gpus` returns the GPUs of the machine. If `gpus` is None, missing GPUs are not an error.
    """
    if spec.devices == 1:
        return
    able = sorted(name for name, provided in catalog.backends.items() if provided.value.data_parallel)
    if spec.backend not in able:
        raise CombinationError(
            f"backend {spec.backend!r} does not support training on several devices; use --devices 1, or a backend "
            f"that supports it: {', '.join(able) or 'none is installed'}"
        )
    if spec.recipe.accumulation_steps > 1:
        raise CombinationError(
            "recipe.accumulation_steps cannot be used on several devices, because each device computes only a part of "
            "every batch; use recipe.accumulation_steps=1 or --devices 1"
        )
    size = spec.recipe.batch_size
    if size % spec.devices:
        raise CombinationError(
            f"the batch size {size} is not divisible by {spec.devices} devices; set recipe.batch_size, the total "
            f"number of examples on all devices, to a multiple such as {-(-size // spec.devices) * spec.devices}"
        )
    if spec.device.startswith("cuda") and gpus is not None:
        found, needed = len(gpus()), int(spec.device.partition(":")[2] or 0) + spec.devices
        if 0 < found < needed:
            raise UsageError(
                f"--device {spec.device} --devices {spec.devices} requires {needed} GPUs, but this machine has {found}"
            )
