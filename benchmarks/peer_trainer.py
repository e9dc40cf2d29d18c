"""Training and inference with ``transformers.Trainer``, without logging, checkpoints or evaluation."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.bare_torch import loss_of, parts_of
from benchmarks.batches import Batches, unchanged
from benchmarks.contender import Contender, permuted, weights_of
from harness import SessionRequest, Split


class _Model(torch.nn.Module):
    """Model whose forward pass also computes the loss, as `Trainer` requires."""

    def __init__(self, model: torch.nn.Module, request: SessionRequest) -> None:
        super().__init__()
        self.model, self._request = model, request

    def forward(self, labels: torch.Tensor | None = None, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.model(**inputs)
        if labels is None:
            return {"logits": outputs}
        return {"loss": loss_of(self._request, outputs, labels), "logits": outputs}


class _InOrder(Trainer):
    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


class _Clock(TrainerCallback):
    """Callback that times the loop, excluding the setup in `Trainer.train`."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def prepare(request: SessionRequest, weights: dict[str, Any]) -> Contender:
    network, model, optimizer = parts_of(request, weights)
    recipe, size = request.recipe, request.recipe.batch_size
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    folder = tempfile.mkdtemp()
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=size,
        per_device_eval_batch_size=size,
        num_train_epochs=1,
        max_grad_norm=recipe.clip_norm or 0.0,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_drop_last=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    clock = _Clock()
    trainer = _InOrder(
        model=_Model(model, request),
        args=arguments,
        data_collator=unchanged,
        optimizers=(optimizer, constant),
        callbacks=[clock],
    )
    trainer.model_accepts_loss_kwargs = False  # the loss is the mean over the batch, as for the other contenders
    trainer.remove_callback(next(c for c in trainer.callback_handler.callbacks if "Printer" in type(c).__name__))

    def train(split: Split, order: Any) -> float:
        inputs, targets = permuted(split, order, size)
        trainer.train_dataset = Batches({**inputs, "labels": targets})
        trainer.train()
        return clock.seconds

    def infer(split: Split) -> Any:
        whole = len(split) // size * size
        data = Batches({name: np.ascontiguousarray(array[:whole]) for name, array in split.inputs.items()})
        return trainer.predict(data).predictions

    return Contender(train, infer, lambda: weights_of(network, request, lambda v: v.detach().numpy().copy()))
