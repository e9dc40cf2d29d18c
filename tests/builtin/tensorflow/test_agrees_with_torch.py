"""Both frameworks compute the same function and the same gradients, each in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import framework_cases
import numpy as np
import pytest
from framework_cases import MODELS


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """Return the arrays of each backend and case. Each framework runs in a child process."""
    for module in ("torch", "transformers", "tensorflow"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    arrays = {}
    for backend in ("torch", "tensorflow"):
        folder = tmp_path_factory.mktemp(backend)
        child = subprocess.run(
            [sys.executable, framework_cases.__file__, backend, str(folder)],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert child.returncode == 0, child.stderr[-4000:]
        arrays |= {(backend, case): dict(np.load(folder / f"{case}.npz")) for case in MODELS}
    return arrays


def relative(actual: Any, expected: Any) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("case", MODELS)
def test_logits_gradients_and_statistics_agree(results: dict[tuple[str, str], Any], case: str) -> None:
    ours, theirs = results["tensorflow", case], results["torch", case]
    assert ours.keys() == theirs.keys()
    assert relative(ours["logits"], theirs["logits"]) < 1e-5
    assert abs(ours["loss"] - theirs["loss"]) < 1e-5
    assert relative(ours["logits_after"], theirs["logits_after"]) < 1e-4
    # Each gradient is compared with the model's largest, because some are zero except for rounding (attention's key
    # biases).
    gradients = [name for name in ours if name.startswith("gradient/")]
    largest = max(np.abs(theirs[name]).max() for name in gradients)
    for name in gradients:
        scale = max(np.abs(theirs[name]).max(), 1e-3 * largest)
        assert np.abs(ours[name] - theirs[name]).max() < 2e-4 * scale, name
    for name in ours:
        if name.startswith("statistic/"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
