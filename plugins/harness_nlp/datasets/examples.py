"""Functions that build splits from lists, shared by the text datasets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness import RawData, RawInput, Split, holdout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VALIDATION_SHARE = 0.1
INPUTS = {"text": RawInput(shape=(), dtype="str")}


def split(texts: Sequence[str], targets: Sequence[int], **groups: Sequence[Any]) -> Split:
    """Build a split with the input ``text``, an object array of str ``[N]``, and int64 targets ``[N]``.

    Each keyword argument in `groups` has the shape ``[N]``, with one value per example.
    """
    import numpy as np

    return Split(
        inputs={"text": np.array(texts, dtype=object)},
        targets=np.array(targets, dtype=np.int64),
        groups={name: np.array(values) for name, values in groups.items()},
    )


def with_validation(train: Split, test: Split, label_names: Sequence[str], *, groups: Any = None) -> RawData:
    """Add a validation split to the publisher's two splits. The validation split consists of 10% of the training
    examples in each class.

    Training examples with equal values in `groups` ``[N]`` are kept in the same split. If `groups` is None, equal texts
    are kept in the same split (`same_texts`).
    """
    texts = train.inputs["text"]
    kept, held = holdout(train.targets, VALIDATION_SHARE, groups=same_texts(texts) if groups is None else groups)
    return RawData(train=train.take(kept), validation=train.take(held), test=test, label_names=tuple(label_names))


def same_texts(texts: Iterable[str]) -> NDArray[np.int64]:
    """Return a group number for each text, ``[N]``. Texts that differ only in case or whitespace have the same
    number."""
    import numpy as np

    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(" ".join(text.lower().split()), len(numbers)) for text in texts], np.int64)
