"""The ``diabetes`` dataset: disease progression of 442 patients, distributed with scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness import Dataset, RawData, RawInput, SeededSplit, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1


class Diabetes(Dataset[SeededSplit]):
    """Ten measurements for each of 442 patients: 308 for training, 45 for validation and 89 for testing.

    Inputs: ``features``, float64 ``[N, 10]``, not standardized: age (years), sex (1 or 2), body mass index (kg/m^2),
    mean blood pressure (mm Hg) and six blood serum values s1 to s6. The values s1 to s4 are nearly linearly dependent.
    Targets: float64 ``[N, 1]``, a score of disease progression after one year, from 25 to 346.

    The data were published by Efron, Hastie, Johnstone and Tibshirani (2004, "Least Angle Regression", Annals of
    Statistics 32(2)), and are read with scikit-learn's ``load_diabetes``. There is no published split, so the splits
    are drawn at random.
    """

    name = "diabetes"
    kind = "table"
    objective = "regression"
    summary = "disease progression of 442 patients, predicted from 10 measurements (scikit-learn)"
    license = "published with Efron et al. 2004; distributed with scikit-learn (BSD-3-Clause)"
    homepage = "https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html"
    citation = "Efron, Hastie, Johnstone and Tibshirani 2004, Least Angle Regression, Annals of Statistics 32(2)"
    notes = "There is no published split. Splits are drawn at random with a seed."
    examples = {"train": 308, "validation": 45, "test": 89}
    inputs = {"features": RawInput(shape=(10,), dtype="float64")}
    label_names = ("progression",)
    metric = "r2"
    target = 55.0
    Options = SeededSplit
    recipes = {
        # The serum values s1 to s4 are nearly dependent (the condition number of the standardized features is 21).
        # Reaching the least-squares solution takes many steps, momentum, and a learning rate that decays to zero.
        "linear": {
            "epochs": 200,
            "batch_size": 32,
            "optimizer": "sgd",
            "learning_rate": 0.03,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "schedule": "cosine",
        },
        # With 308 training examples, little more than a linear relation can be learned, so regularization is strong.
        "mlp": {"epochs": 30, "weight_decay": 3.0, "dropout": 0.2},
        "mlp-50": {"epochs": 60, "weight_decay": 0.3, "dropout": 0.3},
    }

    def load(self, options: SeededSplit) -> RawData:
        """Read the table from the installed scikit-learn, without downloading anything."""
        from sklearn.datasets import load_diabetes

        source = load_diabetes(scaled=False)
        data = Split(inputs={"features": source.data}, targets=source.target[:, None])
        train, validation, test = split_indices(len(data), options.split_seed)
        return RawData(
            train=data.take(train),
            validation=data.take(validation),
            test=data.take(test),
            label_names=self.label_names,
            details={"target_unit": "points"},
            feature_names=tuple(source.feature_names),
        )


def split_indices(rows: int, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the indices of the training, validation and test rows."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    rest, test = train_test_split(np.arange(rows), test_size=TEST_SHARE, random_state=seed)
    train, validation = train_test_split(rest, test_size=VALIDATION_SHARE / (1 - TEST_SHARE), random_state=seed)
    return train, validation, test
