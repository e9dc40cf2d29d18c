"""Conversion of fitted scikit-learn pipelines to arrays, so that models can be stored without pickled objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

Arrays = dict[str, NDArray[Any]]

ATTRIBUTES: dict[type, tuple[str, ...]] = {
    StandardScaler: ("mean_", "scale_"),
    LogisticRegression: ("coef_", "intercept_", "classes_"),
    Ridge: ("coef_", "intercept_"),
    DummyClassifier: ("class_prior_", "classes_"),
    DummyRegressor: ("constant_", "n_outputs_"),
}
"""Attributes that determine the predictions of each type of estimator. Their values are arrays and integers."""
SCALARS = ("n_outputs_",)
"""Attributes that are integers."""
PADDING = -1
"""Padding value for terms that are shorter than the longest term."""


def arrays_of(fitted: Any) -> Arrays:
    """Return the arrays that determine the predictions of a fitted pipeline, keyed by step and attribute.

    The result is empty if any step of the pipeline is neither a `TfidfVectorizer` of token ids nor an instance of a
    type in `ATTRIBUTES`.
    """
    if not isinstance(fitted, Pipeline):
        return {}
    arrays: Arrays = {}
    for name, step in fitted.steps:
        if type(step) is TfidfVectorizer:
            arrays |= {f"{name}.idf_": step.idf_, f"{name}.terms": _terms(step.vocabulary_)}
        elif type(step) in ATTRIBUTES:
            arrays |= {
                f"{name}.{attribute}": np.atleast_1d(getattr(step, attribute)) for attribute in ATTRIBUTES[type(step)]
            }
        else:
            return {}
    return arrays


def restored(new: Pipeline, arrays: Mapping[str, NDArray[Any]]) -> Pipeline:
    """Return a fitted copy of an unfitted pipeline, with the same predictions as the pipeline described by `arrays`."""
    fitted: Pipeline = clone(new)
    for name, step in fitted.steps:
        if type(step) is TfidfVectorizer:
            terms = arrays[f"{name}.terms"]
            step.vocabulary_ = {tuple(row[row != PADDING].tolist()): number for number, row in enumerate(terms)}
            step.idf_ = arrays[f"{name}.idf_"]
            continue
        if type(step) is DummyClassifier:  # Fitting sets attributes that are not public.
            classes = arrays[f"{name}.classes_"]
            step.fit(np.zeros((len(classes), 1)), classes)
        for attribute in ATTRIBUTES[type(step)]:
            value = arrays[f"{name}.{attribute}"]
            setattr(step, attribute, int(value[0]) if attribute in SCALARS else value)
    return fitted


def _terms(vocabulary: Mapping[tuple[int, ...], int]) -> NDArray[np.int64]:
    """Return the token ids of each term, int64 ``[terms, length]``, in the order of their columns. Terms are padded
    with `PADDING`."""
    terms = sorted(vocabulary, key=vocabulary.__getitem__)
    found = np.full((len(terms), max(map(len, terms))), PADDING, np.int64)
    for number, term in enumerate(terms):
        found[number, : len(term)] = term
    return found
