"""Tests of the operations that PyTorch counts. They are compared with the formulas of the built-in models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from framework_cases import MODELS
from harness_torch.flops import OPERATIONS_PER_VALUE, bounds

import harness
from harness.testing import SessionCases

pytestmark = pytest.mark.torch
CASES = SessionCases("torch", MODELS)


def per_example(case: str) -> tuple[float, float]:
    session = CASES.open(case)
    small, large = (session.flops_bounds(CASES.batch(case, size).inputs) for size in (2, 4))
    return (large[0] - small[0]) / 2, (large[1] - small[1]) / 2


@pytest.mark.parametrize("case", MODELS)
def test_counted_products_equal_the_formula_of_the_model(case: str) -> None:
    """The count includes fused attention and recurrent layers, whose kernels PyTorch does not count."""
    model, _ = CASES.model(case)
    request = CASES.request(case)
    config: Any = request.config
    expected = model.flops_per_sample(config, request.info)
    if model.name == "wav2vec2" and config.num_conv_pos_embeddings % 2 == 0:
        # With an even kernel, the positional convolution computes one frame more than it returns.
        kernel, hidden = config.num_conv_pos_embeddings, config.hidden_size
        expected += 2 * kernel * hidden * hidden / config.num_conv_pos_embedding_groups
    low, high = per_example(case)
    assert low == expected
    assert low <= high


@pytest.mark.parametrize("case", ["linear", "mlp"])
def test_upper_bound_excludes_twice_the_number_of_operations(case: str) -> None:
    """A formula that counts each multiply-add as four operations is therefore detected."""
    low, high = per_example(case)
    assert high < 2 * low


def test_other_operators_raise_only_the_upper_bound() -> None:
    x, weight = torch.ones(3, 4), torch.ones(4, 5)
    found = bounds(lambda x: torch.relu(x @ weight), {"x": x})
    assert found == (2 * 3 * 4 * 5, 2 * 3 * 4 * 5 + OPERATIONS_PER_VALUE * 2 * 3 * 5)


def test_operator_that_may_contain_products_is_not_counted() -> None:
    with pytest.raises(harness.UnsupportedError, match=r"does not count the operations of aten\._cdist_forward"):
        bounds(lambda x: torch.cdist(x, x + 1), {"x": torch.ones(3, 4)})


def test_global_settings_are_restored() -> None:
    before = torch.backends.mkldnn.enabled, torch.backends.cuda.flash_sdp_enabled(), torch.is_grad_enabled()
    bounds(lambda x: x @ x, {"x": torch.ones(3, 3)})
    assert before == (torch.backends.mkldnn.enabled, torch.backends.cuda.flash_sdp_enabled(), torch.is_grad_enabled())
