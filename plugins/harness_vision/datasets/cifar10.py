"""The ``cifar10`` dataset: 32x32 color images, read from the publisher's binary version."""

from __future__ import annotations

from pathlib import Path

from harness import DataError, Dataset, NoOptions, RawData, RawInput, RemoteFile, Split, holdout, installed

SIDE = 32
_RECORD = 1 + 3 * SIDE * SIDE
VALIDATION_SHARE = 0.1


class Cifar10(Dataset):
    """60,000 color images in ten balanced classes: 50,000 for training and 10,000 for testing.

    Inputs: ``image``, uint8 ``[N, 32, 32, 3]``, in RGB order. The validation split is 10% of the training images in
    each class (45,000 / 5,000, as in He et al. 2016). Published results usually report accuracy (or error), mostly with
    random 4-pixel crops and flips in training: ``--set task.crop=4 --set task.flip=true``.

    **The full download has not been tested.** The format is documented on the publisher's page under "Binary version".
    Each record has 3,073 bytes: the class, followed by 1,024 bytes each of red, green and blue in row-major order. The
    URL, size and SHA-256 come from TensorFlow Datasets (``url_checksums/cifar10.txt``).
    """

    name = "cifar10"
    kind = "image"
    objective = "classification"
    summary = "60,000 color images, 32x32, 10 classes (Toronto)"
    license = "not stated by the publisher, who asks for a citation"
    homepage = "https://www.cs.toronto.edu/~kriz/cifar.html"
    citation = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images, technical report"
    notes = "Implemented from the publisher's documented format; the full download has not been tested."
    examples = {"train": 45_000, "validation": 5_000, "test": 10_000}
    inputs = {"image": RawInput(shape=(SIDE, SIDE, 3), dtype="uint8")}
    label_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    metric = "accuracy"
    files = (
        RemoteFile(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            bytes=170_052_171,
            extract=True,
        ),
    )

    def load(self, options: NoOptions) -> RawData:
        return read(installed(self))


def read(folder: Path) -> RawData:
    """Read the splits from ``cifar-10-batches-bin`` in `folder`.

    The files are ``data_batch_{1..5}.bin``, ``test_batch.bin`` and ``batches.meta.txt`` (one class name per line).
    """
    folder = folder / "cifar-10-batches-bin"
    names = (folder / "batches.meta.txt").read_text(encoding="ascii").split()
    train = _read([folder / f"data_batch_{number}.bin" for number in range(1, 6)], len(names))
    kept, held = holdout(train.targets, VALIDATION_SHARE)
    return RawData(
        train=train.take(kept),
        validation=train.take(held),
        test=_read([folder / "test_batch.bin"], len(names)),
        label_names=tuple(names),
    )


def _read(paths: list[Path], classes: int) -> Split:
    import numpy as np

    parts = []
    for path in paths:
        content = np.fromfile(path, np.uint8)
        if not len(content) or len(content) % _RECORD:
            raise DataError(f"{path} has {len(content)} bytes; expected a multiple of {_RECORD}, the size of a record")
        parts.append(content.reshape(-1, _RECORD))
        if parts[-1][:, 0].max() >= classes:
            raise DataError(f"{path} has the class {parts[-1][:, 0].max()}; batches.meta.txt lists {classes} classes")
    records = np.concatenate(parts)
    images = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Split(inputs={"image": np.ascontiguousarray(images)}, targets=records[:, 0].astype(np.int64))
