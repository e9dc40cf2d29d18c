"""Small BERT checkpoint in the format of older tools: no ``bert.`` prefix, gamma and beta, and no pooler or head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import DataInfo, InputSpec

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 30,
    "max_position_embeddings": 40,
}
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklm", *(f"##{c}" for c in "abcdefghijklm"))
INFO = DataInfo(
    kind="tokens",
    inputs={name: InputSpec(shape=(8,), dtype="int32") for name in ("input_ids", "attention_mask")},
    objective="classification",
    outputs=3,
    label_names=("x", "y", "z"),
    details={"vocab_size": len(PIECES), "pad_id": 0},
)


def tiny_bert(folder: Path, *, seed: int = 0, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write the checkpoint and return its arrays by canonical name."""
    import numpy as np
    from harness_nlp.models.bert import Bert, BertConfig
    from safetensors.numpy import save_file

    from harness.execute.weights import initial_weights

    drawn = initial_weights(Bert().parameters(BertConfig(**SIZES), INFO), seed)
    stored = {n: a + np.float32(0.01) for n, a in drawn.items() if not n.startswith(("classifier", "bert.pooler"))}
    old = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): a
        for name, a in stored.items()
    }
    old["embeddings.position_ids"] = np.arange(40)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(old, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert", "hidden_act": "gelu", **SIZES} | (config or {}))
    )
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return stored
