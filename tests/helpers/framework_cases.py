"""Small configurations of all built-in models, for tests of framework backends.

``framework_cases.py BACKEND FOLDER`` writes ``FOLDER/CASE.npz`` for every case, with the same weights and data for all
backends and without dropout: logits before training, gradients, and loss, running statistics and logits after one step
of plain SGD with learning rate 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from harness.testing import SessionCases

BERT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
LSTM = {"embedding_size": 12, "hidden_size": 16}
RESNET = {"embedding_size": 4, "depths": (1, 1)}
PRE_NORM = {
    "num_hidden_layers": 1,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "num_conv_pos_embeddings": 7,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "mlp": ("mlp", {}),
    "lstm": ("lstm", LSTM),
    "lstm-two-layers": ("lstm", {**LSTM, "num_layers": 2}),
    "lstm-max-mean": ("lstm", {**LSTM, "pooling": "max-mean"}),
    "bert": ("bert-tiny", BERT),
    "resnet": ("resnet-20", {**RESNET, "hidden_sizes": (4, 8)}),
    "resnet-bottleneck": ("resnet-50", {**RESNET, "hidden_sizes": (8, 16), "downsample_in_first_stage": True}),
    "wav2vec2": ("wav2vec2-tiny", {"num_hidden_layers": 1}),
    "wav2vec2-pre-norm": ("wav2vec2-tiny", PRE_NORM),
}
"""Model of each case, and the options that make it small."""


def stem_statistics(start: dict[str, Any], pixels: Any) -> dict[str, Any]:
    """Return the first running statistics of ResNet after a step on `pixels` ``[B, H, W, C]``.

    By PyTorch's convention, they are 0.9 of the old statistics plus 0.1 of those of the batch, with unbiased variance.
    """
    stem = "resnet.embedder.embedder"
    kernel = start[f"{stem}.convolution.weight"]
    padded = np.pad(pixels, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    outputs = np.einsum("nhwcij,ocij->nhwo", windows, kernel).reshape(-1, kernel.shape[0]).astype(np.float64)
    new = {"running_mean": outputs.mean(0), "running_var": outputs.var(0, ddof=1)}
    names = {f"{stem}.normalization.{statistic}": value for statistic, value in new.items()}
    return {name: 0.9 * start[name] + 0.1 * value for name, value in names.items()}


def main(backend: str, folder: str) -> None:
    cases = SessionCases(backend, MODELS)
    for case in MODELS:
        session, batch = cases.open(case), cases.batch(case)
        start = session.get_weights()
        before = session.fetch(session.predict(batch.inputs))
        _, gradients = session.gradients(batch)
        session.set_weights(start)
        loss = session.fetch(session.train_step(batch, 1.0))
        stepped = session.get_weights()
        result = {"logits": before, "loss": loss, "logits_after": session.fetch(session.predict(batch.inputs))}
        session.close()
        result |= {f"gradient/{name}": value for name, value in gradients.items()}
        result |= {f"statistic/{name}": value for name, value in stepped.items() if name not in gradients}
        np.savez(Path(folder) / f"{case}.npz", **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
