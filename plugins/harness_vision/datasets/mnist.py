"""The ``mnist`` and ``fashion-mnist`` datasets: 28x28 grayscale images in the IDX format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import DataError, Dataset, NoOptions, RawData, RawInput, RemoteFile, Split, holdout, installed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VALIDATION_SHARE = 0.1
_PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_EXAMPLES = {"train": 54_000, "validation": 6_000, "test": 10_000}
_INPUTS = {"image": RawInput(shape=(28, 28, 1), dtype="uint8")}


def _files(urls: Sequence[str], sizes: Sequence[int], digests: Sequence[str]) -> tuple[RemoteFile, ...]:
    """Return the four files. Each entry of `urls` is the URL of a folder that contains all four files, with a trailing
    slash."""
    return tuple(
        RemoteFile(
            url=f"{urls[0]}{part}.gz",
            alternates=tuple(f"{url}{part}.gz" for url in urls[1:]),
            sha256=digest,
            bytes=size,
            extract=True,
        )
        for part, size, digest in zip(_PARTS, sizes, digests, strict=True)
    )


class Mnist(Dataset):
    """70,000 grayscale images of handwritten digits: 60,000 for training, and 10,000 by different writers for testing.

    Inputs: ``image``, uint8 ``[N, 28, 28, 1]``, 0 (paper) to 255 (ink). There are 5,421 to 6,742 training images per
    digit. The validation split is 10% of the training images for each digit. The files do not identify the writers, so
    a writer's digits may be in both the training and validation splits. Published results usually report accuracy (or
    error).
    """

    name = "mnist"
    kind = "image"
    objective = "classification"
    summary = "70,000 handwritten digits, 28x28 grayscale"
    license = "commonly given as CC BY-SA 3.0"
    homepage = "https://yann.lecun.com/exdb/mnist/"
    recipes = {"resnet-20": {"epochs": 3, "batch_size": 128}}
    task_options = {"vision": {"crop": 2}}
    citation = "LeCun, Bottou, Bengio and Haffner 1998, Gradient-Based Learning Applied to Document Recognition, IEEE"
    examples, inputs = _EXAMPLES, _INPUTS
    label_names = tuple("0123456789")
    metric = "accuracy"
    target = 0.99
    files = _files(
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        (9_912_422, 28_881, 1_648_877, 4_542),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    )

    def load(self, options: NoOptions) -> RawData:
        return read(installed(self), self.label_names)


class FashionMnist(Dataset):
    """70,000 grayscale images of clothing and accessories sold by Zalando, in balanced classes: 60,000 for training and
    10,000 for testing.

    Inputs: ``image``, uint8 ``[N, 28, 28, 1]``, 0 (background) to 255. The validation split is 10% of the training
    images in each class. Published results usually report accuracy.
    """

    name = "fashion-mnist"
    kind = "image"
    objective = "classification"
    summary = "70,000 images of clothing, 28x28 grayscale, 10 classes (Zalando)"
    license = "MIT"
    homepage = "https://github.com/zalandoresearch/fashion-mnist"
    recipes = {"resnet-20": {"epochs": 8, "batch_size": 128}}
    task_options = {"vision": {"crop": 2, "flip": True}}
    citation = "Xiao, Rasul and Vollgraf 2017, Fashion-MNIST, arXiv:1708.07747"
    examples, inputs = _EXAMPLES, _INPUTS
    label_names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    metric = "accuracy"
    target = 0.9
    files = _files(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        (26_421_880, 29_515, 4_422_102, 5_148),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    )

    def load(self, options: NoOptions) -> RawData:
        return read(installed(self), self.label_names)


def read(folder: Path, label_names: Sequence[str]) -> RawData:
    """Read the splits from the four IDX files in `folder`."""
    images, labels, test_images, test_labels = (read_idx(folder / part) for part in _PARTS)
    train, test = _split(images, labels), _split(test_images, test_labels)
    kept, held = holdout(train.targets, VALIDATION_SHARE)
    return RawData(train=train.take(kept), validation=train.take(held), test=test, label_names=tuple(label_names))


def _split(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Split:
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(f"images of shape {images.shape} do not match labels of shape {labels.shape}")
    return Split(inputs={"image": images[..., None]}, targets=labels.astype("int64"))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an array of unsigned bytes from an IDX file. Raises `harness.DataError` if the file has a different format.

    The format (http://yann.lecun.com/exdb/mnist/) consists of two zero bytes, the type (8), the number of dimensions,
    the size of each dimension as a big-endian int32, and the values.
    """
    import math

    import numpy as np

    content = path.read_bytes()
    dimensions = content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if not dimensions or len(content) < start:
        raise DataError(f"{path} is not an IDX file of unsigned bytes; it starts with {content[:4].hex(' ')}")
    shape = tuple(np.frombuffer(content, ">i4", dimensions, offset=4).tolist())
    if len(content) - start != math.prod(shape):
        raise DataError(f"{path} has {len(content) - start} values, but its header gives the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
