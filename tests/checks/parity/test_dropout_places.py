"""Tests that faulty dropout is found at each place of a model."""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest
from planted_faults import catalog, spec_of

from harness.checks.parity.masks import EXAMPLES, RATE, compare_masks, mask_statistics
from harness.checks.parity.probe_weights import probe_weights
from harness.data.batches import training_batches
from harness.execute.preparation import Preparation, prepare

Array = np.ndarray[Any, Any]

pytestmark = [
    pytest.mark.torch,
    pytest.mark.plugins("nlp", "vision", "regression", "speech", "torch"),
    pytest.mark.usefixtures("faulty"),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed"),
]

PLACES = {"mlp": 2, "lstm": 2, "bert": 8, "wav2vec2": 6}
"""Number of places with dropout: in bert, after the embeddings and the pooling, and three in each of two layers; in
wav2vec2, after the projection and before the encoder, and four in one layer."""


@cache
def preparation(family: str) -> Preparation:
    spec = spec_of(family)
    return prepare(spec, catalog().refs_for(spec))


@cache
def statistics(family: str, seed: int, place: int = -1, kind: str = "none") -> tuple[dict[str, Array], int]:
    """Return the statistics of a session with a fault at one place, and the number of places."""
    import harness_faulty_training as training

    prepared = preparation(family)
    batch = next(training_batches(prepared.data.train, EXAMPLES, 0, 1, prepared.data.augment))
    sessions = []
    for rate in (0.0, max(RATE, prepared.spec.recipe.dropout)):
        recipe = msgspec.structs.replace(prepared.request.recipe, dropout=rate)
        session = training.FaultyPlace(dataclasses.replace(prepared.request, recipe=recipe, seed=seed))
        session.set_weights(probe_weights(prepared.request.parameters, 0))
        sessions.append(session)
    training.FaultyPlace.place, training.FaultyPlace.kind = place, kind
    _, plain = sessions[0].gradients(batch)
    return mask_statistics(sessions[1], batch, plain), training.FaultyPlace.places


@pytest.mark.parametrize("place", range(PLACES["mlp"]))
@pytest.mark.parametrize("kind", ["none", "twice", "unscaled", "shared"])
def test_faulty_place_of_mlp_is_found(kind: str, place: int) -> None:
    found = compare_masks(statistics("mlp", 0)[0], statistics("mlp", 1, place, kind)[0])
    assert found.errors > found.critical


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("family", "place"), [(f, place) for f, count in PLACES.items() for place in range(count)])
@pytest.mark.parametrize("kind", ["none", "twice", "unscaled"])
def test_faulty_place_of_every_model_is_found(family: str, place: int, kind: str) -> None:
    found = compare_masks(statistics(family, 0)[0], statistics(family, 1, place, kind)[0])
    assert found.errors > found.critical


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("family", PLACES)
def test_correct_dropout_is_not_reported(family: str) -> None:
    one, places = statistics(family, 0)
    assert places == PLACES[family]
    for seed in range(1, 11):
        found = compare_masks(one, statistics(family, seed)[0])
        assert found.errors <= found.critical, found
