"""What the datasets of texts share: from lists to splits."""

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
    """``text``: object array of str ``[N]``; targets int64 ``[N]``; one array for each of the groups."""
    import numpy as np

    return Split(
        inputs={"text": np.array(texts, dtype=object)},
        targets=np.array(targets, dtype=np.int64),
        groups={name: np.array(values) for name, values in groups.items()},
    )


def with_validation(train: Split, test: Split, label_names: Sequence[str], *, groups: Any = None) -> RawData:
    """The publisher's two splits, and a validation split of 10% of the training examples of every class.

    Training examples of the same one of the `groups` ``[N]`` stay on one side; by default `same_texts` do.
    """
    texts = train.inputs["text"]
    kept, held = holdout(train.targets, VALIDATION_SHARE, groups=same_texts(texts) if groups is None else groups)
    return RawData(train=train.take(kept), validation=train.take(held), test=test, label_names=tuple(label_names))


def same_texts(texts: Iterable[str]) -> NDArray[np.int64]:
    """For each text a number that it shares with those that differ from it in case and blanks at most, ``[N]``."""
    import numpy as np

    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(" ".join(text.lower().split()), len(numbers)) for text in texts], np.int64)
