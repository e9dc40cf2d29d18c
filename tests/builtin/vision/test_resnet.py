"""Tests of the declarations of ResNet models: numbers of parameters, FLOPs, and rejection of invalid sizes."""

from __future__ import annotations

import math

import msgspec
import pytest
from harness_vision.models.resnet import ResNet, ResNetConfig

from harness import DataInfo, InputSpec
from harness.execute.weights import initial_weights


def info(height: int, width: int, channels: int, classes: int) -> DataInfo:
    return DataInfo(
        kind="image",
        inputs={"pixel_values": InputSpec(shape=(height, width, channels), dtype="float32")},
        objective="classification",
        outputs=classes,
    )


def config(variant: str) -> ResNetConfig:
    return msgspec.convert(ResNet.variants[variant], ResNetConfig)


IMAGENET, CIFAR = info(224, 224, 3, 1000), info(32, 32, 3, 10)


def test_variants_start_with_the_small_default() -> None:
    assert list(ResNet.variants) == ["resnet-20", "resnet-18", "resnet-50"]


@pytest.mark.parametrize(
    ("variant", "data", "trainable"),
    [
        ("resnet-18", IMAGENET, 11_689_512),  # torchvision's table of pretrained weights
        ("resnet-50", IMAGENET, 25_557_032),  # torchvision's table of pretrained weights
        # He et al. 2015, table 6, reports 0.27M, which is 269,722 with zero-padded shortcuts (432 + 32 for the stem,
        # 6 * (2304 + 32), 4608 + 9216 * 5 + 6 * 64, 18432 + 36864 * 5 + 6 * 128, 650). Two projections are added here.
        ("resnet-20", CIFAR, 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)),
    ],
)
def test_trainable_parameters_are_as_published(variant: str, data: DataInfo, trainable: int) -> None:
    parameters = ResNet().parameters(config(variant), data)
    assert sum(math.prod(p.shape) for p in parameters if p.trainable) == trainable


@pytest.mark.parametrize("variant", list(ResNet.variants))
def test_only_running_statistics_are_not_trainable_and_only_kernels_decay(variant: str) -> None:
    parameters = ResNet().parameters(config(variant), CIFAR)
    assert len({p.name for p in parameters}) == len(parameters)
    for parameter in parameters:
        assert parameter.trainable == ("running_" not in parameter.name)
        assert parameter.decay == (len(parameter.shape) > 1)


def test_kernels_are_initialized_by_fan_out_and_normalization_as_identity() -> None:
    weights = initial_weights(ResNet().parameters(config("resnet-20"), CIFAR), seed=0)
    kernel = weights["resnet.encoder.stages.2.layers.1.layer.0.convolution.weight"]
    assert kernel.shape == (64, 64, 3, 3)
    assert kernel.std() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    norm = "resnet.embedder.embedder.normalization"
    assert weights[f"{norm}.weight"].tolist() == weights[f"{norm}.running_var"].tolist() == [1.0] * 16
    assert weights[f"{norm}.bias"].tolist() == weights[f"{norm}.running_mean"].tolist() == [0.0] * 16
    assert abs(weights["classifier.1.weight"]).max() <= 1 / 8


def test_gray_images_change_the_first_kernel_only() -> None:
    color = ResNet().parameters(config("resnet-18"), IMAGENET)
    gray = ResNet().parameters(config("resnet-18"), info(224, 224, 1, 1000))
    assert [(a.name, b.shape) for a, b in zip(color, gray, strict=True) if a.shape != b.shape] == [
        ("resnet.embedder.embedder.convolution.weight", (64, 1, 7, 7))
    ]


def test_flops_of_a_small_network_agree_with_a_count_by_hand() -> None:
    tiny = ResNetConfig(embedding_size=4, hidden_sizes=(4, 8), depths=(1, 1), layer_type="basic", stem="small")
    stem = 9 * 9 * 9 * 3 * 4
    first = 2 * (9 * 9 * 9 * 4 * 4)
    # A 9 x 9 image is reduced to 5 x 5, because padding rounds up.
    second = 5 * 5 * (4 * 8 + 9 * 4 * 8 + 9 * 8 * 8)
    assert ResNet().flops_per_sample(tiny, info(9, 9, 3, 10)) == 2 * (stem + first + second + 8 * 10)


@pytest.mark.parametrize(
    ("variant", "data", "multiply_adds"),
    [
        ("resnet-18", IMAGENET, 1.814e9),  # torchvision's table: 1.81 and 4.09
        ("resnet-50", IMAGENET, 4.089e9),
        ("resnet-20", CIFAR, 40.8e6),
    ],
)
def test_flops_are_twice_the_published_multiply_adds(variant: str, data: DataInfo, multiply_adds: float) -> None:
    assert ResNet().flops_per_sample(config(variant), data) == pytest.approx(2 * multiply_adds, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depths": [1, 1]}, "hidden_sizes and depths must each contain one number per stage, got 4 and 2"),
        ({"hidden_sizes": [], "depths": []}, "one number per stage"),
        ({"depths": [3, 0, 6, 3]}, "must be at least 1"),
        ({"hidden_sizes": [256, 510, 1024, 2048]}, "multiples of 4"),
        ({"layer_type": "dense"}, "Invalid enum value 'dense'"),
        ({"stem": "large"}, "Invalid enum value 'large'"),
        ({"width": 3}, "unknown field `width`"),
    ],
)
def test_invalid_sizes_are_rejected(values: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(values, ResNetConfig)
