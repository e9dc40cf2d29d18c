"""Calls of a backend's methods, with error messages that name a method whose result has the wrong type."""

from __future__ import annotations

from typing import get_args

from harness.errors import PluginError
from harness.interfaces import Backend, DeviceInfo, Session, SessionRequest
from harness.records import Precision


def open_session(backend: Backend, request: SessionRequest) -> Session:
    """Return the session that the backend opens. Raises `harness.PluginError` if the result is not a session."""
    session = backend.open(request)
    if not isinstance(session, Session):
        raise PluginError(
            f"backend {backend.name!r}: open() returned {type(session).__name__}, but it must return a harness.Session"
        )
    return session


def devices_of(backend: Backend) -> list[DeviceInfo]:
    """Return the devices that the backend finds.

    Raises `harness.PluginError` if the result is not a sequence of devices, or if a precision is unknown.
    """
    found = backend.devices()
    if not isinstance(found, list | tuple) or not all(isinstance(device, DeviceInfo) for device in found):
        shown = type(found).__name__ if not isinstance(found, list | tuple) else repr(found)
        raise PluginError(
            f"backend {backend.name!r}: devices() returned {shown}, but it must return a list of harness.DeviceInfo"
        )
    known = get_args(Precision)
    for device in found:
        precisions = device.precisions
        if isinstance(precisions, str) or set(precisions) - set(known):
            raise PluginError(
                f"backend {backend.name!r}: the device {device.name!r} has precisions={precisions!r}; use a tuple with "
                f"some of {', '.join(map(repr, known))}"
            )
    return list(found)
