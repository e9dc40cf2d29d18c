"""The ``california-housing`` dataset: house values by census block group."""

from __future__ import annotations

import csv
from pathlib import Path

from harness import DataError, Dataset, RawData, RawInput, RemoteFile, SeededSplit, Split, holdout, installed

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1
NUMBERS = (
    *("longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms"),
    *("population", "households", "median_income"),
)
CATEGORY, TARGET = "ocean_proximity", "median_house_value"


class CaliforniaHousing(Dataset[SeededSplit]):
    """Median house values of 20,640 California census block groups (1990), with nine feature columns.

    The dataset is Geron's variant of Pace and Barry's data. As in the census, several columns contain totals per block
    group. One column is categorical (``ocean_proximity``, five categories), and 207 values of ``total_bedrooms`` are
    missing. There is no published split. The test split contains 20% of the rows, and the validation split contains 10%
    of the remaining rows. The splits are drawn with the seed ``split_seed``. Neighboring block groups may be in
    different splits.

    Inputs: ``features``, float64 ``[N, 8]``, not standardized (degrees, years, counts, 10,000 US dollars), NaN where a
    value is missing; ``categories``, object array of str ``[N, 1]``. Targets: float64 ``[N, 1]``, in US dollars, capped
    at 500,001 (965 rows). Published results usually report RMSE or the mean absolute error.
    """

    name = "california-housing"
    kind = "table"
    objective = "regression"
    summary = "house values of 20,640 block groups, with categories and missing values (1990 census)"
    license = "public data (StatLib, Pace and Barry 1997); the publisher's repository is Apache-2.0"
    homepage = "https://github.com/ageron/handson-ml2/tree/master/datasets/housing"
    citation = "Pace and Barry 1997, Sparse Spatial Autoregressions, Statistics and Probability Letters 33(3)"
    notes = "There is no published split. Splits are drawn at random with a seed."
    examples = {"train": 14_861, "validation": 1_651, "test": 4_128}
    inputs = {
        "features": RawInput(shape=(len(NUMBERS),), dtype="float64"),
        "categories": RawInput(shape=(1,), dtype="str"),
    }
    label_names = (TARGET,)
    metric = "rmse"
    Options = SeededSplit
    files = (
        RemoteFile(
            url=(
                "https://raw.githubusercontent.com/ageron/handson-ml2/"
                "1e2115277b50f6c584cd668fa30e3af309a5b136/datasets/housing/housing.tgz"
            ),
            sha256="d4cd501af90475f09b814c7447c7701f59bf28e8cf1180205ae5ace9737a0109",
            bytes=409_488,
            extract=True,
        ),
    )

    def load(self, options: SeededSplit) -> RawData:
        return read(installed(self), options)


def read(folder: Path, options: SeededSplit) -> RawData:
    """Read ``housing.csv`` in `folder` and split it."""
    import numpy as np

    path = folder / "housing.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        numbers = np.array([[float(row[name] or "nan") for name in NUMBERS] for row in rows])
        targets = np.array([[float(row[TARGET])] for row in rows])
        categories = np.array([[row[CATEGORY]] for row in rows], dtype=object)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} does not have the expected numeric columns: {error}") from error
    everything = Split(inputs={"features": numbers, "categories": categories}, targets=targets)
    rest, test = holdout(np.zeros(len(rows)), TEST_SHARE, seed=options.split_seed)
    kept, held = holdout(np.zeros(len(rest)), VALIDATION_SHARE, seed=options.split_seed)
    return RawData(
        train=everything.take(rest[kept]),
        validation=everything.take(rest[held]),
        test=everything.take(test),
        label_names=(TARGET,),
        details={"target_unit": "USD"},
        feature_names=tuple(NUMBERS),
        category_names=(CATEGORY,),
    )
