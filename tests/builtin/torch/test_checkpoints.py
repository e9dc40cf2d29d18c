"""The state of a PyTorch session in a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from harness import Recipe

pytestmark = pytest.mark.torch


def opened(optimizer: str, seed: int) -> tuple[Any, Any, Any]:
    """Return a module, an optimizer and a loss scale that grows after two steps without overflow."""
    import torch
    from harness_torch.optimizers import build_optimizer

    recipe = Recipe(optimizer=optimizer, momentum=0.9)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(2))
    built = build_optimizer(recipe, module.parameters(), [], scaled=True)
    return module, built, torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2)


def trained(module: Any, optimizer: Any, scaler: Any, steps: range) -> list[float]:
    """Run steps, of which step 3 overflows, and return the losses."""
    import torch

    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = (module(torch.full((4, 3), 0.1 * (step + 1))) ** 2).mean()
        scaler.scale(loss * (float("inf") if step == 3 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("start", [1, 2, 4, 5])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion"])
def test_state_includes_the_loss_scale_and_its_growth(optimizer: str, start: int) -> None:
    import torch
    from harness_torch import checkpoints

    cpu = torch.device("cpu")
    first, second = opened(optimizer, 0), opened(optimizer, 1)
    trained(*first, range(start))
    state = checkpoints.state_of(*first, [], cpu)
    expected = trained(*first, range(start, 8))
    checkpoints.restore(state, *second, [], cpu)
    assert trained(*second, range(start, 8)) == expected
    assert second[2].state_dict() == first[2].state_dict()
    for one, other in zip(first[0].state_dict().values(), second[0].state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_state_keeps_the_memory_layout_of_moments() -> None:
    """Fused kernels require moments with the layout of their parameter."""
    import torch
    from harness_torch import checkpoints
    from harness_torch.optimizers import build_optimizer

    def built() -> tuple[Any, Any]:
        module = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return module, build_optimizer(Recipe(optimizer="adam"), module.parameters(), [])

    (module, optimizer), (other, restored) = built(), built()
    module(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    state = checkpoints.state_of(module, optimizer, None, [], torch.device("cpu"))
    checkpoints.restore(state, other, restored, None, [], torch.device("cpu"))
    assert restored.state[other.weight]["exp_avg"].stride() == other.weight.stride() == module.weight.stride()
