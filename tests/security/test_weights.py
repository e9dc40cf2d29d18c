"""Tests that weights are read only from regular files and in types that numpy supports."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from harness.errors import RecordError
from harness.execute.weights import load, save


def safetensors(header: object, body: bytes = b"") -> bytes:
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + body


def tensor(dtype: str, shape: list[int], end: int) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


DAMAGED = {
    "float8": safetensors(tensor("F8_E4M3", [4], 4), bytes(4)),
    "float8, other format": safetensors(tensor("F8_E5M2", [4], 4), bytes(4)),
    "bfloat16": safetensors(tensor("BF16", [2], 4), bytes(4)),
    "unknown type": safetensors(tensor("F3", [4], 4), bytes(4)),
    "lying shape": safetensors(tensor("F32", [10**12], 4), bytes(4)),
    "lying offsets": safetensors(tensor("F32", [1], 2**62), bytes(4)),
    "overflowing shape": safetensors(tensor("F32", [2**62, 2**62], 4), bytes(4)),
    "deep header": len(b"[" * 9999).to_bytes(8, "little") + b"[" * 9999,
    "long header": (2**62).to_bytes(8, "little") + b"{}",
    "not an object": safetensors([1]),
    "empty": b"",
    "text": b"not safetensors",
}


@pytest.mark.parametrize("damaged", DAMAGED)
def test_damaged_weights_are_named(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(DAMAGED[damaged])
    with pytest.raises(RecordError, match=r"weights\.safetensors: "):
        load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "directory", "device"])
def test_weights_that_are_not_a_regular_file_are_refused(kind: str, tmp_path: Path) -> None:
    save(tmp_path / "other", {"a": np.zeros(3, np.float32)})
    path = tmp_path / "weights.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to({"link": tmp_path / "other", "dangling": tmp_path / "none", "device": "/dev/zero"}[kind])
    with pytest.raises(RecordError, match=r"weights\.safetensors: "):
        load(path)
    assert load(tmp_path / "other")["a"].tolist() == [0, 0, 0]
