"""Devices, thread pools and numeric modes of TensorFlow, which are set once per process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import harness
from harness_tensorflow import distributed

POLICIES = {"fp32": "float32", "tf32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}
"""Keras's dtype policy for each precision. Variables and outputs are always float32."""

_compiled = False


def devices() -> list[harness.DeviceInfo]:
    """Return the GPUs in TensorFlow's order, followed by the CPU, with their supported precisions."""
    available = []
    for name, gpu in _gpus().items():
        details = tf.config.experimental.get_device_details(gpu)
        ampere = details.get("compute_capability", (0, 0)) >= (8, 0)
        available.append(
            harness.DeviceInfo(
                name=name,
                description=details.get("device_name", gpu.name),
                precisions=("fp32", "tf32", "bf16", "fp16") if ampere else ("fp32", "fp16"),
            )
        )
    available.append(harness.DeviceInfo(name="cpu", description="host processor", precisions=("fp32", "bf16")))
    return available


def _gpus() -> dict[str, Any]:
    """Return the physical GPUs by device name.

    TensorFlow ignores GPUs that are too slow or unsupported. The number at the end of a physical device's name is the
    GPU's number in the CUDA driver, even if other GPUs are ignored.
    """
    return {f"cuda:{gpu.name.rpartition(':')[2]}": gpu for gpu in tf.config.list_physical_devices("GPU")}


def _logical_name(device: str) -> str:
    """Return the name that TensorFlow uses for a device when all GPUs are visible."""
    return "CPU:0" if device == "cpu" else f"GPU:{list(_gpus()).index(device)}"


def configure(request: harness.SessionRequest) -> None:
    """Restrict TensorFlow to the request's device, and set threads, numeric modes, seeds and the dtype policy.

    Raises `harness.UnsupportedError` if the device is unknown, if the precision is not supported, or if TensorFlow has
    already been initialized with different settings in this process.
    """
    global _compiled
    device = "cuda:0" if request.device == "cuda" else request.device
    precision = request.precision
    known = {info.name: info for info in devices()}
    info = known.get(device)
    if info is None:
        raise harness.UnsupportedError(
            f"TensorFlow finds no device {device!r} on this machine; use one of: {', '.join(known)}"
        )
    if precision not in info.precisions:
        raise harness.UnsupportedError(
            f"TensorFlow does not support precision {precision} on {device} ({info.description}); "
            f"use one of: {', '.join(info.precisions)}"
        )
    visible = [] if device == "cpu" else [_gpus()[device]]
    try:
        tf.config.set_visible_devices(visible, "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(request.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise harness.UnsupportedError(
            f"TensorFlow can set devices and threads only once, and this process already uses other settings: {error}"
        ) from error
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    if request.group is not None:
        distributed.join(request.group)
    if request.deterministic:
        tf.config.experimental.enable_op_determinism()  # TensorFlow cannot disable determinism again in this process
    keras.utils.set_random_seed(request.seed)
    keras.mixed_precision.set_global_policy(POLICIES[precision])
    _compiled = request.compile


def has_cudnn() -> bool:
    """Return True if networks can use cuDNN layers, which require a GPU and are not supported by XLA."""
    return bool(tf.config.get_visible_devices("GPU")) and not _compiled


def notes() -> dict[str, str]:
    """Return the current thread counts and numeric modes, which are stored in the record."""
    return {
        "intra_op_threads": str(tf.config.threading.get_intra_op_parallelism_threads()),
        "inter_op_threads": str(tf.config.threading.get_inter_op_parallelism_threads()),
        "tf32": str(tf.config.experimental.tensor_float_32_execution_enabled()).lower(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "cudnn_autotune": os.environ.get("TF_CUDNN_USE_AUTOTUNE", "default"),
    }


def allocated_bytes(device: str, size_bytes: int) -> int | None:
    """Return the increase in peak allocated memory when a tensor of `size_bytes` is created, or None on the CPU."""
    if device == "cpu":
        return None
    name = _logical_name(device)
    tf.config.experimental.reset_memory_stats(name)
    before = tf.config.experimental.get_memory_info(name)["peak"]
    with tf.device(name):
        tf.ones([size_bytes], tf.uint8).numpy()
    return int(tf.config.experimental.get_memory_info(name)["peak"]) - int(before)


def roofline_kernels(device: str, precision: str, threads: int) -> harness.RooflineKernels:
    """Return functions that multiply matrices and copy arrays eagerly."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    dtype = {"bf16": tf.bfloat16, "fp16": tf.float16}.get(precision, tf.float32)
    place = _logical_name(device)

    def on_device(make: Callable[[], Any]) -> Any:
        with tf.device(place):
            return make()

    def random(rng: np.random.Generator, *shape: int) -> Any:
        return on_device(lambda: tf.constant(rng.standard_normal(shape, np.float32)))

    def matrix(n: int) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        a, b = (on_device(lambda: tf.cast(random(rng, n, n), dtype)) for _ in range(2))
        return lambda: on_device(lambda: tf.matmul(a, b))

    def copy(size_bytes: int) -> Callable[[], object]:
        source = random(np.random.default_rng(0), size_bytes // 4)
        return lambda: on_device(lambda: tf.raw_ops.DeepCopy(x=source))

    def synchronize() -> None:
        if device != "cpu":
            tf.test.experimental.sync_devices()

    return harness.RooflineKernels(matrix=matrix, copy=copy, synchronize=synchronize)
