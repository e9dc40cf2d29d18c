"""Declarations of the baselines: accepted data, options, and cost per prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from harness import DataInfo, Model, Parameter


class Nothing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Empty configuration."""


class RegularizedConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of a model with an L2 penalty."""

    C: float = 1.0
    """Inverse of the L2 regularization strength, as in scikit-learn. It must be positive."""

    def __post_init__(self) -> None:
        if not 0 < self.C < float("inf"):
            raise ValueError(f"C must be positive and finite, got {self.C}")


class _Baseline(Model):
    """A model that is fitted on the entire training split at once."""

    def parameters(self, config: Struct, info: DataInfo) -> Sequence[Parameter]:
        """Return no parameters, because the sizes of scikit-learn's parameters are not known before fitting."""
        return ()

    def flops_per_sample(self, config: Struct, info: DataInfo) -> float:
        """Return 0 (unknown), because the cost depends on the fitted estimator."""
        return 0.0


class Majority(_Baseline):
    """Baseline that always predicts the most frequent class."""

    name = "majority"
    summary = "predicts the most frequent class of the training split"
    accepts = ("tokens", "image", "waveform", "features")
    objectives = ("classification",)
    Config = Nothing
    variants = {"majority": {}}


class Mean(_Baseline):
    """Baseline that always predicts the mean of the targets."""

    name = "mean"
    summary = "predicts the mean of the targets in the training split"
    accepts = ("features",)
    objectives = ("regression",)
    Config = Nothing
    variants = {"mean": {}}


class TfidfConfig(RegularizedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of `TfidfLogreg`."""

    C: float = 10.0
    ngrams: int = 2
    """Maximum length of the n-grams used as terms, in tokens."""
    min_examples: int = 2
    """Number of examples in which a term must occur to become a feature. Rarer terms are ignored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ngrams < 1 or self.min_examples < 1:
            raise ValueError("ngrams and min_examples must be at least 1")


class TfidfLogreg(_Baseline):
    """Logistic regression on sublinear TF-IDF features of token-id n-grams. The token ids are the same as those in the
    input of neural networks.
    """

    name = "tfidf-logreg"
    summary = "logistic regression on TF-IDF features of token n-grams"
    accepts = ("tokens",)
    objectives = ("classification",)
    Config = TfidfConfig
    variants = {"tfidf-logreg": {}}


class Logreg(_Baseline):
    """Multinomial logistic regression on the flattened input (pixels or features)."""

    name = "logreg"
    summary = "logistic regression on pixels or features"
    accepts = ("image", "features")
    objectives = ("classification",)
    Config = RegularizedConfig
    variants = {"logreg": {}}

    def flops_per_sample(self, config: Struct, info: DataInfo) -> float:
        """Return the FLOPs of one example, ``2 * F * outputs`` for an input of F elements."""
        return 2.0 * _elements(info) * info.outputs


class MfccConfig(RegularizedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of `MfccSvm`."""

    C: float = 10.0
    coefficients: int = 20
    """Number of cepstral coefficients per frame, at most `mel_bands`."""
    mel_bands: int = 40
    """Number of mel filters."""
    parts: int = 5
    """Number of equal parts into which a clip is divided. Statistics are computed for each part."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.coefficients <= self.mel_bands or self.parts < 1:
            raise ValueError("coefficients must be between 1 and mel_bands, and parts at least 1")


class MfccSvm(_Baseline):
    """SVM with an RBF kernel on statistics of mel-frequency cepstral coefficients (Davis and Mermelstein 1980).

    The features are the mean and standard deviation of each coefficient within equal parts of the clip. The outputs are
    decision values. Decision values rank the classes, but are not log-probabilities.
    """

    name = "mfcc-svm"
    summary = "SVM with an RBF kernel on MFCC statistics of parts of the clip"
    accepts = ("waveform",)
    objectives = ("classification",)
    Config = MfccConfig
    variants = {"mfcc-svm": {}}


class RidgeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of `Ridge`."""

    alpha: float = 1.0
    """Strength of the L2 penalty, as in scikit-learn. The strength must be at least 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"alpha must be finite and not negative, got {self.alpha}")


class Ridge(_Baseline):
    """Linear regression with an L2 penalty."""

    name = "ridge"
    summary = "ridge regression on the features"
    accepts = ("features",)
    objectives = ("regression",)
    Config = RidgeConfig
    variants = {"ridge": {}}

    def flops_per_sample(self, config: Struct, info: DataInfo) -> float:
        """Return the FLOPs of one example, ``2 * F * outputs`` for an input of F elements."""
        return 2.0 * _elements(info) * info.outputs


class BoostingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of `GradientBoosting`."""

    trees: int = 100
    """Number of boosting iterations. In classification, each iteration fits one tree per class."""
    learning_rate: float = 0.1
    """Shrinkage factor of each tree. It must be positive."""
    leaves: int = 31
    """Maximum number of leaves per tree."""

    def __post_init__(self) -> None:
        if self.trees < 1 or self.leaves < 2 or not 0 < self.learning_rate < float("inf"):
            raise ValueError("trees must be at least 1, leaves at least 2, and learning_rate positive and finite")


class GradientBoosting(_Baseline):
    """Histogram-based gradient boosting.

    Categorical columns of tables are split natively if they have at most 255 categories. At each split, examples with a
    missing number or an unknown category are assigned to one of the branches.
    """

    name = "gradient-boosting"
    summary = "histogram-based gradient boosting of trees"
    accepts = ("features",)
    objectives = ("classification", "regression")
    Config = BoostingConfig
    variants = {"gradient-boosting": {}}


def _elements(info: DataInfo) -> int:
    (spec,) = info.inputs.values()
    return math.prod(spec.shape)


ALL = (Majority(), Mean(), TfidfLogreg(), Logreg(), MfccSvm(), Ridge(), GradientBoosting())
