"""The ``breast-cancer`` dataset: diagnoses of 569 breast masses, distributed with scikit-learn."""

from __future__ import annotations

from harness import Dataset, RawData, RawInput, SeededSplit, Split, holdout

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1


class BreastCancer(Dataset[SeededSplit]):
    """Thirty measurements of the cell nuclei in each of 569 breast masses, 357 benign and 212 malignant.

    Inputs: ``features``, float64 ``[N, 30]``, not standardized: the mean, the standard error and the largest values of
    ten properties of the nuclei, such as the radius and the texture. Targets: int64 ``[N]``, 0 for malignant and 1 for
    benign. There is no published split. The splits are drawn at random, stratified by class.

    The data were published by Street, Wolberg and Mangasarian (1993, "Nuclear feature extraction for breast tumor
    diagnosis", SPIE 1905), and are read with scikit-learn's ``load_breast_cancer``.
    """

    name = "breast-cancer"
    kind = "table"
    objective = "classification"
    summary = "diagnosis of 569 breast masses, predicted from 30 measurements of cell nuclei (scikit-learn)"
    license = "CC-BY-4.0"
    homepage = "https://archive.ics.uci.edu/dataset/17/breast+cancer+wisconsin+diagnostic"
    citation = (
        "Street, Wolberg and Mangasarian 1993, Nuclear feature extraction for breast tumor diagnosis, Proc. SPIE 1905"
    )
    notes = "There is no published split. Splits are drawn at random with a seed, stratified by class."
    examples = {"train": 399, "validation": 57, "test": 113}
    inputs = {"features": RawInput(shape=(30,), dtype="float64")}
    label_names = ("malignant", "benign")
    metric = "accuracy"
    target = 0.95
    Options = SeededSplit

    def load(self, options: SeededSplit) -> RawData:
        """Read the table from the installed scikit-learn, without downloading anything."""
        from sklearn.datasets import load_breast_cancer

        source = load_breast_cancer()
        data = Split(inputs={"features": source.data}, targets=source.target.astype("int64"))
        rest, test = holdout(data.targets, TEST_SHARE, seed=options.split_seed)
        train, validation = holdout(data.targets[rest], VALIDATION_SHARE / (1 - TEST_SHARE), seed=options.split_seed)
        return RawData(
            train=data.take(rest[train]),
            validation=data.take(rest[validation]),
            test=data.take(test),
            label_names=self.label_names,
            feature_names=tuple(map(str, source.feature_names)),
        )
