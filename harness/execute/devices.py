"""The devices that a backend has here, found in a child process: probing imports the framework, and may crash."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import backend_of
from harness.interfaces import DeviceInfo
from harness.records import Failure, PluginRef

PROBE_LIMIT_S = 120.0


class ProbeJob(msgspec.Struct, frozen=True, kw_only=True):
    backend: str
    plugin: PluginRef


@dataclass(frozen=True)
class Probe:
    devices: list[DeviceInfo]
    error: str | None = None


def probe(backend: str, plugin: PluginRef) -> Probe:
    """Ask `backend` of `plugin` for its devices. Never raises because of the backend."""
    job = ProbeJob(backend=backend, plugin=plugin)
    answer = call_in_child(find_devices, job, timeout_s=PROBE_LIMIT_S, environment={})
    if not isinstance(answer, Failure):
        return Probe(answer)
    return Probe([], f"did not answer within {PROBE_LIMIT_S:g} s" if answer.kind == "timeout" else answer.message)


def find_devices(job: ProbeJob, context: ChildContext) -> list[DeviceInfo]:
    return list(backend_of(job.plugin, job.backend).devices())
