"""Comparison of ResNet's canonical arrays with the network in `transformers`."""

from __future__ import annotations

import msgspec
import pytest
from harness_vision.models.resnet import ResNet, ResNetConfig

from harness import DataInfo, InputSpec

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("variant", ["resnet-18", "resnet-50"])
@pytest.mark.parametrize("downsample_in_first_stage", [False, True])
def test_resnet_parameters_match_the_checkpoint_of_transformers(variant: str, downsample_in_first_stage: bool) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    sizes = {**ResNet.variants[variant], "downsample_in_first_stage": downsample_in_first_stage}
    info = DataInfo(
        kind="image",
        inputs={"pixel_values": InputSpec(shape=(64, 64, 3), dtype="float32")},
        objective="classification",
        outputs=7,
    )
    with torch.device("meta"):
        network = transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, num_labels=7))
    trainable = {name for name, _ in network.named_parameters()}
    expected = [
        (name, tuple(array.shape), name in trainable)
        for name, array in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    ]
    parameters = ResNet().parameters(msgspec.convert(sizes, ResNetConfig), info)
    assert [(p.name, p.shape, p.trainable) for p in parameters] == expected
