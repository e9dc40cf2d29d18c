"""Names of devices, and the data of the roofline's kernels, with substitutes for GPUs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.tensorflow


def test_number_of_a_cuda_device_is_that_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow ignores GPUs that are too slow, here the first and the third."""
    import tensorflow as tf
    from harness_tensorflow import TensorFlowBackend, runtime

    listed = [SimpleNamespace(name=f"/physical_device:GPU:{number}", device_type="GPU") for number in (1, 3)]
    details = {"device_name": "Example GPU", "compute_capability": (9, 0)}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: listed)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert [device.name for device in TensorFlowBackend().devices()] == ["cuda:1", "cuda:3", "cpu"]
    assert [runtime._logical_name(name) for name in ("cuda:1", "cuda:3", "cpu")] == ["GPU:0", "GPU:1", "CPU:0"]
