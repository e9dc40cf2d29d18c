"""The ``wine-quality`` dataset: tasters' scores of Portuguese wines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from harness import DataError, Dataset, RawData, RawInput, RemoteFile, SeededSplit, Split, holdout, installed

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1
_AT = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/"


class WineQualityOptions(SeededSplit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for the ``wine-quality`` dataset."""

    wines: Literal["red", "white", "both"] = "both"
    """Wines to load. With ``both``, an additional feature is 1 for red and 0 for white wines."""


class WineQuality(Dataset[WineQualityOptions]):
    """Median taster scores (3 to 9) of 1,599 red and 4,898 white wines, with eleven measurements per wine.

    Inputs: ``features``, float64 ``[N, 11]``, not standardized: fixed, volatile and citric acid, residual sugar,
    chlorides (g/dm^3), free and total sulfur dioxide (mg/dm^3), density (g/cm^3), pH, sulphates (g/dm^3) and alcohol (%
    by volume). If both red and white wines are loaded, a twelfth feature is 1 for red and 0 for white. Targets: float64
    ``[N, 1]``. Groups: ``wine``, ``red`` or ``white``.

    There is no published split. The test split contains 20% of the rows, and the validation split contains 10% of the
    rest. The splits are drawn with the seed ``split_seed``. Wines with identical measurements are always in the same
    split. Of the 6,497 rows, 1,177 are duplicates of another row. Published results usually report the mean absolute
    error or the RMSE.
    """

    name = "wine-quality"
    kind = "table"
    objective = "regression"
    summary = "tasters' scores of 6,497 wines, predicted from 11 measurements (UCI)"
    license = "CC BY 4.0 (UCI Machine Learning Repository)"
    homepage = "https://archive.ics.uci.edu/dataset/186/wine+quality"
    citation = "Cortez et al. 2009, Modeling wine preferences by data mining from physicochemical properties, DSS 47(4)"
    notes = (
        "There is no published split. Splits are drawn at random with a seed; wines with identical measurements are "
        "always in the same split. Use --set dataset.wines=red or dataset.wines=white to load only one kind of wine, "
        "with eleven features."
    )
    examples = {"train": 4_677, "validation": 520, "test": 1_300}
    inputs = {"features": RawInput(shape=(12,), dtype="float64")}
    label_names = ("quality",)
    metric = "mae"
    Options = WineQualityOptions
    files = (
        RemoteFile(
            url=_AT + "winequality-red.csv",
            sha256="4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e",
            bytes=84_199,
        ),
        RemoteFile(
            url=_AT + "winequality-white.csv",
            sha256="76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
            bytes=264_426,
        ),
    )

    def load(self, options: WineQualityOptions) -> RawData:
        return read(installed(self), options)


def read(folder: Path, options: WineQualityOptions) -> RawData:
    """Read ``winequality-red.csv`` and ``winequality-white.csv`` in `folder` and split the rows."""
    import numpy as np

    wines = ("red", "white") if options.wines == "both" else (options.wines,)
    tables = [_read(folder / f"winequality-{wine}.csv") for wine in wines]
    table = np.concatenate(tables)
    wine = np.repeat(wines, [len(one) for one in tables])
    features = table[:, :-1]
    if options.wines == "both":
        features = np.column_stack([features, wine == "red"])
    everything = Split(inputs={"features": features}, targets=table[:, -1:], groups={"wine": wine})
    same = np.unique(features, axis=0, return_inverse=True)[1].ravel()
    rest, test = holdout(wine, TEST_SHARE, seed=options.split_seed, groups=same)
    kept, held = holdout(wine[rest], VALIDATION_SHARE, seed=options.split_seed, groups=same[rest])
    return RawData(
        train=everything.take(rest[kept]),
        validation=everything.take(rest[held]),
        test=everything.take(test),
        label_names=("quality",),
        details={"target_unit": "points"},
    )


def _read(path: Path) -> Any:
    import numpy as np

    try:
        table = np.loadtxt(path, delimiter=";", skiprows=1, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if table.shape[1] != 12:
        raise DataError(f"{path} has {table.shape[1]} columns; expected 12: eleven measurements and the quality")
    return table
