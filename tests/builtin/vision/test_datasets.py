"""Tests of the standard image datasets, on small generated files and on the downloaded files if present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness_vision.datasets import cifar10, mnist
from numpy.typing import NDArray
from real_files import load_real

from harness import DataError, Dataset, RawData


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(header + array.tobytes())


def trained_counts(data: RawData) -> list[int]:
    """Return the number of images of each class in the publisher's training files."""
    return np.bincount(np.concatenate([data.train.targets, data.validation.targets])).tolist()


@pytest.fixture
def small_mnist(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 100), ("t10k", 20)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


def test_mnist_holds_out_a_tenth_of_every_class(small_mnist: Path) -> None:
    data = mnist.read(small_mnist, [str(digit) for digit in range(10)])
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert data.train.inputs["image"].shape == (90, 28, 28, 1)
    assert data.train.inputs["image"].dtype == np.uint8
    assert sorted(data.validation.targets) == list(range(10))
    assert np.bincount(data.test.targets).tolist() == [2] * 10
    assert data.label_names == tuple("0123456789")
    images = mnist.read_idx(small_mnist / "t10k-images-idx3-ubyte")
    assert (data.test.inputs["image"][..., 0] == images).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "not an IDX file"),
        (b"", "not an IDX file"),
        (bytes([0, 0, 9, 1, 0, 0, 0, 1, 7]), "not an IDX file"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 2, 7]), "has 1 values"),
    ],
)
def test_invalid_idx_files_are_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        mnist.read_idx(path)


@pytest.mark.parametrize(
    ("dataset", "trained", "tested", "names"),
    [
        (
            mnist.Mnist(),
            [5_923, 6_742, 5_958, 6_131, 5_842, 5_421, 5_918, 6_265, 5_851, 5_949],
            [980, 1_135, 1_032, 1_010, 982, 892, 958, 1_028, 974, 1_009],
            ("0", "9"),
        ),
        (mnist.FashionMnist(), [6_000] * 10, [1_000] * 10, ("T-shirt/top", "Ankle boot")),
    ],
    ids=["mnist", "fashion-mnist"],
)
def test_mnist_as_published(
    real_data: None, dataset: Dataset, trained: list[int], tested: list[int], names: tuple[str, str]
) -> None:
    data = load_real(dataset)
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert trained_counts(data) == trained
    assert np.bincount(data.test.targets).tolist() == tested
    assert data.test.inputs["image"].shape == (10_000, 28, 28, 1)
    assert (len(data.label_names), data.label_names[0], data.label_names[-1]) == (10, *names)


def test_fashion_mnist_has_the_published_mean(real_data: None) -> None:
    data = load_real(mnist.FashionMnist())
    images = np.concatenate([data.train.inputs["image"], data.validation.inputs["image"]])
    assert images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)  # the value commonly used for normalization


def write_cifar(folder: Path, each: int) -> NDArray[np.uint8]:
    """Write files in the documented format, and return the records of the test batch."""
    folder.mkdir()
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (6, each, 3073), np.uint8)
    records[:, :, 0] = np.arange(each) % 10
    for number in range(5):
        records[number].tofile(folder / f"data_batch_{number + 1}.bin")
    records[5].tofile(folder / "test_batch.bin")
    return records[5]


def test_cifar10_reads_color_planes(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    records = write_cifar(folder, 20)
    data = cifar10.read(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert trained_counts(data) == [10] * 10
    assert data.train.inputs["image"].dtype == np.uint8
    assert data.label_names == tuple(cifar10.Cifar10.label_names)
    image = data.test.inputs["image"][3]
    assert image.shape == (32, 32, 3)
    for row, column, color in ((0, 0, 0), (0, 31, 1), (5, 2, 2), (31, 31, 0)):
        assert image[row, column, color] == records[3, 1 + 1024 * color + 32 * row + column]
    assert data.test.targets.tolist() == [*range(10)] * 2
    (folder / "test_batch.bin").write_bytes(b"\x00" * 3072)
    with pytest.raises(DataError, match="3072 bytes; expected a multiple of 3073"):
        cifar10.read(tmp_path)
    (folder / "test_batch.bin").write_bytes(b"\x0b" * 3073)
    with pytest.raises(DataError, match="class 11"):
        cifar10.read(tmp_path)


def test_cifar10_as_published(real_data: None) -> None:
    data = load_real(cifar10.Cifar10())
    assert data.train.inputs["image"].shape == (45_000, 32, 32, 3)
    assert trained_counts(data) == [5_000] * 10
    assert np.bincount(data.test.targets).tolist() == [1_000] * 10
    assert (data.label_names[0], data.label_names[-1]) == ("airplane", "truck")
