"""Find the NVML device that corresponds to CUDA device N of this process.

CUDA numbers only the devices listed in ``CUDA_VISIBLE_DEVICES``, in the order given by this variable or by
``CUDA_DEVICE_ORDER``. NVML numbers all GPUs in PCI bus order. CUDA and NVML report the same UUIDs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import uuid as uuids
from collections.abc import Sequence
from typing import Any, NamedTuple


class Device(NamedTuple):
    """A GPU or MIG device that NVML lists."""

    uuid: str
    """UUID with its prefix, ``GPU-`` or ``MIG-``."""
    handle: Any
    parent: str | None = None
    """UUID of the GPU to which a MIG device belongs, or None for a GPU."""
    instance: tuple[int, int] | None = None
    """IDs of the GPU instance and the compute instance of a MIG device."""


def listed_devices(nvml: Any) -> list[Device]:
    """Return the GPUs that this process may use, in PCI bus order. Each GPU is followed by its MIG devices."""
    devices: list[Device] = []
    for index in range(_count(nvml)):
        with contextlib.suppress(nvml.NVMLError):  # skip GPUs that this process may not access
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            gpu = Device(nvml.nvmlDeviceGetUUID(handle), handle)
            devices += [gpu, *_mig_devices(nvml, gpu)]
    return devices


def find_device(devices: Sequence[Device], index: int, uuid: str = "") -> Device:
    """Return the device that this process uses as CUDA device `index`.

    `uuid` is the UUID that the framework reports, with or without its prefix. It may be empty. If `uuid` is empty, the
    device is determined from the UUID that the CUDA driver reports. If the driver does not report a UUID,
    ``CUDA_VISIBLE_DEVICES`` is used. Raises `OSError` if NVML does not list the device, or if the device cannot be
    determined uniquely.
    """
    known = [digits for digits in map(_digits, (uuid, driver_uuid(index))) if digits.strip("0")]
    found = next((device for digits in known for device in devices if _digits(device.uuid) == digits), None)
    if found is None:
        if known:
            raise OSError(f"NVML does not list the GPU with the UUID {uuid or known[0]}, which is cuda:{index}")
        found = _visible_device(devices, index)
    instances = [device for device in devices if device.parent == found.uuid]
    if len(instances) > 1:
        named = _visible_device(devices, index)
        instances = [device for device in instances if device == named]
        if not instances:
            raise OSError(
                f"cuda:{index} is one of several MIG devices of {found.uuid}; set CUDA_VISIBLE_DEVICES to its UUID"
            )
    return instances[0] if instances else found


def driver_uuid(index: int) -> str:
    """Return the UUID that the CUDA driver reports for device `index`, or an empty string if the driver reports none.

    No CUDA context is created. For a MIG device, the returned UUID is that of the MIG device, not that of its GPU
    (cuDeviceGetUuid_v2, CUDA 11.4 and later).
    """
    number, octets = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    with contextlib.suppress(OSError, AttributeError):
        cuda = ctypes.CDLL("libcuda.so.1")
        if (
            cuda.cuInit(0) == 0
            and cuda.cuDeviceGet(ctypes.byref(number), index) == 0
            and cuda.cuDeviceGetUuid_v2(ctypes.byref(octets), number) == 0
        ):
            return str(uuids.UUID(bytes=bytes(octets)))
    return ""


def _visible_device(devices: Sequence[Device], index: int) -> Device:
    """Return the device at this position in ``CUDA_VISIBLE_DEVICES``. Raises `OSError` if the device cannot be
    determined."""
    gpus = [device for device in devices if device.parent is None]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        names = [str(number) for number in range(len(gpus))]
    else:
        names = [name.strip() for name in visible.split(",") if name.strip()]
    name = names[index] if index < len(names) else None
    if name is None:
        limit = (
            "NVML lists too few GPUs"
            if visible is None
            else f"CUDA_VISIBLE_DEVICES={visible} does not list this device"
        )
        raise OSError(f"cannot find cuda:{index}: {limit}")
    if name.isdigit():
        if len(gpus) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            raise OSError(
                f"the order of CUDA devices is unknown; set CUDA_DEVICE_ORDER=PCI_BUS_ID to find cuda:{index}"
            )
        matching = gpus[int(name) : int(name) + 1]
    elif legacy := re.fullmatch(r"MIG-(GPU-[0-9a-f-]+)/(\d+)/(\d+)", name, re.IGNORECASE):
        parent, instance = legacy[1].lower(), (int(legacy[2]), int(legacy[3]))
        matching = [d for d in devices if d.instance == instance and (d.parent or "").lower() == parent]
    else:  # a UUID may be abbreviated
        matching = [device for device in devices if device.uuid.lower().startswith(name.lower())]
    if len(matching) != 1:
        raise OSError(
            f"NVML lists {len(matching)} devices that match {name!r}, the CUDA_VISIBLE_DEVICES entry for cuda:{index}"
        )
    return matching[0]


def _count(nvml: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError:
        return 0


def _mig_devices(nvml: Any, gpu: Device) -> list[Device]:
    devices: list[Device] = []
    with contextlib.suppress(nvml.NVMLError):  # skip GPUs without MIG
        if nvml.nvmlDeviceGetMigMode(gpu.handle)[0]:
            for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu.handle)):
                with contextlib.suppress(nvml.NVMLError):  # skip positions without a device
                    handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, number)
                    instance = nvml.nvmlDeviceGetGpuInstanceId(handle), nvml.nvmlDeviceGetComputeInstanceId(handle)
                    devices.append(Device(nvml.nvmlDeviceGetUUID(handle), handle, gpu.uuid, instance))
    return devices


def _digits(uuid: str) -> str:
    """Return the hexadecimal digits of a UUID, without its prefix."""
    return re.sub("[^0-9a-f]", "", re.sub("^(gpu|mig)-", "", uuid.lower()))
