"""What a data plugin implements, `Dataset` and `Task`, and the arrays between them."""

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
    """One input of a dataset, of a single example (no batch axis), before a task prepares it."""

    shape: tuple[int | None, ...]
    """None for an axis whose length differs between examples, such as a waveform's; ``()`` for a text."""
    dtype: str
    """Numpy's name of it, or ``str``."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Examples in a fixed order.

    ``inputs``: name -> array ``[N, ...]``. Raw data may hold object arrays (``text``: str; ``waveform``: one
    float32 array ``[samples]`` in [-1, 1] an example); prepared data holds plain numeric arrays only, or of large data
    what reads rows from a file: it has ``shape``, ``dtype`` and ``len``, takes an int array or a slice as its index,
    and ``np.asarray`` makes an array in memory of it.
    ``targets``: int64 ``[N]`` class numbers; float ``[N, T]``; or of token classification int64 ``[N, L]``, the class
    of each position, `harness.IGNORED` where none is asked for. Each example has a position that counts.
    ``groups``: name -> array ``[N]``, such as the speaker of each example.
    """

    inputs: Mapping[str, Array]
    targets: Array
    groups: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Array) -> Split:
        """The examples at `index` (int array), in that order."""
        return Split(
            inputs={name: array[index] for name, array in self.inputs.items()},
            targets=self.targets[index],
            groups={name: array[index] for name, array in self.groups.items()},
        )


@dataclass(frozen=True, kw_only=True)
class RawData:
    """What a dataset loads: three splits as published (or made once, with a fixed seed), nothing fitted."""

    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...] = ()
    details: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Facts that the task needs, such as ``sample_rate_hz``; ``target_unit`` for regression."""


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """What a task makes of it: numeric arrays, ready for every backend. Fitted on the training split only."""

    train: Split
    validation: Split
    test: Split
    info: DataInfo
    digest: str = ""
    """SHA-256 (hex) over every array of every split; the core computes it."""
    augment: Augment | None = None
    """Applied to the inputs of every training batch; the core sets it to the task's `Task.augment`."""


class Batch(NamedTuple):
    """`inputs`: name -> C-contiguous array ``[B, ...]``; `targets`: int64 ``[B]``, float32 ``[B, T]`` or
    int64 ``[B, L]``."""

    inputs: dict[str, Array]
    targets: Array


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of plugins that have none."""


class SeededSplit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a dataset without a published split, whose splits are drawn at random. Subclass it to add others."""

    split_seed: int = 0
    """Which random split; other values show how far a score depends on the split."""

    def __post_init__(self) -> None:
        if not 0 <= self.split_seed < 2**32:
            raise ValueError(f"split_seed must lie between 0 and 2^32 - 1, got {self.split_seed}")


class Dataset(ABC, Generic[OptionsT]):
    """A named dataset. Subclass it, set the class attributes and implement `load`.

    ``Dataset[MyOptions]`` types the argument of `load`, where `Options` is ``MyOptions``.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    """Kind of the raw input that tasks ask for: ``text``, ``image``, ``audio``, ``table``."""
    objective: ClassVar[Objective]
    summary: ClassVar[str]
    license: ClassVar[str]
    Options: ClassVar[type[Struct]] = NoOptions
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Model variant or family -> changes to the recipe, found on this dataset's validation split."""
    fine_tuning: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Model family -> changes to the recipe of a model that starts from a checkpoint."""
    task_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Task -> its options that suit this dataset: the size of the vocabulary, augmentation, ..."""
    requires: ClassVar[Mapping[str, str]] = {}
    """Importable module -> command that installs it; asked before anything runs."""
    files: ClassVar[Sequence[RemoteFile]] = ()
    """What is fetched from the publisher; empty for embedded data."""
    homepage: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    """BibTeX or a plain reference."""
    notes: ClassVar[str] = ""
    """What a user should know before quoting a figure, such as labels that are withheld."""
    examples: ClassVar[Mapping[str, int]] = {}
    """``train``, ``validation`` and ``test`` -> number of examples. This and the next two tell what `load` gives with
    the options' defaults; ``harness data info`` shows them, and `harness.testing.assert_as_declared` checks them."""
    inputs: ClassVar[Mapping[str, RawInput]] = {}
    """Name of each input -> its shape and dtype."""
    label_names: ClassVar[Sequence[str]] = ()
    """Names of the classes, in the order of their numbers; of regression, of the targets."""
    metric: ClassVar[str] = ""
    """What the literature on this dataset reports first, by its name in ``harness list metrics`` where it has one."""
    target: ClassVar[float | None] = None
    """Validation score, by the task's primary metric, whose first reaching is timed; None: none is."""
    splits: ClassVar[Sequence[int]] = ()
    """The values of the option ``split`` where several splits were published: ``--split all`` runs each."""

    @abstractmethod
    def load(self, options: OptionsT) -> RawData:
        """Read the splits. `options` is an instance of `Options`. Raises `harness.DataError`.

        A dataset with `files` finds them in the folder that ``harness.installed(self)`` gives.
        """


class Task(ABC, Generic[OptionsT]):
    """What is done with data of one kind: preprocessing, objective, metrics, defaults.

    ``Task[MyOptions]`` types the argument of `prepare` and `augment`, where `Options` is ``MyOptions``.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    """Kind of raw input it takes; equal to its datasets' ``kind``."""
    produces: ClassVar[str]
    """Kind of prepared input (`DataInfo.kind`); models name it in ``accepts``."""
    objective: ClassVar[Objective]
    summary: ClassVar[str]
    default_dataset: ClassVar[str]
    default_model: ClassVar[str]
    metric: ClassVar[str]
    """The primary metric."""
    metrics: ClassVar[Sequence[str]]
    """Every metric reported, the primary one among them."""
    recipe: ClassVar[Recipe] = Recipe()
    Options: ClassVar[type[Struct]] = NoOptions
    reported: ClassVar[Sequence[str]] = ()
    """The `DataInfo.details` that are measured on the validation or test split on purpose, and that nothing uses."""

    @abstractmethod
    def prepare(self, data: RawData, options: OptionsT) -> PreparedData:
        """Turn raw data into numeric arrays. Deterministic; fitted steps see ``data.train`` only.

        The core has checked `data`: no split is empty, inputs and groups have an entry for each example, and targets
        are class numbers among ``data.label_names``, or finite numbers ``[N, T]`` for regression.
        """

    def checkpoint_options(self, folder: Path) -> Mapping[str, Any]:
        """Options that prepare data as the pretrained checkpoint in `folder` expects them: its tokenizer, its
        normalization. The folder itself may be a value; a run's identity has the checkpoint's digest in its place."""
        return {}

    def augment(
        self, inputs: dict[str, Array], info: DataInfo, options: OptionsT, rng: np.random.Generator
    ) -> dict[str, Array]:
        """The inputs of one training batch (name -> array ``[B, ...]``), changed at random; by default as they are.

        `info` is that of the prepared data: its details have what `prepare` found, such as the sample rate.

        Called by the core, in numpy and before a backend sees the batch, with an `rng` that follows from the run's seed
        and the epoch: every backend trains on the same arrays. Shapes and dtypes stay; `inputs` may be overwritten. Its
        time is part of the training time.
        """
        return inputs
