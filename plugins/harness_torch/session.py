"""The session for the ``torch`` backend: one model on one device."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

import harness
from harness import Batch, DeviceMemory, Session, SessionRequest
from harness_torch import checkpoints
from harness_torch.devices import require
from harness_torch.distributed import Pending, Replicas
from harness_torch.optimizers import build_optimizer, implementation
from harness_torch.weights import place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchSession(Session):
    """Session for a PyTorch model that runs a plain training step with the recipe's options.

    With fp64 precision, weights, inputs, activations and outputs are float64. With all other precisions, weights are
    float32. Raises `harness.UnsupportedError` if the device or precision is unavailable or, at the first step or
    prediction, if ``torch.compile`` fails. Raises `harness.PluginError` if the network's bindings are incomplete.
    """

    def __init__(self, request: SessionRequest) -> None:
        self._request = request
        self._device = torch.device(require(request.device, request.precision).name)
        self._on_gpu = self._device.type == "cuda"
        _set_process_flags(request)
        if self._on_gpu:
            torch.cuda.set_device(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        network = request.build(request.config, request.info, request.recipe.dropout)
        for name in request.frozen:
            network.bindings[name].variable.requires_grad_(False)
        self._dtype = torch.float64 if request.precision == "fp64" else torch.float32
        self._zero_copy = not self._on_gpu and self._dtype == torch.float32
        self._weights = place(network, request.parameters, self._device, self._dtype)
        self._module: torch.nn.Module = network.module
        self._trainable = self._weights.trainable
        self._forward: Callable[..., torch.Tensor] = _compiled(self._module) if request.compile else self._module
        self._replicas: Replicas | None = None
        self._train_forward = self._forward
        if request.group is not None:
            scaled = request.precision == "fp16"
            self._replicas = Replicas(request.group, self._module, self._device, scaled=scaled)
            module = self._replicas.module
            self._train_forward = _compiled(module) if request.compile else module
        self._module.train()
        self._training = True
        self._weighted_loss = _Weighted(request)
        self._loss = _loss(request, self._weighted_loss)
        self._alpha, self._temperature = request.recipe.distillation_alpha, request.recipe.distillation_temperature
        self._clip_norm = request.recipe.clip_norm
        self._parts = request.recipe.accumulation_steps
        self._average: list[torch.Tensor] = []
        dtype = _AUTOCAST.get(request.precision)
        self._casts = torch.autocast(self._device.type, dtype) if dtype else None
        self._start_optimizer()

    def _start_optimizer(self) -> None:
        recipe, scaled = self._request.recipe, self._request.precision == "fp16"
        self._optimizer = build_optimizer(
            recipe, self._weights.decayed, self._weights.not_decayed, scaled=scaled, factors=self._factors()
        )
        self._learning_rate: float | None = recipe.learning_rate
        initial = 65536.0 if recipe.loss_scale is None else recipe.loss_scale
        self._scaler: torch.amp.GradScaler | None = (
            torch.amp.GradScaler(self._device.type, init_scale=initial) if scaled else None
        )

    def _factors(self) -> dict[int, float]:
        """Return the learning-rate factors of the parameters, keyed by the `id` of each parameter."""
        factors = self._request.rate_factors
        return {id(binding.variable): factors.get(each.name, 1.0) for each, binding in self._weights.pairs}

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        self._weights.write(weights)
        self._average = []
        self._start_optimizer()

    def get_weights(self) -> dict[str, Array]:
        return self._weights.read()

    def state(self) -> dict[str, Array]:
        return checkpoints.state_of(self._module, self._optimizer, self._scaler, self._average, self._device)

    def set_state(self, state: Mapping[str, Array]) -> None:
        averaged = any(name.startswith(checkpoints.AVERAGE) for name in state)
        self._average = [torch.empty_like(tensor) for tensor in self._weights.tensors] if averaged else []
        checkpoints.restore(state, self._module, self._optimizer, self._scaler, self._average, self._device)
        self._learning_rate = None

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        if learning_rate != self._learning_rate:
            self._learning_rate = learning_rate
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate * group["factor"]
        loss = self._backward(batch)
        if self._scaler is None:
            if self._clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self._trainable, self._clip_norm)
            self._optimizer.step()
        else:
            if self._clip_norm is not None:
                self._scaler.unscale_(self._optimizer)
                torch.nn.utils.clip_grad_norm_(self._trainable, self._clip_norm)
            self._scaler.step(self._optimizer)
            self._scaler.update(self._request.recipe.loss_scale)
        return loss if self._replicas is None else self._replicas.total(loss, batch.weight)

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        loss = self._backward(batch)
        if self._replicas is not None:
            loss = self._replicas.total(loss, batch.weight).wait()
        return float(loss), self._weights.gradients(self._scaler.get_scale() if self._scaler else 1.0)

    def _backward(self, batch: Batch) -> torch.Tensor:
        """Run the forward and backward passes in training mode, and return the mean loss of this process's examples.

        The gradients of the whole batch are stored in the parameters. With fp16 precision, these gradients are
        multiplied by the loss scale.
        """
        if not self._training:
            self._module.train()
            self._training = True
        for parameter in self._trainable:
            parameter.grad = None
        if self._parts == 1:
            loss = self._add_gradients(batch)
        else:
            losses = [self._add_gradients(part, share) for part, share in batch.parts(self._parts)]
            loss = torch.stack(losses).sum()
        if self._replicas is not None:
            self._replicas.add_up([each.grad for each in self._trainable if each.grad is not None])
        return loss

    def _add_gradients(self, batch: Batch, share: float = 1.0) -> torch.Tensor:
        """Multiply the mean loss by `share`, add its gradients to those stored in the parameters, and return the scaled
        loss."""
        inputs = self._upload(batch.inputs)
        targets = self._to_device(batch.targets)
        with self._casts or contextlib.nullcontext():
            outputs = self._train_forward(**inputs)
        outputs = outputs.to(self._dtype)
        weights = None if batch.example_weights is None else self._to_device(batch.example_weights)
        loss = self._loss(outputs, targets) if weights is None else self._weighted_loss(outputs, targets, weights)
        if self._alpha:
            assert batch.teacher_logits is not None
            teacher = self._to_device(batch.teacher_logits)
            soft = soft_loss(outputs, teacher, targets, self._temperature, weights)
            loss = (1 - self._alpha) * loss + self._alpha * soft
        if share != 1:
            loss = share * loss
        minimized = loss if self._replicas is None else self._replicas.share_of(loss, batch.weight)
        (minimized if self._scaler is None else self._scaler.scale(minimized)).backward()
        return loss.detach()

    def update_average(self, weight: float) -> None:
        with torch.no_grad():
            if not self._average:
                self._average = [tensor.clone() for tensor in self._weights.tensors]
            torch._foreach_lerp_(self._average, self._weights.tensors, weight)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        tensors = self._weights.tensors
        kept = [tensor.clone() for tensor in tensors]
        with torch.no_grad():
            torch._foreach_copy_(tensors, self._average)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(tensors, kept)

    def predict(self, inputs: Mapping[str, Array]) -> torch.Tensor:
        if self._training:
            self._module.eval()
            self._training = False
        if torch.is_inference_mode_enabled():
            return self._outputs(inputs)
        with torch.inference_mode():
            return self._outputs(inputs)

    def inference(self) -> contextlib.AbstractContextManager[Any]:
        mode: contextlib.AbstractContextManager[Any] = torch.inference_mode()
        return mode

    def flops_bounds(self, inputs: Mapping[str, Array]) -> tuple[float, float]:
        from harness_torch.flops import bounds

        self._module.eval()
        self._training = False
        return bounds(self._module, self._upload(inputs))

    def _outputs(self, inputs: Mapping[str, Array]) -> torch.Tensor:
        if self._casts is None:
            return self._forward(**self._upload(inputs))
        with self._casts:
            return self._forward(**self._upload(inputs)).to(self._dtype)

    def fetch(self, handle: Any) -> Array:
        if self._replicas is not None and isinstance(handle, Pending):
            handle = handle.wait()
        array: Array = handle.cpu().numpy() if self._on_gpu else handle.numpy()
        return array

    def synchronize(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self._device)

    def device_memory(self) -> DeviceMemory | None:
        if not self._on_gpu:
            return None
        return DeviceMemory(
            allocator_peak_bytes=torch.cuda.max_memory_allocated(self._device),
            reserved_peak_bytes=torch.cuda.max_memory_reserved(self._device),
            driver_peak_bytes=None,
        )

    def notes(self) -> dict[str, str]:
        request = self._request
        dtype = _AUTOCAST.get(request.precision)
        notes = {
            "intra_op_threads": str(torch.get_num_threads()),
            "inter_op_threads": str(torch.get_num_interop_threads()),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn_tf32": str(torch.backends.cudnn.allow_tf32),
            "cudnn_benchmark": str(torch.backends.cudnn.benchmark),
            "deterministic_algorithms": str(torch.are_deterministic_algorithms_enabled()),
            "autocast": str(dtype).removeprefix("torch.") if dtype else "off",
            "gradient_scaling": gradient_scaling(request),
            "compile": "torch.compile, default mode" if request.compile else "off",
            "optimizer": implementation(request.recipe),
        }
        if self._replicas is not None:
            notes["collectives"] = self._replicas.library
        if self._on_gpu:
            notes["cuda"] = str(torch.version.cuda)
            notes["cudnn"] = str(torch.backends.cudnn.version())
        return notes

    def export(self, format_: str, folder: Path, inputs: Mapping[str, Array]) -> Callable[[Mapping[str, Array]], Array]:
        from harness_torch.export import export

        self._module.eval()
        self._training = False
        return export(self._module, format_, folder, inputs, self._request.threads)

    def attributions(
        self,
        method: str,
        inputs: Mapping[str, Array],
        baselines: Mapping[str, Array],
        outputs: Array,
        steps: int,
    ) -> tuple[dict[str, Array], Array]:
        from harness_torch.attributions import integrated_gradients

        if method != "integrated-gradients":
            raise harness.UnsupportedError(f"the torch backend does not compute attributions by {method}")
        self._module.eval()
        self._training = False
        given, reference = self._upload(inputs), self._upload(baselines)
        return integrated_gradients(self._module, given, reference, torch.from_numpy(outputs).to(self._device), steps)

    def close(self) -> None:
        if self._replicas is not None:
            self._replicas.leave()
        for name in (
            "_module",
            "_forward",
            "_train_forward",
            "_replicas",
            "_weights",
            "_trainable",
            "_optimizer",
            "_scaler",
            "_average",
        ):
            self.__dict__.pop(name, None)
        if self._request.compile:
            torch.compiler.reset()
        if self._on_gpu:
            torch.cuda.empty_cache()

    def _upload(self, arrays: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        if self._zero_copy:
            return {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {name: self._to_device(array) for name, array in arrays.items()}

    def _to_device(self, array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self._dtype == torch.float64 and tensor.is_floating_point():
            tensor = tensor.to(self._dtype)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._on_gpu else tensor


def _set_process_flags(request: SessionRequest) -> None:
    torch.set_num_threads(request.threads)
    # A process can set the number of inter-op threads only once. The value is 1, because no operators run in parallel.
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    tf32 = request.precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    # Time cuDNN's algorithms for each new shape and use the fastest, as TensorFlow and XLA do by default.
    torch.backends.cudnn.benchmark = not request.deterministic
    if request.deterministic:  # cuBLAS reads this variable when CUDA is initialized, which happens later
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = request.deterministic
    torch.use_deterministic_algorithms(request.deterministic)
    torch.manual_seed(request.seed)


def gradient_scaling(request: SessionRequest) -> str:
    """Return the type of loss scale, which is stored in the record."""
    if request.precision != "fp16":
        return "off"
    return "dynamic" if request.recipe.loss_scale is None else f"fixed, {request.recipe.loss_scale:g}"


def _loss(request: SessionRequest, weighted: _Weighted) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    if request.info.objective == "regression":
        return F.mse_loss
    if request.class_weights is not None:
        return weighted
    if request.info.objective == "token_classification":
        return functools.partial(_mean_over_positions, label_smoothing=request.recipe.label_smoothing)
    return functools.partial(F.cross_entropy, label_smoothing=request.recipe.label_smoothing)


class _Weighted:
    """Mean loss over examples or positions. Each loss is multiplied by the weight of its class and the weight of its
    example.

    The ``weight`` argument of ``F.cross_entropy`` is not used, because it divides the loss by the sum of the weights in
    the batch instead of the number of targets.
    """

    def __init__(self, request: SessionRequest) -> None:
        dtype = torch.float64 if request.precision == "fp64" else torch.float32
        self._is_regression = request.info.objective == "regression"
        self._class_weights: torch.Tensor | None = None
        if request.class_weights is not None:
            self._class_weights = torch.tensor(request.class_weights, dtype=dtype, device=request.device)
        self._smoothing = request.recipe.label_smoothing

    def __call__(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean loss. `weights` are the weights of the examples ``[B]``."""
        if self._is_regression:
            losses, count = F.mse_loss(outputs, targets, reduction="none").mean(dim=1), len(targets)
        else:
            classes = targets.flatten()
            losses = F.cross_entropy(
                outputs.flatten(0, -2),
                classes,
                ignore_index=harness.IGNORED,
                label_smoothing=self._smoothing,
                reduction="none",
            )
            if self._class_weights is not None:
                losses = losses * self._class_weights[classes.clamp(min=0)]
            count = (classes != harness.IGNORED).sum()
        if weights is not None:
            losses = losses.view(len(targets), -1) * weights[:, None]
        return losses.sum() / count


def soft_loss(
    outputs: torch.Tensor,
    teacher: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean loss of the soft targets (`harness.Recipe.distillation_alpha`), including the factor T^2.

    The logits of both models have the shape ``[B, C]`` or ``[B, L, C]``, and the weights of the examples have the shape
    ``[B]``. Ignored positions are excluded.
    """
    student, wanted = (F.log_softmax(logits / temperature, dim=-1) for logits in (outputs, teacher))
    losses = temperature**2 * F.kl_div(student, wanted, reduction="none", log_target=True).sum(-1)
    if weights is not None:
        losses = losses * (weights if losses.ndim == 1 else weights[:, None])
    if targets.ndim == 1:
        return losses.mean()
    counted = targets != harness.IGNORED
    return (losses * counted).sum() / counted.sum()


def _mean_over_positions(outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return the mean cross-entropy of logits ``[B, L, C]`` and classes ``[B, L]`` over non-ignored positions."""
    return F.cross_entropy(
        outputs.flatten(0, 1), targets.flatten(), ignore_index=harness.IGNORED, label_smoothing=label_smoothing
    )


def _compiled(module: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """Return `module` compiled by ``torch.compile``. Compilation errors are not raised until the first call."""
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(module)

    def forward(**inputs: torch.Tensor) -> torch.Tensor:
        try:
            return compiled(**inputs)
        except TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise harness.UnsupportedError(
                f"torch.compile failed to compile this model: {reason}; run without --compile"
            ) from error

    return forward
