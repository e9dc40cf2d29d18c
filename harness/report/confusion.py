"""The confusion matrix of a run, and its most frequent mistakes, as tables."""

from __future__ import annotations

from harness.analysis.groups import class_names
from harness.records import Success

MATRIX_CLASSES = 12
"""Maximum number of classes for which the full matrix is shown as text."""
MISTAKES = 12
"""Maximum number of mistakes shown."""


def class_labels(outcome: Success) -> list[str]:
    """Return the class names for the confusion matrix. A class without a name is labeled with its number."""
    return class_names(outcome.scores)


def matrix(outcome: Success) -> tuple[list[str], list[list[str | int]]]:
    """Return the headers and the rows of the confusion matrix, with one row per true class and one column per predicted
    class. There are no rows if there are more than `MATRIX_CLASSES` classes."""
    names = class_labels(outcome)
    if len(names) > MATRIX_CLASSES:
        return [], []
    return ["", *names], [[name, *row] for name, row in zip(names, outcome.scores.confusion, strict=True)]


def mistakes(outcome: Success) -> tuple[list[str], list[list[str | int | float]]]:
    """Return the headers and rows of a table of the most frequent misclassifications. Each row is for one pair of a
    true class and a predicted class. There are no rows if there are no misclassifications."""
    names, confusion = class_labels(outcome), outcome.scores.confusion
    pairs = [(count, i, j) for i, row in enumerate(confusion) for j, count in enumerate(row) if count and i != j]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    rows: list[list[str | int | float]] = [
        [names[i], names[j], count, 100 * count / sum(confusion[i])] for count, i, j in pairs[:MISTAKES]
    ]
    return ["true", "predicted", "examples", "% of the class"], rows
