"""The ``digits`` dataset: small grayscale images of handwritten digits, distributed with scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness import Dataset, RawData, RawInput, SeededSplit, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1
PIXEL_MAX = 16


class Digits(Dataset[SeededSplit]):
    """1797 images of the digits 0 to 9: 1257 for training, 180 for validation and 360 for testing.

    Inputs: ``image``, uint8 ``[N, 8, 8, 1]``, 0 (paper) to 16 (ink). Each value is the number of inked pixels in a 4 x
    4 block of the 32 x 32 scan. ``details["pixel_max"]`` is 16.

    The images come from scikit-learn's ``load_digits``, which provides the test part of "Optical Recognition of
    Handwritten Digits" (Alpaydin and Kaynak 1998, UCI repository, doi:10.24432/C50P49). This part has no published
    split, and its 13 writers are not identified. The splits are therefore drawn at random within each class, and a
    writer's digits may be in more than one split.
    """

    name = "digits"
    kind = "image"
    objective = "classification"
    summary = "1797 handwritten digits, 8x8 grayscale (scikit-learn, from UCI)"
    license = "CC BY 4.0 (UCI Machine Learning Repository)"
    homepage = "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits"
    citation = "Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49"
    notes = (
        "There is no published split. Splits are drawn at random with a seed within each class; a writer's digits may "
        "be in several splits."
    )
    examples = {"train": 1_257, "validation": 180, "test": 360}
    inputs = {"image": RawInput(shape=(8, 8, 1), dtype="uint8")}
    label_names = tuple("0123456789")
    metric = "accuracy"
    target = 0.95
    Options = SeededSplit
    recipes = {
        "resnet-20": {"epochs": 20, "batch_size": 64, "learning_rate": 0.2, "weight_decay": 5e-3},
        "linear": {"epochs": 30, "learning_rate": 0.01},
        "mlp": {"epochs": 30, "weight_decay": 0.1, "dropout": 0.2},
    }

    def load(self, options: SeededSplit) -> RawData:
        """Read the images from the installed scikit-learn, without downloading anything."""
        import numpy as np
        from sklearn.datasets import load_digits

        source = load_digits()
        data = Split(
            inputs={"image": source.images.astype(np.uint8)[..., None]}, targets=source.target.astype(np.int64)
        )
        train, validation, test = split_indices(data.targets, options.split_seed)
        return RawData(
            train=data.take(train),
            validation=data.take(validation),
            test=data.take(test),
            label_names=self.label_names,
            details={"pixel_max": PIXEL_MAX},
        )


def split_indices(targets: NDArray[np.int64], seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the indices of the training, validation and test examples, stratified by class."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    rest, test = train_test_split(
        np.arange(len(targets)), test_size=TEST_SHARE, random_state=seed, stratify=targets, shuffle=True
    )
    train, validation = train_test_split(
        rest, test_size=VALIDATION_SHARE / (1 - TEST_SHARE), random_state=seed, stratify=targets[rest], shuffle=True
    )
    return train, validation, test
