"""The interfaces of data plugins, `Dataset` and `Task`, and the arrays that they exchange."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple

from msgspec import Struct
from typing_extensions import TypeVar

from harness.interfaces.remote import RemoteFile
from harness.records import DataInfo, Objective, Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Augment = Callable[[dict[str, Array], np.random.Generator], dict[str, Array]]

OptionsT = TypeVar("OptionsT", bound=Struct, default=Any)


class RawInput(Struct, frozen=True, kw_only=True):
    """Shape and dtype of one input of a dataset, for a single example, before a task prepares it."""

    shape: tuple[int | None, ...]
    """Shape without the batch axis. None stands for an axis whose length varies between examples, such as that of a
    waveform; ``()`` is the shape of a text."""
    dtype: str
    """Name of the numpy dtype, or ``str``."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Examples in a fixed order."""

    inputs: Mapping[str, Array]
    """Arrays ``[N, ...]`` by input name.

    Raw data may contain object arrays: ``text`` holds a str and ``waveform`` a float32 array ``[samples]`` in [-1, 1]
    for each example. Prepared data contains numeric arrays only. A large input may be an object that reads its rows
    from a file; it has ``shape``, ``dtype`` and ``len``, accepts an int array or a slice as index, and can be converted
    by ``np.asarray``.
    """
    targets: Array
    """Class indices, int64 ``[N]``; regression targets, float ``[N, T]``; or, for token classification, class indices
    of the positions, int64 ``[N, L]``, with `harness.IGNORED` at positions without a target. Every example has at least
    one position with a target."""
    groups: Mapping[str, Array] = field(default_factory=dict)
    """Arrays ``[N]`` by group name, such as the speaker of each example."""

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.targets)

    def take(self, index: Array) -> Split:
        """Select examples by their positions.

        Parameters
        ----------
        index : ndarray of int
            Positions ``[M]`` of the examples, which may repeat.

        Returns
        -------
        Split
            The examples at `index`, in that order.
        """
        return Split(
            inputs={name: array[index] for name, array in self.inputs.items()},
            targets=self.targets[index],
            groups={name: array[index] for name, array in self.groups.items()},
        )


@dataclass(frozen=True, kw_only=True)
class RawData:
    """The three splits of a dataset as loaded, before anything is fitted.

    The splits are those that were published, or they are drawn with a fixed seed.
    """

    train: Split
    """Training examples."""
    validation: Split
    """Validation examples."""
    test: Split
    """Test examples."""
    label_names: tuple[str, ...] = ()
    """Names of the classes, in the order of their indices; for regression, names of the targets."""
    details: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Facts that the task needs, such as ``sample_rate_hz``, or ``target_unit`` for regression."""


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """The numeric arrays that a task prepares from raw data, for every backend.

    Preprocessing steps are fitted on the training split only.
    """

    train: Split
    """Training examples."""
    validation: Split
    """Validation examples."""
    test: Split
    """Test examples."""
    info: DataInfo
    """Description of the data, from which models are sized."""
    digest: str = ""
    """SHA-256 (hex) of all arrays of all splits, which the core computes."""
    augment: Augment | None = None
    """Function that augments the inputs of a training batch, which the core sets from `Task.augment`; None for no
    augmentation."""


class Batch(NamedTuple):
    """Inputs and targets of one step, in host memory."""

    inputs: dict[str, Array]
    """C-contiguous arrays ``[B, ...]`` by input name."""
    targets: Array
    """Int64 ``[B]``, float32 ``[B, T]``, or int64 ``[B, L]`` for token classification."""


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Empty options, for plugins that have none."""


class SeededSplit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a dataset without published splits, whose splits are drawn at random.

    Subclass it to add options.
    """

    split_seed: int = 0
    """Seed of the random split, from 0 to 2^32 - 1. Other values show how much a score depends on the split."""

    def __post_init__(self) -> None:
        """Raise `ValueError` if `split_seed` is out of range."""
        if not 0 <= self.split_seed < 2**32:
            raise ValueError(f"split_seed must be between 0 and 2^32 - 1, got {self.split_seed}")


class Dataset(ABC, Generic[OptionsT]):
    """A named dataset.

    Subclass it, set the class attributes and implement `load`. The type parameter of ``Dataset[MyOptions]`` is the type
    of the options that `load` receives; set `Options` to the same class.
    """

    name: ClassVar[str]
    """Name of the dataset, as in ``--dataset``."""
    kind: ClassVar[str]
    """Kind of raw input, which selects the tasks: ``text``, ``image``, ``audio`` or ``table``."""
    objective: ClassVar[Objective]
    """Objective that the targets are for."""
    summary: ClassVar[str]
    """One-line description."""
    license: ClassVar[str]
    """License of the data, as an SPDX identifier if there is one."""
    Options: ClassVar[type[Struct]] = NoOptions
    """Struct of the options that ``--set dataset.<field>=`` changes."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Changes to the training recipe by model variant or family, tuned on the validation split of this dataset."""
    fine_tuning: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Changes to the recipe of models that start from a checkpoint, by model family."""
    task_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Task options that suit this dataset, such as the vocabulary size, by task name."""
    requires: ClassVar[Mapping[str, str]] = {}
    """Required modules and the commands that install them. They are looked up before anything runs."""
    files: ClassVar[Sequence[RemoteFile]] = ()
    """Files to download from the publisher; empty if the data is part of the plugin."""
    homepage: ClassVar[str] = ""
    """URL of the dataset's web page."""
    citation: ClassVar[str] = ""
    """BibTeX entry or plain reference."""
    notes: ClassVar[str] = ""
    """Caveats for users who quote a result, such as withheld labels."""
    examples: ClassVar[Mapping[str, int]] = {}
    """Number of examples of ``train``, ``validation`` and ``test``.

    `examples`, `inputs` and `label_names` describe the data loaded with default options. ``harness data info`` shows
    them, and `harness.testing.assert_as_declared` compares them with the loaded data.
    """
    inputs: ClassVar[Mapping[str, RawInput]] = {}
    """Shape and dtype of each input, by name."""
    label_names: ClassVar[Sequence[str]] = ()
    """Names of the classes, in the order of their indices; for regression, names of the targets."""
    metric: ClassVar[str] = ""
    """Metric that the literature on this dataset reports, by its name in ``harness list metrics`` if it is listed."""
    target: ClassVar[float | None] = None
    """Validation score, in the task's primary metric, for which time-to-target is measured; None to measure none."""
    splits: ClassVar[Sequence[int]] = ()
    """Values of the option ``split``, if several splits were published; ``--split all`` runs each of them."""

    @abstractmethod
    def load(self, options: OptionsT) -> RawData:
        """Load the splits.

        Parameters
        ----------
        options : Options
            Instance of `Options`.

        Returns
        -------
        RawData
            The three splits. The same options give the same arrays in the same order.

        Raises
        ------
        harness.DataError
            If the data is missing or damaged.

        Notes
        -----
        ``harness.installed(self)`` returns the folder that contains the `files`.
        """


class Task(ABC, Generic[OptionsT]):
    """Preprocessing, objective, metrics and defaults for one kind of data.

    Subclass it, set the class attributes and implement `prepare`. The type parameter of ``Task[MyOptions]`` is the type
    of the options that `prepare` and `augment` receive; set `Options` to the same class.
    """

    name: ClassVar[str]
    """Name of the task, as in ``--task``."""
    kind: ClassVar[str]
    """Kind of raw input that the task takes, equal to `Dataset.kind` of its datasets."""
    produces: ClassVar[str]
    """Kind of prepared input (`DataInfo.kind`), which models list in `Model.accepts`."""
    objective: ClassVar[Objective]
    """Objective of the training."""
    summary: ClassVar[str]
    """One-line description."""
    default_dataset: ClassVar[str]
    """Name of the dataset to use if none is given."""
    default_model: ClassVar[str]
    """Name of the model to use if none is given."""
    metric: ClassVar[str]
    """Name of the primary metric."""
    metrics: ClassVar[Sequence[str]]
    """Names of all metrics that are reported, including the primary one."""
    recipe: ClassVar[Recipe] = Recipe()
    """Default training recipe."""
    Options: ClassVar[type[Struct]] = NoOptions
    """Struct of the options that ``--set task.<field>=`` changes."""
    reported: ClassVar[Sequence[str]] = ()
    """Names of `DataInfo.details` that are computed from the validation or test split for reporting only."""

    @abstractmethod
    def prepare(self, data: RawData, options: OptionsT) -> PreparedData:
        """Turn raw data into numeric arrays.

        The result must be deterministic, and preprocessing steps must be fitted on ``data.train`` only.

        Parameters
        ----------
        data : RawData
            Raw splits, which the core has checked: no split is empty, inputs and groups have one entry for each
            example, and targets are class indices of ``data.label_names``, or finite numbers ``[N, T]`` for regression.
        options : Options
            Instance of `Options`.

        Returns
        -------
        PreparedData
            The prepared splits, with one example for each raw example, in the same order.
        """

    def checkpoint_options(self, folder: Path) -> Mapping[str, Any]:
        """Return options that prepare data as a pretrained checkpoint expects, such as its tokenizer.

        Parameters
        ----------
        folder : Path
            Folder of the checkpoint.

        Returns
        -------
        mapping of str to Any
            Values of `Options`. A value may be `folder` itself; the run's key then contains the digest of the
            checkpoint instead of the path.
        """
        return {}

    def augment(
        self, inputs: dict[str, Array], info: DataInfo, options: OptionsT, rng: np.random.Generator
    ) -> dict[str, Array]:
        """Augment the inputs of one training batch. By default, return them unchanged.

        The core calls this method before a backend receives the batch, so that every backend trains on the same arrays.
        Its duration is part of the training time.

        Parameters
        ----------
        inputs : dict of str to ndarray
            Arrays ``[B, ...]`` by input name, which may be overwritten.
        info : DataInfo
            Description of the prepared data, including the details that `prepare` computed.
        options : Options
            Instance of `Options`.
        rng : numpy.random.Generator
            Generator seeded from the run's seed and the epoch. Use no other source of randomness.

        Returns
        -------
        dict of str to ndarray
            Augmented inputs, with unchanged shapes and dtypes.
        """
        return inputs
