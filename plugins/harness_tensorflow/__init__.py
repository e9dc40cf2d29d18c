"""The TensorFlow backend of harness, on CPU and NVIDIA GPU, and its networks.

How a network's module is called: ``module(inputs, training) -> outputs``. ``inputs`` is a dict of tensors ``[B, ...]``
under the names of `harness.DataInfo.inputs`; ``training`` is a Python bool; ``outputs`` are float32 ``[B, outputs]``
(logits, or standardized regression targets), or ``[B, L, outputs]``, logits of each position (token classification).
The module is a `tf.Module` or a Keras layer or model: anything with ``trainable_variables``, all of which the network's
bindings must name. It is called inside a `tf.function`, with a static batch size, once per batch size and mode; ops
that update state (running statistics) run in graph order. Precision is Keras's global dtype policy, set before `build`
is called: variables stay float32, the networks here cast their inputs to the policy's compute dtype.

The networks are plain TensorFlow ops over `tf.Variable`, BERT included. keras-hub's BERT computes the same; it is not
used because a run with it starts later (one more large import, a longer trace) and, when tried, its steps were slower.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import harness

HARNESS_API_VERSION = "1.0"

_FAMILIES = ("linear", "mlp", "lstm", "bert", "resnet", "wav2vec2")


class TensorFlowBackend(harness.Backend):
    """TensorFlow 2: one `tf.function` a step, optionally compiled by XLA."""

    name = "tensorflow"
    summary = "TensorFlow 2 graphs on CPU or NVIDIA GPU, optionally compiled by XLA"
    requires = {"tensorflow": "pip install 'harness[tensorflow]'"}
    packages = ("tensorflow", "keras")
    environment = {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }

    def devices(self) -> Sequence[harness.DeviceInfo]:
        from harness_tensorflow.runtime import devices

        return devices()

    def open(self, request: harness.SessionRequest) -> harness.Session:
        from harness_tensorflow.session import TensorFlowSession

        return TensorFlowSession(request)

    def allocated_bytes(self, device: str, size_bytes: int) -> int | None:
        from harness_tensorflow.runtime import allocated_bytes

        return allocated_bytes(device, size_bytes)

    def roofline_kernels(self, device: str, precision: str, threads: int) -> harness.RooflineKernels | None:
        from harness_tensorflow.runtime import roofline_kernels

        return roofline_kernels(device, precision, threads)

    def is_out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, MemoryError):
            return True
        tensorflow = sys.modules.get("tensorflow")
        return tensorflow is not None and isinstance(error, tensorflow.errors.ResourceExhaustedError)


@harness.hookimpl
def harness_backends() -> Iterator[harness.Backend]:
    yield TensorFlowBackend()


@harness.hookimpl
def harness_networks() -> Iterator[harness.NetworkRef]:
    for family in _FAMILIES:
        yield harness.NetworkRef(
            model=family, backend="tensorflow", build=f"harness_tensorflow.networks.{family}:build"
        )
