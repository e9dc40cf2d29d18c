"""The scikit-learn estimator of each baseline, one ``build`` function per model."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as RidgeRegression
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from harness import DataInfo, Network
from harness_baselines import Baseline, features
from harness_baselines.models import BoostingConfig, MfccConfig, Nothing, RegularizedConfig, RidgeConfig, TfidfConfig


def majority(config: Nothing, info: DataInfo, dropout: float) -> Network:
    return _network(features.nothing, DummyClassifier(strategy="prior"))


def mean(config: Nothing, info: DataInfo, dropout: float) -> Network:
    return _network(features.nothing, DummyRegressor())


def tfidf_logreg(config: TfidfConfig, info: DataInfo, dropout: float) -> Network:
    words = TfidfVectorizer(
        analyzer=features.Terms(config.ngrams), min_df=config.min_examples, sublinear_tf=True, dtype=np.float32
    )
    return _network(features.tokens, words, LogisticRegression(C=config.C, max_iter=1000))


def logreg(config: RegularizedConfig, info: DataInfo, dropout: float) -> Network:
    return _network(features.flat, StandardScaler(), LogisticRegression(C=config.C, max_iter=1000))


def mfcc_svm(config: MfccConfig, info: DataInfo, dropout: float) -> Network:
    coefficients = features.Mfcc(
        rate_hz=int(info.details["sample_rate_hz"]),
        coefficients=config.coefficients,
        mel_bands=config.mel_bands,
        parts=config.parts,
    )
    return _network(coefficients, StandardScaler(), SVC(C=config.C))


def ridge(config: RidgeConfig, info: DataInfo, dropout: float) -> Network:
    return _network(features.flat, RidgeRegression(alpha=config.alpha))


def gradient_boosting(config: BoostingConfig, info: DataInfo, dropout: float) -> Network:
    columns = features.native(info)
    options = {
        "max_iter": config.trees,
        "learning_rate": config.learning_rate,
        "max_leaf_nodes": config.leaves,
        "early_stopping": False,
        "categorical_features": columns.categorical if columns is not None and any(columns.categorical) else None,
    }
    pick = columns or features.flat
    if info.objective == "classification":
        return _network(pick, HistGradientBoostingClassifier(**options))
    return _network(pick, MultiOutputRegressor(HistGradientBoostingRegressor(**options)))


def _network(pick: Any, *steps: Any) -> Network:
    return Network(module=Baseline(pick, make_pipeline(*steps)), bindings={})
