"""The baselines as data: what each takes, its options, and what a prediction costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from harness import DataInfo, Model, Parameter


class Nothing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing to choose."""


class RegularizedConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    C: float = 1.0
    """Inverse of the strength of the L2 penalty, as scikit-learn has it."""

    def __post_init__(self) -> None:
        if not 0 < self.C < float("inf"):
            raise ValueError(f"C must be positive and finite, got {self.C}")


class _Baseline(Model):
    """Fitted at once on the training split."""

    def parameters(self, config: Struct, info: DataInfo) -> Sequence[Parameter]:
        """None that are canonical: what scikit-learn learns has no size before it has seen the data."""
        return ()

    def flops_per_sample(self, config: Struct, info: DataInfo) -> float:
        """0: not told, since it depends on what was learnt."""
        return 0.0


class Majority(_Baseline):
    name = "majority"
    summary = "always the most frequent class of the training split"
    accepts = ("tokens", "image", "waveform", "features")
    objectives = ("classification",)
    Config = Nothing
    variants = {"majority": {}}


class Mean(_Baseline):
    name = "mean"
    summary = "always the mean of the training split"
    accepts = ("features",)
    objectives = ("regression",)
    Config = Nothing
    variants = {"mean": {}}


class TfidfConfig(RegularizedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    C: float = 10.0
    ngrams: int = 2
    """Longest run of tokens that counts as a term."""
    min_examples: int = 2
    """Terms in fewer examples are left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ngrams < 1 or self.min_examples < 1:
            raise ValueError("ngrams and min_examples must be at least 1")


class TfidfLogreg(_Baseline):
    """On the task's own tokens, so that it sees what the networks see: n-grams of token ids, sublinear TF-IDF."""

    name = "tfidf-logreg"
    summary = "TF-IDF of token n-grams, logistic regression"
    accepts = ("tokens",)
    objectives = ("classification",)
    Config = TfidfConfig
    variants = {"tfidf-logreg": {}}


class Logreg(_Baseline):
    """Multinomial, on the only input, flattened: pixels, or features."""

    name = "logreg"
    summary = "logistic regression on pixels or features"
    accepts = ("image", "features")
    objectives = ("classification",)
    Config = RegularizedConfig
    variants = {"logreg": {}}

    def flops_per_sample(self, config: Struct, info: DataInfo) -> float:
        """2 F outputs, of F input numbers."""
        return 2.0 * _numbers(info) * info.outputs


class MfccConfig(RegularizedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    C: float = 10.0
    coefficients: int = 20
    mel_bands: int = 40
    parts: int = 5
    """The clip's frames are cut into so many equal parts, and each is summed up by itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.coefficients <= self.mel_bands or self.parts < 1:
            raise ValueError("coefficients must lie between 1 and mel_bands, and parts be at least 1")


class MfccSvm(_Baseline):
    """Mel-frequency cepstral coefficients (Davis and Mermelstein 1980), mean and standard deviation of each over equal
    parts of the clip, an SVM with a radial kernel. Its outputs are decision values: ranks, not probabilities."""

    name = "mfcc-svm"
    summary = "MFCCs summed up over parts of the clip, SVM with a radial kernel"
    accepts = ("waveform",)
    objectives = ("classification",)
    Config = MfccConfig
    variants = {"mfcc-svm": {}}


class RidgeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    alpha: float = 1.0
    """Strength of the L2 penalty, as scikit-learn has it."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"alpha must be finite and not negative, got {self.alpha}")


class Ridge(_Baseline):
    name = "ridge"
    summary = "ridge regression on the features"
    accepts = ("features",)
    objectives = ("regression",)
    Config = RidgeConfig
    variants = {"ridge": {}}

    def flops_per_sample(self, config: Struct, info: DataInfo) -> float:
        """2 F outputs, of F input numbers."""
        return 2.0 * _numbers(info) * info.outputs


class BoostingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    trees: int = 100
    """Boosting iterations; of a classification, one tree a class in each."""
    learning_rate: float = 0.1
    leaves: int = 31

    def __post_init__(self) -> None:
        if self.trees < 1 or self.leaves < 2 or not 0 < self.learning_rate < float("inf"):
            raise ValueError("trees must be at least 1, leaves at least 2, and learning_rate positive and finite")


class GradientBoosting(_Baseline):
    name = "gradient-boosting"
    summary = "histogram gradient boosting of trees"
    accepts = ("features",)
    objectives = ("classification", "regression")
    Config = BoostingConfig
    variants = {"gradient-boosting": {}}


def _numbers(info: DataInfo) -> int:
    (spec,) = info.inputs.values()
    return math.prod(spec.shape)


ALL = (Majority(), Mean(), TfidfLogreg(), Logreg(), MfccSvm(), Ridge(), GradientBoosting())
