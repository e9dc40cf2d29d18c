"""Tests that compare the model with ``transformers``, and tests of its sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_vit.model import VisionTransformer, VitConfig

from harness import DataInfo, InputSpec, UsageError

SIZES = {"patch_size": 4, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def info_of(height: int = 8, width: int = 12, channels: int = 3) -> DataInfo:
    return DataInfo(
        kind="image",
        inputs={"pixel_values": InputSpec(shape=(height, width, channels), dtype="float32")},
        objective="classification",
        outputs=5,
    )


def transformers_model() -> Any:
    transformers = pytest.importorskip("transformers", reason="pip install 'harness-vit[torch]'")
    pytest.importorskip("torch", reason="pip install 'harness-vit[torch]'")
    return transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES, image_size=(8, 12), num_labels=5))


def test_torch_network_equals_the_published_architecture(tmp_path: Path) -> None:
    """Load the arrays of a checkpoint, using the names in the file, and compare the outputs."""
    expected = transformers_model().eval()
    import torch
    from harness_vit.torch_network import build
    from safetensors.numpy import load_file

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # biases and normalization would otherwise be 0 and 1
        for parameter in expected.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
    expected.save_pretrained(tmp_path)
    checkpoint = load_file(tmp_path / "model.safetensors")
    parameters = VisionTransformer().parameters(VitConfig(**SIZES), info_of())
    assert {each.name: each.shape for each in parameters} == {name: a.shape for name, a in checkpoint.items()}

    network = build(VitConfig(**SIZES), info_of(), 0.0)
    with torch.no_grad():
        for name, binding in network.bindings.items():
            binding.variable.copy_(torch.from_numpy(binding.to_own(checkpoint[name])))
        pixels = torch.randn(3, 8, 12, 3, generator=generator)
        ours = network.module.eval()(pixel_values=pixels).numpy()
        theirs = expected(pixels.permute(0, 3, 1, 2)).logits.numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_flops_equal_a_count_by_hand() -> None:
    """Use 2 patches of 2x2 pixels with 1 channel, one layer, hidden size 4, MLP size 8 and 5 classes."""
    config = VitConfig(patch_size=2, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    tokens = 3
    patches, projections = 2 * (2 * 2 * 1) * 4, 4 * tokens * 4 * 4
    attention, mlp, classifier = 2 * tokens * tokens * 4, 2 * tokens * 4 * 8, 4 * 5
    expected = 2 * (patches + projections + attention + mlp + classifier)
    assert VisionTransformer().flops_per_sample(config, info_of(2, 4, 1)) == expected


@pytest.mark.parametrize("shape", [(8, 10), (10, 8), (3, 4)])
def test_images_that_cannot_be_divided_into_patches_are_refused(shape: tuple[int, int]) -> None:
    height, width = shape
    with pytest.raises(
        UsageError, match=rf"images of {height}x{width} pixels .* patches of 4x4; set model\.patch_size"
    ):
        VisionTransformer().parameters(VitConfig(**SIZES), info_of(height, width))


def test_sizes_that_are_not_valid_raise() -> None:
    with pytest.raises(ValueError, match="must be a multiple of num_attention_heads"):
        VitConfig(hidden_size=10, num_attention_heads=3)
    with pytest.raises(ValueError, match="patch_size must be positive"):
        VitConfig(patch_size=0)


def test_variants_have_the_published_number_of_parameters() -> None:
    """Table 1 of the paper lists 86M and 307M parameters, excluding the classifier."""
    model, counts = VisionTransformer(), {}
    for variant in ("vit-base-16", "vit-large-16"):
        parameters = model.parameters(VitConfig(**model.variants[variant]), info_of(224, 224))
        encoder = [each for each in parameters if not each.name.startswith("classifier.")]
        counts[variant] = round(sum(np.prod(each.shape) for each in encoder) / 1e6)
    assert counts == {"vit-base-16": 86, "vit-large-16": 303}
