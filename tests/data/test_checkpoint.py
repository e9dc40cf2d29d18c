"""Tests of locating checkpoints and of the formats of their weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import INFO, SIZES, tiny_bert
from harness_nlp.models.bert import Bert, BertConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from harness import UsageError
from harness.data.checkpoint import INDEX, WEIGHTS, locate, weight_files
from harness.execute.weights import initial_weights, pretrained_weights

PARAMETERS = Bert().parameters(BertConfig(**SIZES), INFO)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bert(tmp_path / "tiny")
    return tmp_path / "tiny"


def divide(folder: Path, parts: int) -> list[str]:
    """Replace the weights of a checkpoint by `parts` files and an index; return the names of the files."""
    arrays = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = [f"model-{number + 1:05}-of-{parts:05}.safetensors" for number in range(parts)]
    places = {array: names[number % parts] for number, array in enumerate(sorted(arrays))}
    for name in names:
        save_file({array: arrays[array] for array, place in places.items() if place == name}, folder / name)
    total = sum(array.nbytes for array in arrays.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}))
    return names


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8, 13, 20, 30])
def test_weights_in_several_files_are_the_same(tmp_path: Path, parts: int) -> None:
    initial = initial_weights(PARAMETERS, 7)
    stored = tiny_bert(tmp_path)
    whole = locate(str(tmp_path))
    expected, notes = pretrained_weights(whole, Bert(), PARAMETERS, initial)
    names = divide(tmp_path, parts)
    located = locate(str(tmp_path))
    assert list(weight_files(tmp_path)) == names
    assert located.digest != whole.digest
    merged, again = pretrained_weights(located, Bert(), PARAMETERS, initial)
    assert again == notes
    for name, array in merged.items():
        np.testing.assert_array_equal(array, expected[name])
        np.testing.assert_array_equal(array, stored.get(name, initial[name]))


def test_the_digest_depends_on_every_file(folder: Path) -> None:
    names = divide(folder, 3)
    digests = {locate(str(folder)).digest}
    for name in names:
        arrays = load_file(folder / name)
        key = next(key for key, array in arrays.items() if array.dtype == np.float32)
        arrays[key] = arrays[key] + np.float32(1)
        save_file(arrays, folder / name)
        digests.add(locate(str(folder)).digest)
    assert len(digests) == 4


def test_an_array_in_two_files_is_read_from_the_one_in_the_index(folder: Path) -> None:
    first, second = divide(folder, 2)
    name = "embeddings.word_embeddings.weight"
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    other = folder / (second if places[name] == first else first)
    save_file({**load_file(other), name: np.zeros((30, 16), np.float32)}, other)
    merged, _ = pretrained_weights(locate(str(folder)), Bert(), PARAMETERS, initial_weights(PARAMETERS, 0))
    assert merged["bert.embeddings.word_embeddings.weight"].any()


@given(st.sets(st.integers(0, 4), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_missing_files_of_an_index_are_listed(tmp_path_factory: pytest.TempPathFactory, missing: set[int]) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_bert(folder)
    names = divide(folder, 5)
    for number in missing:
        (folder / names[number]).unlink()
    lost = ", ".join(names[number] for number in sorted(missing))
    with pytest.raises(
        UsageError, match=f"lists 5 files, but {len(missing)} of them (is|are) missing: {lost}; download"
    ):
        locate(str(folder))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not valid"),
        ("[]", "not valid"),
        ("{}", "not valid"),
        ('{"weight_map": {}}', "lists no arrays"),
        ('{"weight_map": {"a": 1}}', "not valid"),
        ('{"weight_map": {"a": "../other.safetensors"}}', "is not the name of a safetensors file"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "is not the name of a safetensors file"),
        ('{"weight_map": {"a": "pytorch_model-1.bin"}}', "is not the name of a safetensors file"),
        ('{"weight_map": {"a": ""}}', "is not the name of a safetensors file"),
    ],
)
def test_a_damaged_index_is_rejected(folder: Path, index: str, message: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(index)
    with pytest.raises(UsageError, match=message):
        locate(str(folder))


def test_an_array_that_only_the_index_lists_is_named(folder: Path) -> None:
    names = divide(folder, 2)
    arrays = load_file(folder / names[0])
    lost = sorted(arrays)[0]
    del arrays[lost]
    save_file(arrays, folder / names[0])
    with pytest.raises(UsageError, match=f"arrays listed in {INDEX} are missing: {lost}"):
        locate(str(folder))


@pytest.mark.parametrize("parts", [0, 3])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"", "cannot be read"),
        (b"\x80\x02pickle", "cannot be read"),
        (b"\xff" * 64, "cannot be read"),
        (b"PK\x03\x04" + bytes(60), "cannot be read"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "cannot be read"),
        (b"<!doctype html><title>404</title>", "cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (None, "cannot be read"),
    ],
)
def test_damaged_weights_are_rejected_when_planning(
    folder: Path, damage: bytes | None, message: str, parts: int
) -> None:
    path = folder / (divide(folder, parts)[1] if parts else WEIGHTS)
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    with pytest.raises(UsageError, match=f"{path.name}.*{message}"):
        locate(str(folder))


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        (["pytorch_model.bin"], r"transformers\.BertModel\.from_pretrained\(FOLDER\)\.save_pretrained"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"], r"from_pretrained\(FOLDER\)"),
        (["tf_model.h5"], r"with transformers 4.*from_pretrained\(FOLDER, from_tf=True\)"),
        (["flax_model.msgpack"], r"with transformers 4.*from_pretrained\(FOLDER, from_flax=True\)"),
        (["flax_model.msgpack", "pytorch_model.bin", "tf_model.h5"], r"from_pretrained\(FOLDER\)"),
        (["model.onnx"], "convert it to safetensors, the only supported format$"),
        (["model.gguf"], "convert it to safetensors, the only supported format$"),
        (["model.ckpt"], "convert it to safetensors, the only supported format$"),
        (["adapter_model.safetensors"], "rename the file with the weights to model.safetensors, or add the"),
        (["model-00001-of-00002.safetensors"], "rename the file with the weights to model.safetensors, or add the"),
        ([], "it contains no weights; download the checkpoint again"),
    ],
)
def test_other_formats_are_named_with_the_conversion(folder: Path, files: list[str], advice: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    for name in files:
        (folder / name).write_bytes(b"")
    contents = f"it contains {', '.join(sorted(files))}; .*" if files else ""
    with pytest.raises(UsageError, match=rf"has no model\.safetensors in .*; {contents}{advice}"):
        locate(str(folder))


@pytest.mark.parametrize("config", ['{"architectures": []}', "{", "[]", '{"architectures": ["a b"]}', "null"])
def test_advice_without_a_known_class_names_automodel(folder: Path, config: str) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    (folder / "config.json").write_text(config)
    with pytest.raises(UsageError, match=r"transformers\.AutoModel\.from_pretrained"):
        locate(str(folder))


def test_a_folder_without_configuration_is_rejected(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match=r"has no config\.json"):
        locate(str(folder))


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "F8_E5M2", "U16"])
def test_types_that_numpy_lacks_are_rejected_when_planning(folder: Path, kind: str) -> None:
    header = json.dumps({"stranger": {"dtype": kind, "shape": [4], "data_offsets": [0, 8 if "16" in kind else 4]}})
    content = header.encode()
    (folder / WEIGHTS).write_bytes(len(content).to_bytes(8, "little") + content + bytes(8 if "16" in kind else 4))
    with pytest.raises(UsageError, match=f"stranger has type {kind}; store the checkpoint in float32 or float16"):
        locate(str(folder))


@pytest.mark.parametrize("listed", [["config.json", "pytorch_model.bin"], []])
def test_files_on_the_hub_are_named(monkeypatch: pytest.MonkeyPatch, folder: Path, listed: list[str]) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.delenv("HARNESS_OFFLINE", raising=False)
    (folder / WEIGHTS).unlink()
    asked: list[tuple[str, str | None]] = []

    def files(repository: str, *, revision: str | None) -> list[str]:
        asked.append((repository, revision))
        return listed

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", files)
    expected = r"it contains pytorch_model\.bin; convert it" if listed else "it contains no weights"
    with pytest.raises(UsageError, match=expected):
        locate("owner/name@main")
    assert asked == [("owner/name", "main")]
