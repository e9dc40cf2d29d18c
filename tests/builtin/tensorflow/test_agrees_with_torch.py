"""Tests that both frameworks, in separate processes, compute the same outputs and gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from framework_cases import CASES

# Only child processes import a framework, so one marker is enough to keep the frameworks in separate processes.
pytestmark = pytest.mark.tensorflow

SCRIPT = Path(__file__).with_name("framework_cases.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """Return the arrays of each (backend, case), computed in one child process per framework."""
    for module in ("torch", "transformers", "tensorflow"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    folder = tmp_path_factory.mktemp("frameworks")
    found = {}
    for backend in ("torch", "tensorflow"):
        paths = {case: folder / f"{backend}-{case}.npz" for case in CASES}
        pairs = [argument for case, path in paths.items() for argument in (case, str(path))]
        child = subprocess.run(
            [sys.executable, str(SCRIPT), backend, *pairs],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert child.returncode == 0, child.stderr[-4000:]
        found |= {(backend, case): dict(np.load(path)) for case, path in paths.items()}
    return found


def relative(actual: Any, expected: Any) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("case", CASES)
def test_logits_gradients_and_statistics_agree(results: dict[tuple[str, str], Any], case: str) -> None:
    ours, theirs = results["tensorflow", case], results["torch", case]
    assert ours.keys() == theirs.keys()
    assert relative(ours["logits"], theirs["logits"]) < 1e-5
    assert abs(ours["loss"] - theirs["loss"]) < 1e-5
    assert relative(ours["logits_after"], theirs["logits_after"]) < 1e-4
    # The scale is bounded by the model's largest gradient: some are zero up to rounding (key biases of attention).
    gradients = [name for name in ours if name.startswith("gradient/")]
    largest = max(np.abs(theirs[name]).max() for name in gradients)
    for name in gradients:
        scale = max(np.abs(theirs[name]).max(), 1e-3 * largest)
        assert np.abs(ours[name] - theirs[name]).max() < 2e-4 * scale, name
    for name in ours:
        if name.startswith("statistic/"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
