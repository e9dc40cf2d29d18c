from __future__ import annotations

import numpy as np
import pytest
from harness_nlp.cldr_langid import CldrLangid
from harness_nlp.options import NlpOptions
from harness_nlp.task import TextClassification

from harness import DataError, InputSpec, NoOptions, PreparedData, RawData, Split


def _split(texts: list[object], targets: list[int], **groups: list[str]) -> Split:
    return Split(
        inputs={"text": np.array(texts, dtype=object)},
        targets=np.array(targets, dtype=np.int64),
        groups={name: np.array(values) for name, values in groups.items()},
    )


def _raw(train: list[object], test: list[object] | None = None) -> RawData:
    def labels(texts: list[object]) -> list[int]:
        return [number % 2 for number in range(len(texts))]

    test = train if test is None else test
    return RawData(
        train=_split(train, labels(train)),
        validation=_split(test, labels(test)),
        test=_split(test, labels(test)),
        label_names=("even", "odd"),
    )


@pytest.fixture(scope="module")
def prepared() -> PreparedData:
    return TextClassification().prepare(CldrLangid().load(NoOptions()), NlpOptions())


def test_default_data_matches_its_info(prepared: PreparedData) -> None:
    info = prepared.info
    length = info.inputs["input_ids"].shape[0]
    assert info.inputs == {
        "input_ids": InputSpec(shape=(length,), dtype="int32"),
        "attention_mask": InputSpec(shape=(length,), dtype="int32"),
    }
    assert (info.kind, info.objective, info.outputs, len(info.label_names)) == ("tokens", "classification", 20, 20)
    for split in (prepared.train, prepared.validation, prepared.test):
        assert split.targets.dtype == np.int64
        for name, spec in info.inputs.items():
            assert split.inputs[name].dtype == spec.dtype
            assert split.inputs[name].shape == (len(split), *spec.shape)
        assert split.inputs["input_ids"].max() < info.details["vocab_size"]
        assert ((split.inputs["input_ids"] != info.details["pad_id"]) == split.inputs["attention_mask"]).all()


def test_default_length_truncates_at_most_one_percent(prepared: PreparedData) -> None:
    length = prepared.info.inputs["input_ids"].shape[0]
    assert length % 8 == 0
    assert 0 <= prepared.info.details["truncated_share"] <= 0.01
    assert prepared.info.details["unknown_share"] < 0.001


def test_preparing_twice_gives_the_same(prepared: PreparedData) -> None:
    again = TextClassification().prepare(CldrLangid().load(NoOptions()), NlpOptions())
    assert again.info == prepared.info
    for name in prepared.info.inputs:
        assert (again.train.inputs[name] == prepared.train.inputs[name]).all()
        assert (again.test.inputs[name] == prepared.test.inputs[name]).all()


def test_vocabulary_is_learned_on_the_training_split_only() -> None:
    train: list[object] = ["the cat sat", "a dog ran"]
    task = TextClassification()
    plain = task.prepare(_raw(train, ["the cat"]), NlpOptions(max_length=8))
    planted = task.prepare(_raw(train, ["the ωψξ"]), NlpOptions(max_length=8))
    assert planted.info.details["vocab_size"] == plain.info.details["vocab_size"]
    assert planted.train.inputs["input_ids"].tolist() == plain.train.inputs["input_ids"].tolist()
    assert planted.info.details["unknown_share"] > plain.info.details["unknown_share"] == 0
    assert 1 in planted.test.inputs["input_ids"]


def test_length_and_truncated_share() -> None:
    train: list[object] = ["a a a a", "a", "a", "a"]
    prepared = TextClassification().prepare(_raw(train), NlpOptions(max_length=4))
    assert prepared.info.details["truncated_share"] == 0.25
    assert prepared.train.inputs["attention_mask"].sum(axis=1).tolist() == [4, 3, 3, 3]
    assert TextClassification().prepare(_raw(train), NlpOptions()).info.inputs["input_ids"].shape == (8,)
    long: list[object] = ["a " * 600]
    assert TextClassification().prepare(_raw(long), NlpOptions()).info.inputs["input_ids"].shape == (512,)


def test_word_dropout_replaces_the_requested_fraction_of_words_only() -> None:
    task, options = TextClassification(), NlpOptions(vocabulary="word", word_dropout=0.25, max_length=40)
    texts: list[object] = ["the cat and the dog and " * (1 + n % 6) for n in range(400)]
    data = task.prepare(_raw(texts), options)
    inputs, unknown = dict(data.train.inputs), data.info.details["unk_id"]
    ids = inputs["input_ids"]
    changed = task.augment({**inputs}, data.info, options, np.random.default_rng(0))
    assert changed["input_ids"].dtype == ids.dtype
    np.testing.assert_array_equal(changed["attention_mask"], inputs["attention_mask"])
    differs = changed["input_ids"] != ids
    assert set(changed["input_ids"][differs]) == {unknown}
    words = inputs["attention_mask"].sum() - 2 * len(ids)
    assert abs(differs.sum() / words - 0.25) < 4 * (0.25 * 0.75 / words) ** 0.5
    special = np.isin(ids, [data.info.details[name] for name in ("pad_id", "cls_id", "sep_id")])
    assert not differs[special].any()
    off = NlpOptions(vocabulary="word", max_length=40)
    same = task.augment({**inputs}, data.info, off, np.random.default_rng(0))
    np.testing.assert_array_equal(same["input_ids"], ids)


def test_groups_stay_aligned_with_examples() -> None:
    raw = _raw(["a", "b"])
    grouped = RawData(
        train=_split(["a", "b"], [0, 1], author=["x", "y"]),
        validation=raw.validation,
        test=raw.test,
        label_names=raw.label_names,
    )
    assert TextClassification().prepare(grouped, NlpOptions()).train.groups["author"].tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (_raw(["", "  "]), "every text in the training split is empty"),
        (_raw(["a"], [float("nan")]), "validation example 0 is nan, not a string"),
        (_raw([None]), "training example 0 is None, not a string"),
    ],
)
def test_values_that_are_not_text_are_named(raw: RawData, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TextClassification().prepare(raw, NlpOptions())


@pytest.mark.parametrize("options", [{"vocab_size": 3}, {"vocab_size": -1}, {"max_length": 2}, {"max_length": 0}])
def test_options_that_are_too_small_are_rejected(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must"):
        NlpOptions(**options)


def test_unknown_options_are_rejected() -> None:
    import msgspec

    with pytest.raises(msgspec.ValidationError, match="max_len"):
        msgspec.convert({"max_len": 5}, NlpOptions)


def test_the_default_dataset_matches_the_task() -> None:
    task = TextClassification()
    assert task.default_dataset == CldrLangid.name
    assert (task.kind, task.objective) == (CldrLangid.kind, CldrLangid.objective)
    assert task.metric in task.metrics
