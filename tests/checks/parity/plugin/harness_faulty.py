"""Variants of the torch backend with one fault each. Each backend is named after its fault.

The faults are those that have made published comparisons of frameworks wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harness_torch import TorchBackend

import harness
from harness import Batch, Network, NetworkRef, SessionRequest

# ---- networks -----------------------------------------------------------------------------------------------


def layer_norm_epsilon(config: Any, info: Any, dropout: float) -> Network:
    """Use torch's default epsilon, 1e-5, instead of BERT's 1e-12."""
    from harness_torch.networks import bert
    from torch import nn

    network = bert.build(config, info, dropout)
    for module in network.module.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    return network


def approximate_gelu(config: Any, info: Any, dropout: float) -> Network:
    from harness_torch.networks import bert
    from torch import nn

    network = bert.build(config, info, dropout)
    for layer in network.module.model.bert.encoder.layer:
        layer.intermediate.intermediate_act_fn = nn.GELU(approximate="tanh")
    return network


def attention_mask(config: Any, info: Any, dropout: float) -> Network:
    """Attend to one token of padding."""
    import torch
    from harness_torch.networks import bert

    network = bert.build(config, info, dropout)

    def longer(module: Any, args: Any, inputs: dict[str, Any]) -> Any:
        mask = inputs["attention_mask"]
        shifted = torch.cat([mask[:, :1], mask[:, :-1]], dim=1)
        return args, inputs | {"attention_mask": shifted}

    network.module.register_forward_pre_hook(longer, with_kwargs=True)
    return network


def transposed_weight(config: Any, info: Any, dropout: float) -> Network:
    """Transpose a square matrix when weights are set, and again when they are read."""
    from harness_torch.networks import bert

    network = bert.build(config, info, dropout)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    transposed = dataclasses.replace(network.bindings[name], axes=(1, 0))
    return Network(module=network.module, bindings={**network.bindings, name: transposed})


def tf32(config: Any, info: Any, dropout: float) -> Network:
    """Round the operands of dense layers to TF32's significand of 11 bits, as tensor cores do."""
    import torch
    from harness_torch.networks import bert
    from torch import nn

    def rounded(x: Any) -> Any:
        bits = x.detach().contiguous().view(torch.int32)
        return x + (((bits + 0x1000) & ~0x1FFF).view(torch.float32) - x).detach()

    class Linear(nn.Linear):
        def forward(self, x: Any) -> Any:
            return nn.functional.linear(rounded(x), rounded(self.weight), self.bias)

    network = bert.build(config, info, dropout)
    for module in network.module.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
    return network


def same_padding(config: Any, info: Any, dropout: float) -> Network:
    """Pad strided convolutions on one side only, as TensorFlow's ``same`` does, instead of both."""
    from harness_torch.networks import resnet
    from torch import nn

    class Convolution(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            x = nn.functional.pad(x, (0, 1, 0, 1))
            return nn.functional.conv2d(x, self.weight, self.bias, self.stride)

    network = resnet.build(config, info, dropout)
    for module in network.module.modules():
        if type(module) is nn.Conv2d and module.stride == (2, 2) and module.kernel_size == (3, 3):
            module.__class__ = Convolution
    return network


def biased_variance(config: Any, info: Any, dropout: float) -> Network:
    """Update the running variances with the biased variance of the batch, as Keras's layer does."""
    from harness_torch.networks import resnet
    from torch import nn

    class BatchNorm(nn.BatchNorm2d):
        def forward(self, x: Any) -> Any:
            before = self.running_var.clone()
            y = super().forward(x)
            if self.training:
                n = x.numel() / x.shape[1]
                self.running_var.data.copy_(before * 0.9 + (self.running_var - before * 0.9) * (n - 1) / n)
            return y

    network = resnet.build(config, info, dropout)
    for module in network.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = BatchNorm
    return network


# ---- sessions -----------------------------------------------------------------------------------------------


def dropout_left_on(request: SessionRequest) -> Any:
    from harness_torch.session import TorchSession

    class Session(TorchSession):
        def predict(self, inputs: Mapping[str, Any]) -> Any:
            self._module.train()
            self._training = False  # so that the session assumes evaluation mode
            return super().predict(inputs)

    return Session(request)


def bf16(request: SessionRequest) -> Any:
    """Compute in bfloat16 although the precision is float32."""
    import torch
    from harness_torch.session import TorchSession

    class Session(TorchSession):
        def __init__(self, request: SessionRequest) -> None:
            super().__init__(request)
            self._casts = torch.autocast("cpu", torch.bfloat16)

    return Session(request)


def exchanged_predictions(request: SessionRequest) -> Any:
    from harness_torch.session import TorchSession

    class Session(TorchSession):
        def predict(self, inputs: Mapping[str, Any]) -> Any:
            alone = len(next(iter(inputs.values()))) == 1
            return super().predict(inputs if alone else _exchanged(inputs))

    return Session(request)


def exchanged_training(request: SessionRequest) -> Any:
    """Swap the targets of two examples in a training batch."""
    from harness_torch.session import TorchSession

    class Session(TorchSession):
        def _backward(self, batch: Batch) -> Any:
            return super()._backward(Batch(_exchanged(batch.inputs), batch.targets))

    return Session(request)


def _exchanged(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Swap examples 0 and 1."""
    import numpy as np

    order = np.arange(len(next(iter(inputs.values()))))
    order[:2] = 1, 0
    return {name: array[order] for name, array in inputs.items()}


def adam_uncorrected(request: SessionRequest) -> Any:
    """Use Adam without bias correction of its moments."""
    import torch
    from harness_torch.session import TorchSession

    class Adam(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": request.recipe.learning_rate, "factor": 1.0})

        @torch.no_grad()
        def step(self) -> None:  # type: ignore[override]
            recipe = request.recipe
            for group in self.param_groups:
                for parameter in group["params"]:
                    state = self.state[parameter]
                    for name, beta, value in (
                        ("mean", recipe.beta1, parameter.grad),
                        ("square", recipe.beta2, parameter.grad**2),
                    ):
                        state[name] = beta * state.get(name, 0.0) + (1 - beta) * value
                    parameter -= group["lr"] * state["mean"] / (state["square"].sqrt() + recipe.epsilon)

    class Session(TorchSession):
        def _start_optimizer(self) -> None:
            super()._start_optimizer()
            self._optimizer = Adam(self._trainable)

    return Session(request)


def gradient_scaled(request: SessionRequest) -> Any:
    """Compute a wrong gradient in one layer."""
    from harness_torch.session import TorchSession

    class Session(TorchSession):
        def __init__(self, request: SessionRequest) -> None:
            super().__init__(request)
            layer = self._module.model.bert.encoder.layer[1].intermediate.dense
            layer.weight.register_hook(lambda gradient: gradient * 1.01)

    return Session(request)


# ---- the plugin ---------------------------------------------------------------------------------------------

NETWORKS: dict[str, Callable[..., Network]] = {
    "layer_norm_epsilon": layer_norm_epsilon,
    "approximate_gelu": approximate_gelu,
    "attention_mask": attention_mask,
    "transposed_weight": transposed_weight,
    "tf32": tf32,
    "same_padding": same_padding,
    "biased_variance": biased_variance,
}
SESSIONS: dict[str, Callable[[SessionRequest], Any]] = {
    "dropout_left_on": dropout_left_on,
    "bf16": bf16,
    "exchanged_predictions": exchanged_predictions,
    "exchanged_training": exchanged_training,
    "adam_uncorrected": adam_uncorrected,
    "gradient_scaled": gradient_scaled,
}


def training_faults() -> dict[str, Callable[[SessionRequest], Any]]:
    """Return the sessions of the modules for faults in training, by name."""
    import harness_faulty_details as details
    import harness_faulty_rare as rare
    import harness_faulty_scaling as scaling
    import harness_faulty_training as training

    edits = {name: change for changes in training.EDITED.values() for name, change in changes.items()}
    sessions = {name: training.edited(change) for name, change in edits.items()}
    fields = (*training.SESSIONS.values(), *details.SESSIONS.values(), *rare.SESSIONS.values())
    groups = (*fields, (scaling.Scaling, *scaling.SESSIONS))
    return sessions | {each.__name__: each for group in groups for each in group}


class FaultyBackend(TorchBackend):
    def __init__(self, fault: str) -> None:
        self.name = fault
        self.summary = f"PyTorch with {fault}"

    def open(self, request: SessionRequest) -> Any:
        return SESSIONS[self.name](request) if self.name in SESSIONS else super().open(request)


class FaultyTraining(TorchBackend):
    """The torch backend with the fault that the class attribute `fault` names."""

    name = "faulty-training"
    summary = "PyTorch with a fault in training"
    fault = ""

    def open(self, request: SessionRequest) -> Any:
        faults = training_faults()
        return faults[self.fault](request) if self.fault else super().open(request)


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    for fault in (*NETWORKS, *SESSIONS):
        yield FaultyBackend(fault)
    yield FaultyTraining()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    for fault in (*NETWORKS, *SESSIONS):
        for model in ("bert", "resnet"):
            build = f"harness_faulty:{fault}" if fault in NETWORKS else f"harness_torch.networks.{model}:build"
            yield NetworkRef(model=model, backend=fault, build=build)
    for model in ("bert", "lstm", "resnet", "wav2vec2", "mlp", "linear"):
        yield NetworkRef(model=model, backend="faulty-training", build=f"harness_torch.networks.{model}:build")
