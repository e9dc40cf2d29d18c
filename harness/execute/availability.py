"""Planned runs that cannot be executed on this machine because a backend, dataset or device is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache

from harness.data.user_files.dataset import dataset_of
from harness.errors import UnsupportedError
from harness.execute.devices import Probe, probe
from harness.execute.preparation import device_for
from harness.plan.expand import backend_problem, dataset_problem
from harness.plugins.catalog import Catalog
from harness.records import RunSpec


def unavailable(specs: Iterable[RunSpec], catalog: Catalog, *, remote: bool = False) -> dict[str, str]:
    """Map the key of each spec that cannot be executed on this machine to the reason.

    If `remote` is true, the runs are executed on other machines, and the devices of this machine are not checked.

    If a spec selects a GPU or a precision other than fp32, a child process imports the framework and lists the
    backend's devices.
    """
    backend_reason = cache(lambda name, env: backend_problem(name, catalog, env))
    devices = cache(lambda name, env: probe(name, catalog.backends[name].plugin, env))
    datasets: dict[tuple[str, str], str | None] = {}
    device_reasons: dict[tuple[str, ...], str | None] = {}
    found: dict[str, str] = {}
    for spec in specs:
        reason = backend_reason(spec.backend, spec.env)
        if reason is None and spec.source is None:
            if (spec.task, spec.dataset) not in datasets:
                datasets[spec.task, spec.dataset] = dataset_problem(dataset_of(spec, catalog))
            reason = datasets[spec.task, spec.dataset]
        if reason is None and not remote and (spec.device.startswith("cuda") or spec.precision != "fp32"):
            request = (spec.backend, spec.env, spec.device, spec.precision)
            if request not in device_reasons:
                device_reasons[request] = _device_problem(spec, devices(spec.backend, spec.env))
            reason = device_reasons[request]
        if reason is not None:
            found[spec.key] = reason
    return found


def describe_reasons(reasons: Mapping[str, str]) -> list[str]:
    """Return one line for each distinct reason in the result of `unavailable`. Each line includes the number of
    affected runs.
    """
    return [
        f"{count} {'run' if count == 1 else 'runs'}: {reason}" for reason, count in Counter(reasons.values()).items()
    ]


def _device_problem(spec: RunSpec, answer: Probe) -> str | None:
    if answer.error is not None:
        return f"the devices of backend {spec.backend!r} are unknown: {answer.error}"
    try:
        device_for(answer.devices, spec)
    except UnsupportedError as error:
        return str(error)
    return None
