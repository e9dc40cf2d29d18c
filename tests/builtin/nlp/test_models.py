from __future__ import annotations

import math

import pytest
from harness_nlp import harness_datasets, harness_models, harness_tasks
from harness_nlp.models.bert import Bert, BertConfig
from harness_nlp.models.lstm import Lstm, LstmConfig

from harness import DataInfo, InputSpec, Model, PluginError, Recipe, UsageError
from harness.plan.settings import recipe_for
from harness.plugins import discover

MODELS = [Bert(), Lstm()]
VARIANTS = [(model, variant) for model in MODELS for variant in model.variants]


def _info(length: int = 32, vocab_size: int = 30522, outputs: int = 2) -> DataInfo:
    shape = InputSpec(shape=(length,), dtype="int32")
    return DataInfo(
        kind="tokens",
        inputs={"input_ids": shape, "attention_mask": shape},
        objective="classification",
        outputs=outputs,
        details={"vocab_size": vocab_size, "pad_id": 0},
    )


def _count(model: Model, variant: str, info: DataInfo) -> int:
    config = model.Config(**model.variants[variant])
    return sum(math.prod(parameter.shape) for parameter in model.parameters(config, info))


@pytest.mark.parametrize(
    ("variant", "millions"), [("bert-tiny", 4.4), ("bert-mini", 11.3), ("bert-small", 29.1), ("bert-base", 110.1)]
)
def test_bert_has_the_published_number_of_parameters(variant: str, millions: float) -> None:
    # Turc et al. 2019, table 1. The published numbers include the transform of the pretraining head or are rounded.
    assert _count(Bert(), variant, _info()) / 1e6 == pytest.approx(millions, rel=0.015)


def test_lstm_parameters_have_the_documented_shapes() -> None:
    config = LstmConfig(embedding_size=3, hidden_size=5, num_layers=2)
    parameters = Lstm().parameters(config, _info(vocab_size=7, outputs=4))
    assert {parameter.name: parameter.shape for parameter in parameters} == {
        "embedding.weight": (7, 3),
        "lstm.weight_ih_l0": (20, 3),
        "lstm.weight_hh_l0": (20, 5),
        "lstm.bias_l0": (20,),
        "lstm.weight_ih_l1": (20, 5),
        "lstm.weight_hh_l1": (20, 5),
        "lstm.bias_l1": (20,),
        "classifier.weight": (4, 5),
        "classifier.bias": (4,),
    }


def test_lstm_with_max_mean_pooling_has_twice_the_features() -> None:
    config = LstmConfig(embedding_size=3, hidden_size=5, pooling="max-mean")
    shapes = {p.name: p.shape for p in Lstm().parameters(config, _info(vocab_size=7, outputs=4))}
    assert shapes["classifier.weight"] == (4, 10)
    step = 2 * (3 * 20 + 5 * 20)
    assert Lstm().flops_per_sample(config, _info(length=6, outputs=4)) == 6 * step + 2 * 10 * 4


@pytest.mark.parametrize(("model", "variant"), VARIANTS)
def test_parameters_are_distinct_and_only_matrices_decay(model: Model, variant: str) -> None:
    parameters = model.parameters(model.Config(**model.variants[variant]), _info())
    names = [parameter.name for parameter in parameters]
    assert len(names) == len(set(names))
    for parameter in parameters:
        assert parameter.decay == (len(parameter.shape) == 2), parameter.name
        assert parameter.trainable


@pytest.mark.parametrize(("model", "variant"), VARIANTS)
def test_larger_variants_cost_more(model: Model, variant: str) -> None:
    order = list(model.variants)
    costs = [model.flops_per_sample(model.Config(**model.variants[name]), _info()) for name in order]
    assert costs == sorted(costs)
    assert len(set(costs)) == len(costs)


def test_bert_flops_agree_with_a_count_by_hand() -> None:
    config = BertConfig(hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    tokens, outputs = 3, 5
    matmuls = [
        *[(tokens, 4, 4)] * 4,  # query, key, value, output: [tokens, 4] @ [4, 4]
        *[(tokens, 2, tokens), (tokens, tokens, 2)] * 2,  # scores and weighted sum of two heads of 2
        (tokens, 4, 8),
        (tokens, 8, 4),
        (1, 4, 4),
        (1, 4, outputs),
    ]
    expected = sum(2 * rows * inner * columns for rows, inner, columns in matmuls)
    assert Bert().flops_per_sample(config, _info(length=tokens, outputs=outputs)) == expected


def test_lstm_flops_agree_with_a_count_by_hand() -> None:
    config = LstmConfig(embedding_size=3, hidden_size=5, num_layers=2)
    step = 2 * (3 * 20 + 5 * 20) + 2 * (5 * 20 + 5 * 20)
    assert Lstm().flops_per_sample(config, _info(length=6, outputs=4)) == 6 * step + 2 * 5 * 4


def test_bert_may_have_a_larger_vocabulary_than_the_data() -> None:
    parameters = Bert().parameters(BertConfig(vocab_size=50), _info(vocab_size=20))
    assert parameters[0].shape == (50, 768)


def test_bert_rejects_data_that_exceeds_its_sizes() -> None:
    with pytest.raises(UsageError, match=r"model\.max_position_embeddings=600"):
        Bert().parameters(BertConfig(), _info(length=600))
    with pytest.raises(UsageError, match="at least 30522"):
        Bert().parameters(BertConfig(vocab_size=100), _info())


@pytest.mark.parametrize("model", MODELS)
def test_missing_data_properties_are_named(model: Model) -> None:
    info = _info()
    without_size = DataInfo(kind="tokens", inputs=info.inputs, objective="classification", outputs=2)
    with pytest.raises(PluginError, match="vocab_size"):
        model.parameters(model.Config(), without_size)
    without_ids = DataInfo(kind="tokens", inputs={}, objective="classification", outputs=2)
    with pytest.raises(PluginError, match="input_ids"):
        model.flops_per_sample(model.Config(), without_ids)


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (BertConfig, {"hidden_size": 100}),
        (BertConfig, {"num_hidden_layers": 0}),
        (BertConfig, {"vocab_size": 0}),
        (BertConfig, {"layer_norm_eps": 0.0}),
        (LstmConfig, {"hidden_size": 0}),
        (LstmConfig, {"num_layers": -1}),
    ],
)
def test_invalid_sizes_are_rejected(config: type[BertConfig | LstmConfig], values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        config(**values)


@pytest.mark.parametrize("model", MODELS)
def test_recipes_change_known_fields_of_known_variants(model: Model) -> None:
    assert set(model.recipes) <= {model.name, *model.variants}
    for changes in model.recipes.values():
        Recipe(**changes)


def test_hooks_yield_the_task_datasets_and_models() -> None:
    assert [task.name for task in harness_tasks()] == ["nlp"]
    datasets = ["cldr-langid", "sst2", "trec", "banking77", "sms-spam", "imdb", "ag-news"]
    assert [dataset.name for dataset in harness_datasets()] == datasets
    assert [model.name for model in harness_models()] == ["bert", "lstm"]


@pytest.mark.parametrize(
    ("dataset", "expected"), [("imdb", (4e-3, 0.5, 4)), ("sst2", (2e-3, 0.5, 2)), ("cldr-langid", (4e-3, 0.5, 10))]
)
def test_recipe_of_a_dataset_takes_precedence_over_that_of_lstm(
    dataset: str, expected: tuple[float, float, int]
) -> None:
    catalog = discover()
    model, variant = catalog.model("lstm")
    recipe = recipe_for(catalog.task("nlp"), catalog.dataset(dataset), model, variant, {})
    assert (recipe.learning_rate, recipe.dropout, recipe.epochs) == expected
