"""Devices that a backend finds on this machine.

The devices are listed in a child process, because listing them imports the framework, which may crash.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from harness.execute.backends import devices_of
from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import backend_of
from harness.interfaces import DeviceInfo
from harness.plugins.environments import interpreter
from harness.records import Failure, PluginRef

PROBE_LIMIT_S = 120.0
"""Time limit for a probe, in seconds."""


class ProbeJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that lists a backend's devices."""

    backend: str
    plugin: PluginRef


@dataclass(frozen=True)
class Probe:
    """The devices of a backend, or the reason why they could not be determined."""

    devices: list[DeviceInfo]
    error: str | None = None
    """Reason why the probe failed, or None if it succeeded."""


def probe(backend: str, plugin: PluginRef, env: str = "") -> Probe:
    """Return the devices that `backend`, provided by `plugin`, finds in the named environment `env`.

    Backend failures are returned, not raised.
    """
    job = ProbeJob(backend=backend, plugin=plugin)
    answer = call_in_child(find_devices, job, timeout_s=PROBE_LIMIT_S, environment={}, interpreter=interpreter(env))
    if not isinstance(answer, Failure):
        return Probe(answer)
    return Probe([], f"did not respond within {PROBE_LIMIT_S:g} s" if answer.kind == "timeout" else answer.message)


def find_devices(job: ProbeJob, context: ChildContext) -> list[DeviceInfo]:
    """Import the backend's framework in this process and return the devices that the backend finds."""
    return devices_of(backend_of(job.plugin, job.backend))
