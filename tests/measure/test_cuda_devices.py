"""Tests of the match between CUDA devices and the devices that NVML lists."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from fake_nvml import FakeGpu, FakeNvml

from harness.measure import cuda_devices
from harness.measure.cuda_devices import find_device, listed_devices

FIRST, SECOND = "GPU-5f1e0e7a-aaaa-4bbb-8ccc-0123456789ab", "GPU-5f1e0e7b-aaaa-4bbb-8ccc-0123456789ab"
PART, OTHER_PART = "MIG-11111111-aaaa-5bbb-8ccc-0123456789ab", "MIG-22222222-aaaa-5bbb-8ccc-0123456789ab"

TWO = listed_devices(FakeNvml(FakeGpu(FIRST), FakeGpu(SECOND)))
ONE = TWO[:1]
MIG = listed_devices(
    FakeNvml(
        FakeGpu(FIRST, mig=[FakeGpu(PART, instance=(3, 0)), FakeGpu(OTHER_PART, instance=(4, 1))]), FakeGpu(SECOND)
    )
)
ONE_PART = [device for device in MIG if device.uuid != OTHER_PART]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the CUDA driver nor environment variables determine the device."""
    monkeypatch.setattr(cuda_devices, "driver_uuid", lambda index: "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def test_mig_devices_are_listed_after_their_gpu() -> None:
    assert [(device.uuid, device.parent, device.instance) for device in MIG] == [
        (FIRST, None, None),
        (PART, FIRST, (3, 0)),
        (OTHER_PART, FIRST, (4, 1)),
        (SECOND, None, None),
    ]


@pytest.mark.parametrize("order", ["FASTEST_FIRST", "PCI_BUS_ID", None])
@pytest.mark.parametrize("uuid", [SECOND, SECOND.removeprefix("GPU-"), SECOND.upper()])
def test_uuid_of_the_framework_takes_precedence_over_variables(
    monkeypatch: pytest.MonkeyPatch, uuid: str, order: str | None
) -> None:
    if order is None:
        monkeypatch.delenv("CUDA_DEVICE_ORDER")
    else:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert find_device(TWO, 0, uuid).uuid == SECOND


def test_uuid_of_the_driver_decides_if_the_framework_reports_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_devices, "driver_uuid", lambda index: [SECOND, FIRST][index].removeprefix("GPU-"))
    assert [find_device(TWO, index).uuid for index in (0, 1)] == [SECOND, FIRST]


def test_uuid_of_zeros_is_unknown() -> None:
    assert find_device(TWO, 1, "00000000-0000-0000-0000-000000000000").uuid == SECOND


def test_uuid_that_nvml_does_not_list_is_refused() -> None:
    with pytest.raises(OSError, match=f"does not list the GPU with the UUID {SECOND}, which is cuda:0"):
        find_device(ONE, 0, SECOND)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [FIRST, SECOND]),
        ("1,0", [SECOND, FIRST]),
        (" 1 , 0 ", [SECOND, FIRST]),
        ("1", [SECOND]),
        (f"{SECOND},0", [SECOND, FIRST]),
        ("GPU-5f1e0e7b,GPU-5f1e0e7a", [SECOND, FIRST]),
    ],
)
def test_visible_devices_determine_the_gpu(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [find_device(TWO, index).uuid for index in range(len(expected))] == expected


@pytest.mark.parametrize(
    ("visible", "message"),
    [
        ("", "CUDA_VISIBLE_DEVICES= does not list this device"),
        ("-1", "lists 0 devices that match '-1'"),
        ("9", "lists 0 devices that match '9'"),
        ("GPU-5f1e", "lists 2 devices that match 'GPU-5f1e'"),
        ("NoDevFiles", "lists 0 devices that match 'NoDevFiles'"),
        ("MIG-33333333", "lists 0 devices that match 'MIG-33333333'"),
    ],
)
def test_visible_devices_that_name_no_gpu_are_refused(
    monkeypatch: pytest.MonkeyPatch, visible: str, message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(OSError, match=message):
        find_device(TWO, 0)


def test_more_cuda_devices_than_gpus_are_refused() -> None:
    with pytest.raises(OSError, match="cannot find cuda:2: NVML lists too few GPUs"):
        find_device(TWO, 2)


@pytest.mark.parametrize("order", ["FASTEST_FIRST", None])
def test_number_in_an_unknown_order_is_refused_only_if_there_are_several_gpus(
    monkeypatch: pytest.MonkeyPatch, order: str | None
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order or "")
    with pytest.raises(OSError, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        find_device(TWO, 0)
    assert find_device(ONE, 0).uuid == FIRST
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", SECOND)
    assert find_device(TWO, 0).uuid == SECOND


@pytest.mark.parametrize("name", [OTHER_PART, "MIG-2222", f"MIG-{FIRST}/4/1"])
def test_mig_device_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
    assert find_device(MIG, 0).uuid == OTHER_PART
    assert find_device(MIG, 0, FIRST).uuid == OTHER_PART  # the framework reports the UUID of the whole GPU


def test_mig_device_is_found_by_its_own_uuid() -> None:
    assert find_device(MIG, 0, OTHER_PART.removeprefix("MIG-")).uuid == OTHER_PART


def test_gpu_with_one_mig_device_is_that_device() -> None:
    assert find_device(ONE_PART, 0).uuid == PART
    assert find_device(ONE_PART, 0, FIRST).uuid == PART


def test_gpu_with_several_mig_devices_and_none_named_is_refused() -> None:
    for uuid in (FIRST, ""):
        with pytest.raises(OSError, match=r"one of several MIG devices .* set CUDA_VISIBLE_DEVICES to its UUID"):
            find_device(MIG, 0, uuid)


class FakeCuda:
    """Fake of the CUDA driver library with one device."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the library's name
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0 if index == 0 else 101

    def cuDeviceGetUuid_v2(self, octets: Any, device: Any) -> int:  # noqa: N802
        octets._obj[:] = self._octets
        return 0


def test_uuid_of_the_driver_is_read_in_the_format_of_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    fake = FakeCuda(bytes.fromhex(FIRST.removeprefix("GPU-").replace("-", "")))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: fake)
    assert cuda_devices.driver_uuid(0) == FIRST.removeprefix("GPU-")
    assert cuda_devices.driver_uuid(1) == ""


def test_missing_driver_reports_no_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert cuda_devices.driver_uuid(0) == ""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # a library without the functions
    assert cuda_devices.driver_uuid(0) == ""
