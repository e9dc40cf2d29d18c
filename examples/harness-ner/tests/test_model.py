"""Comparison of the model with ``transformers``, and runs from checkpoints."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness_ner.bert_tagger import BertTagger, BertTaggerConfig, vocab_size

from harness import DataInfo, InputSpec, UsageError

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnop"))


def info_of(length: int = 10) -> DataInfo:
    return DataInfo(
        kind="tagged-tokens",
        inputs={name: InputSpec(shape=(length,), dtype="int32") for name in ("input_ids", "attention_mask")},
        objective="token_classification",
        outputs=7,
        details={"vocab_size": 50},
    )


def test_names_and_shapes_equal_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="pip install 'harness-ner[torch]'")
    pytest.importorskip("torch", reason="pip install 'harness-ner[torch]'")
    expected = transformers.BertForTokenClassification(transformers.BertConfig(**SIZES, vocab_size=50, num_labels=7))
    actual = {each.name: each.shape for each in BertTagger().parameters(BertTaggerConfig(**SIZES), info_of())}
    assert actual == {name: tuple(each.shape) for name, each in expected.named_parameters()}


def test_flops_equal_a_count_by_hand() -> None:
    """The model has one layer, 2 tokens, hidden size 4, one head, feed-forward size 8 and 7 classes."""
    config = BertTaggerConfig(hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    projections, attention, feed_forward, classifier = 4 * 2 * 4 * 4, 2 * 2 * 2 * 4, 2 * 2 * 4 * 8, 2 * 4 * 7
    expected = 2 * (projections + attention + feed_forward + classifier)
    assert BertTagger().flops_per_sample(config, info_of(length=2)) == expected


def test_sizes_that_do_not_fit_raise() -> None:
    with pytest.raises(UsageError, match=r"set model\.max_position_embeddings=10 or a smaller task\.max_length"):
        vocab_size(BertTaggerConfig(max_position_embeddings=9), info_of())
    with pytest.raises(UsageError, match="the data have 50 token ids"):
        vocab_size(BertTaggerConfig(vocab_size=49), info_of())
    assert vocab_size(BertTaggerConfig(vocab_size=60), info_of()) == 60
    with pytest.raises(ValueError, match="must be a multiple of num_attention_heads"):
        BertTaggerConfig(hidden_size=10, num_attention_heads=3)
    with pytest.raises(ValueError, match="hidden_size must be positive"):
        BertTaggerConfig(hidden_size=0)


def harness(*arguments: Any) -> str:
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


QUICK = (
    "--threads",
    1,
    "-q",
    "--protocol",
    "quick",
    "--set",
    "recipe.epochs=1",
    "--set",
    "protocol.throughput_budget_s=0.01",
)


@pytest.mark.slow
def test_run_starts_from_a_checkpoint_of_the_encoder_alone(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install 'harness-ner[torch]'")
    folder, results = tmp_path / "encoder", tmp_path / "results"
    transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=len(PIECES))).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    # The type of the checkpoint determines the model, so --model is not needed.
    harness("run", "--task", "ner", "--backend", "torch", "--pretrained", folder, *QUICK, "--results", results)
    (path,) = results.glob("*/record.json")
    record = json.loads(path.read_text())
    assert record["spec"]["model"] == "bert-tagger"
    assert record["spec"]["model_options"]["hidden_size"] == 32
    assert record["provenance"]["data"]["details"]["vocab_size"] == len(PIECES)
    notes = record["provenance"]["notes"]
    assert notes["pretrained_initialized_anew"] == "classifier.weight, classifier.bias"
    assert "bert.pooler.dense.weight" in notes["pretrained_not_used"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_run_is_scored_and_shown_in_every_report_format(backend: str, tmp_path: Path) -> None:
    # the parent process must not import torch, because the run is in another process
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    results = tmp_path / "results"
    harness("run", "--task", "ner", "--backend", backend, *QUICK, "--save-weights", "--results", results)
    (path,) = results.glob("*/record.json")
    record = json.loads(path.read_text())
    scores = record["outcome"]["scores"]
    assert scores["primary"] == "entity_f1"
    assert set(scores["test"]) == {"entity_f1", "entity_precision", "entity_recall", "token_accuracy"}
    assert scores["test"]["token_accuracy"] > 0.6
    for format_ in ("text", "markdown", "csv", "json", "latex"):
        assert "entity" in harness("report", "--format", format_, "--results", results).replace("\\_", "_")
    harness("report", "--format", "html", "--output", tmp_path / "site", "--results", results)
    assert (tmp_path / "site" / "index.html").is_file()
    assert "predictions agree" in harness("evaluate", path.parent.name, "--backend", backend, "--results", results)
