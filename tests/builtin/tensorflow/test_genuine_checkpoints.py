"""Comparison of the TensorFlow session with `transformers` on ResNet and wav2vec 2.0 checkpoints written by it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import genuine_checkpoints as genuine
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow
pytest.importorskip("PIL", reason="images are resized by Pillow")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one checkpoint per case, written by a child process that imports torch."""
    for module in ("torch", "transformers", "tensorflow"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    folder = tmp_path_factory.mktemp("checkpoints")
    script = Path(genuine.__file__)
    child = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False, timeout=280
    )
    assert child.returncode == 0, child.stderr[-4000:]
    return folder


@pytest.mark.parametrize("case", genuine.CASES)
def test_logits_agree_with_transformers(root: Path, case: str) -> None:
    inputs, _, logits, _ = genuine.predicted(root / case, "tensorflow")
    with np.load(root / case / "expected.npz") as expected:
        for name, array in inputs.items():
            np.testing.assert_array_equal(array, expected[name])
        for theirs in (expected["logits"], expected["torch"]):
            np.testing.assert_allclose(logits, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
