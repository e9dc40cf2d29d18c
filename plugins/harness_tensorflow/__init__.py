"""The TensorFlow backend, for CPUs and NVIDIA GPUs, and TensorFlow networks for the built-in models.

To add a network to this backend, yield a `harness.NetworkRef` with ``backend="tensorflow"`` and a ``build`` function
that returns a `harness.Network`:

- ``module`` is a `tf.Module` or a Keras layer or model (any object with ``trainable_variables``). The module is called
  as ``module(inputs, training)``, where ``inputs`` is a dict of tensors ``[B, ...]`` with the same names as in
  `harness.DataInfo.inputs`, and ``training`` is a Python bool. The module returns float32 outputs ``[B, outputs]``,
  which are logits or standardized regression targets. For token classification, the outputs are the logits of each
  position, ``[B, L, outputs]``.
- ``bindings`` contains every trainable variable of the module.
- The module is called inside a `tf.function` with a static batch size, once per batch size and mode. Ops that update
  state (running statistics) run in graph order.
- The precision is set through Keras's global dtype policy before ``build`` is called. Variables are float32, and the
  built-in networks cast their inputs to the compute dtype of the policy.

The built-in networks, including BERT, consist of plain TensorFlow ops on `tf.Variable`. BERT from keras-hub computes
the same function. However, the keras-hub model starts more slowly, because of a large additional import and longer
tracing, and its training steps were slower in measurements.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import harness

HARNESS_API_VERSION = "1.0"

_FAMILIES = ("linear", "mlp", "lstm", "bert", "resnet", "wav2vec2")


class TensorFlowBackend(harness.Backend):
    """Backend that trains and runs models with TensorFlow 2: one `tf.function` per step, optionally compiled by XLA."""

    name = "tensorflow"
    summary = "TensorFlow 2 graphs on CPUs and NVIDIA GPUs, optionally compiled by XLA"
    requires = {"tensorflow": "ml-harness[tensorflow]"}
    packages = ("tensorflow", "keras")
    exports = {"savedmodel": {}, "onnx": dict.fromkeys(("onnx", "tf2onnx", "onnxruntime"), "ml-harness[deploy]")}
    data_parallel = True
    checkpoints = True
    example_weights = True
    environment = {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    recipe_options = (
        "adagrad", "lion", "lamb", "l1", "decoupled_decay", "accumulation_steps", "class_weights", "ema_decay",
        "loss_scale", "frozen", "layer_decay", "distillation_alpha",
    )  # fmt: skip

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
