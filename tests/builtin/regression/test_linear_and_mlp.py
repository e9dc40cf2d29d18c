"""Tests of the declarations of the models ``linear`` and ``mlp``, and of the closed form of ``linear``."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from harness_regression.diabetes import Diabetes
from harness_regression.models import linear, mlp
from harness_regression.task import RegressionTask
from sklearn.linear_model import LinearRegression

from harness import DataInfo, InputSpec, PreparedData, SeededSplit, Split, TableEncoderOptions
from harness.execute.weights import check, initial_weights

FEATURES = DataInfo(
    kind="features",
    inputs={"features": InputSpec(shape=(10,), dtype="float32")},
    objective="regression",
    outputs=2,
)
IMAGE = DataInfo(
    kind="image",
    inputs={"pixel_values": InputSpec(shape=(8, 8, 3), dtype="float32")},
    objective="classification",
    outputs=10,
)


def solve(data: PreparedData) -> dict[str, np.ndarray]:
    solution = linear.Linear().solve(linear.LinearConfig(), data.info, data.train)
    assert solution is not None
    check(solution, linear.Linear().parameters(linear.LinearConfig(), data.info))
    return solution


def synthetic(train: Split) -> PreparedData:
    features, targets = train.inputs["features"].shape[1], train.targets.shape[1]
    info = DataInfo(
        kind="features",
        inputs={"features": InputSpec(shape=(features,), dtype="float32")},
        objective="regression",
        outputs=targets,
    )
    return PreparedData(train=train, validation=train, test=train, info=info)


@pytest.mark.parametrize(("info", "features"), [(FEATURES, 10), (IMAGE, 192)])
def test_linear_has_one_weight_per_feature_and_output(info: DataInfo, features: int) -> None:
    parameters = linear.Linear().parameters(linear.LinearConfig(), info)
    assert [(p.name, p.shape, p.decay) for p in parameters] == [
        ("linear.weight", (info.outputs, features), True),
        ("linear.bias", (info.outputs,), False),
    ]
    assert linear.Linear().flops_per_sample(linear.LinearConfig(), info) == 2 * features * info.outputs


@pytest.mark.parametrize(
    ("variant", "info", "shapes", "flops"),
    [
        ("mlp", FEATURES, [(64, 10), (64,), (64, 64), (64,), (2, 64), (2,)], 2 * (640 + 4096 + 128)),
        ("mlp", IMAGE, [(64, 192), (64,), (64, 64), (64,), (10, 64), (10,)], 2 * (12288 + 4096 + 640)),
        ("mlp-50", FEATURES, [(50, 10), (50,), (2, 50), (2,)], 2 * (500 + 100)),
    ],
)
def test_mlp_has_one_numbered_layer_per_width(
    variant: str, info: DataInfo, shapes: list[tuple[int, ...]], flops: int
) -> None:
    model, config = mlp.Mlp(), msgspec.convert(mlp.Mlp.variants[variant], mlp.MlpConfig)
    parameters = model.parameters(config, info)
    assert [p.shape for p in parameters] == shapes
    assert [p.name for p in parameters] == [
        f"layers.{k}.{part}" for k in range(len(shapes) // 2) for part in ("weight", "bias")
    ]
    assert [p.decay for p in parameters] == [len(shape) == 2 for shape in shapes]
    assert model.flops_per_sample(config, info) == flops


def test_layers_are_initialized_within_the_bound_of_their_width() -> None:
    weights = initial_weights(mlp.Mlp().parameters(mlp.MlpConfig(), IMAGE), seed=3)
    for name, width in (("layers.0", 192), ("layers.1", 64), ("layers.2", 64)):
        for part in ("weight", "bias"):
            assert 0.7 / width**0.5 < abs(weights[f"{name}.{part}"]).max() <= np.float32(1 / width**0.5)


def test_solve_agrees_with_scikit_learn_on_diabetes() -> None:
    data = RegressionTask().prepare(Diabetes().load(SeededSplit()), TableEncoderOptions())
    solution = solve(data)
    expected = LinearRegression().fit(data.train.inputs["features"].astype(float), data.train.targets.astype(float))
    np.testing.assert_allclose(solution["linear.weight"], expected.coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(solution["linear.bias"], expected.intercept_, atol=1e-6)
    assert solution["linear.weight"].dtype == solution["linear.bias"].dtype == np.float32


def test_solve_finds_an_exact_relation_with_intercept() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (50, 4)).astype(np.float32)
    weight, bias = np.array([[1.0, -2, 0, 4], [0.5, 0, 3, -1]]), np.array([7.0, -8])
    solution = solve(synthetic(Split(inputs={"features": x}, targets=(x @ weight.T + bias).astype(np.float32))))
    np.testing.assert_allclose(solution["linear.weight"], weight, atol=1e-5)
    np.testing.assert_allclose(solution["linear.bias"], bias, atol=1e-4)


def test_solve_with_dependent_features_returns_the_minimum_norm_solution() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    x[:, 1], x[:, 2] = x[:, 0], 0
    targets = (6 * x[:, :1] + 1).astype(np.float32)
    solution = solve(synthetic(Split(inputs={"features": x}, targets=targets)))
    np.testing.assert_allclose(solution["linear.weight"], [[3, 3, 0]], atol=1e-5)
    np.testing.assert_allclose(solution["linear.bias"], [1], atol=1e-5)


def test_solve_for_classification_returns_none() -> None:
    train = Split(inputs={"pixel_values": np.zeros((4, 8, 8, 3), np.float32)}, targets=np.zeros(4, np.int64))
    assert linear.Linear().solve(linear.LinearConfig(), IMAGE, train) is None
    assert mlp.Mlp().solve(mlp.MlpConfig(), FEATURES, train) is None


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (mlp.MlpConfig, {"hidden_sizes": []}, "at least one size, .* for a model without hidden layers, use 'linear'"),
        (mlp.MlpConfig, {"hidden_sizes": [8, 0]}, r"all sizes must be at least 1, got \[8, 0\]"),
        (mlp.MlpConfig, {"hidden_size": 8}, "unknown field `hidden_size`"),
        (linear.LinearConfig, {"bias": False}, "unknown field `bias`"),
    ],
)
def test_invalid_sizes_are_rejected(kind: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(values, kind)


def test_solve_with_weights_agrees_with_scikit_learn() -> None:
    data = RegressionTask().prepare(Diabetes().load(SeededSplit()), TableEncoderOptions())
    train = data.train
    weights = np.linspace(0, 2, len(train)).astype(np.float32)
    weighted = Split(inputs=train.inputs, targets=train.targets, weights=weights)
    solution = linear.Linear().solve(linear.LinearConfig(), data.info, weighted)
    assert solution is not None
    expected = LinearRegression().fit(train.inputs["features"], train.targets, sample_weight=weights)
    np.testing.assert_allclose(solution["linear.weight"], expected.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(solution["linear.bias"], expected.intercept_, rtol=1e-3, atol=1e-5)
