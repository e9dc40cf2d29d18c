"""Training and inference with Lightning in its ``barebones`` mode, which is intended for measuring overhead."""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import lightning
import numpy as np
import torch

from benchmarks.bare_torch import loss_of, parts_of
from benchmarks.batches import loader
from benchmarks.contender import Contender, permuted, weights_of
from harness import SessionRequest, Split


class _Module(lightning.LightningModule):
    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, request: SessionRequest) -> None:
        super().__init__()
        self.model, self._optimizer, self._request = model, optimizer, request

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._optimizer

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return loss_of(self._request, self.model(**inputs), batch["labels"])

    def predict_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        outputs: torch.Tensor = self.model(**batch)
        return outputs

    def on_train_start(self) -> None:
        self.start = time.perf_counter()

    def on_train_end(self) -> None:
        self.seconds = time.perf_counter() - self.start


def prepare(request: SessionRequest, weights: dict[str, Any]) -> Contender:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    network, model, optimizer = parts_of(request, weights)
    module, size = _Module(model, optimizer, request), request.recipe.batch_size

    def trainer() -> lightning.Trainer:
        return lightning.Trainer(
            barebones=True, max_epochs=1, accelerator="cpu", devices=1, gradient_clip_val=request.recipe.clip_norm
        )

    def train(split: Split, order: Any) -> float:
        inputs, targets = permuted(split, order, size)
        model.train()
        trainer().fit(module, loader({**inputs, "labels": targets}, size))
        return module.seconds

    def infer(split: Split) -> Any:
        whole = len(split) // size * size
        arrays = {name: np.ascontiguousarray(array[:whole]) for name, array in split.inputs.items()}
        parts = trainer().predict(module, loader(arrays, size))
        return torch.cat(parts).numpy()

    return Contender(train, infer, lambda: weights_of(network, request, lambda v: v.detach().numpy().copy()))
