"""Tests that errors about a backend name the method that returned something unexpected."""

from __future__ import annotations

from typing import Any

import pytest
from idle_session import IdleSession

from harness.errors import PluginError
from harness.execute.backends import devices_of, open_session
from harness.interfaces import Backend, DeviceInfo

CPU = DeviceInfo(name="cpu", description="", precisions=("fp32",))


class Returns(Backend):
    """Backend whose methods return the given object."""

    name, summary, requires, packages = "odd", "", {}, ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def devices(self) -> Any:
        return self.value

    def open(self, request: Any) -> Any:
        return self.value


@pytest.mark.parametrize("value", [None, "session", IdleSession])
def test_open_session_other_result_names_the_method(value: Any) -> None:
    with pytest.raises(PluginError, match=r"backend 'odd': open\(\) returned .*, but it must return a harness.Session"):
        open_session(Returns(value), None)  # type: ignore[arg-type]


def test_open_session_returns_the_session() -> None:
    session = IdleSession()
    assert open_session(Returns(session), None) is session  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, r"devices\(\) returned NoneType, but it must return a list of harness.DeviceInfo"),
        ("cpu", r"devices\(\) returned str"),
        (["cpu"], r"devices\(\) returned \['cpu'\]"),
        (
            [DeviceInfo(name="cpu", description="", precisions="fp32")],  # type: ignore[arg-type]
            "the device 'cpu' has precisions='fp32'; use a tuple",
        ),
        (
            [DeviceInfo(name="cpu", description="", precisions=("float32",))],  # type: ignore[arg-type]
            r"the device 'cpu' has precisions=\('float32',\); use a tuple",
        ),
    ],
)
def test_devices_of_other_result_names_the_method(value: Any, said: str) -> None:
    with pytest.raises(PluginError, match=f"^backend 'odd': {said}"):
        devices_of(Returns(value))


@pytest.mark.parametrize("value", [[], [CPU], (CPU,)])
def test_devices_of_returns_the_devices(value: Any) -> None:
    assert devices_of(Returns(value)) == list(value)
