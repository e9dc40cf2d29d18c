"""Descriptions of machines, used to determine whether runs on different machines are comparable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from harness.execute.environment import collect
from harness.interfaces import Executor, Machine
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.records import Environment, PluginRef, RunSpec

MEMORY_TOLERANCE = 0.05
"""Maximum relative difference in main memory between machines of the same class. The memory size that virtual machines
report varies by a few percent."""
HARNESS = PluginRef(name="harness", value="harness", distribution="ml-harness", version="")
"""Reference to the `harness` package, for computing the digest of its code."""


def describe_machine(plugins: Iterable[PluginRef] = (), packages: Iterable[str] = ()) -> Machine:
    """Return a description of this machine, including package versions and code digests.

    An executor calls this function on each remote machine and uses `machine_difference` to compare the results.

    Parameters
    ----------
    plugins : iterable of PluginRef, optional
        Plugins whose code is included in the description. The code of `harness` is always included.
    packages : iterable of str, optional
        Distributions whose versions are included in addition to those of the dependencies of `harness`.

    Returns
    -------
    Machine
        The description.
    """
    codes = {ref.name: with_digest(ref).code_digest for ref in plugins}
    return Machine(environment=collect(packages), harness_digest=with_digest(HARNESS).code_digest, plugin_digests=codes)


def machines_for(executor: Executor, specs: Sequence[RunSpec], catalog: Catalog) -> list[Environment] | None:
    """Return the distinct environments of the machines that an executor uses, or None for this machine."""
    plugins = {ref for spec in specs for ref in catalog.refs_for(spec)}
    packages = {package for spec in specs for package in catalog.backend(spec.backend).packages}
    machines = executor.machines(sorted(plugins, key=lambda ref: ref.name), sorted(packages))
    if machines is None:
        return None
    distinct: list[Environment] = []
    for machine in machines:
        found = msgspec.structs.replace(machine.environment, load_1min=None)
        if found not in distinct:
            distinct.append(found)
    return distinct


def machine_difference(old: Environment, new: Environment, *, on_gpu: bool) -> str | None:
    """Return a description of the difference between two machines. If both machines belong to the same class, return
    None.

    Runs are comparable if they were executed on machines of the same class. Two machines are in the same class if they
    have the same processor, number of cores, CPU quota, main memory (within 5%) and, for runs on a GPU, the same GPUs
    and driver.

    Parameters
    ----------
    old, new : Environment
        The environments of two records or machines.
    on_gpu : bool
        True to compare the GPUs as well.

    Returns
    -------
    str or None
        The first difference, such as ``cores 8 -> 16``.
    """
    then, now = _machine(old, on_gpu=on_gpu), _machine(new, on_gpu=on_gpu)
    for name, value in now.items():
        if then[name] != value:
            return f"{name} {then[name]} -> {value}"
    if abs(old.memory_bytes - new.memory_bytes) > MEMORY_TOLERANCE * max(old.memory_bytes, new.memory_bytes):
        return f"memory {old.memory_bytes / 2**30:.1f} GiB -> {new.memory_bytes / 2**30:.1f} GiB"
    return None


def _machine(machine: Environment, *, on_gpu: bool) -> Mapping[str, str]:
    facts = {
        "system": machine.kernel.partition(" ")[0],
        "CPU": machine.cpu,
        "cores": str(machine.cores),
        "CPU quota": "none" if machine.cpu_quota is None else f"{machine.cpu_quota:g}",
    }
    if on_gpu:
        facts["GPUs"] = ", ".join(gpu.name for gpu in machine.gpus) or "none"
        facts["GPU driver"] = ", ".join(dict.fromkeys(gpu.driver for gpu in machine.gpus)) or "none"
    return facts
