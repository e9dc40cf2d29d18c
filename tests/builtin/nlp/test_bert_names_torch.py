from __future__ import annotations

import pytest
from harness_nlp.models.bert import Bert

from harness import DataInfo, InputSpec


@pytest.mark.torch
@pytest.mark.parametrize("variant", Bert.variants)
def test_bert_parameters_match_the_checkpoint_of_transformers(variant: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    info = DataInfo(
        kind="tokens",
        inputs={"input_ids": InputSpec(shape=(32,), dtype="int32")},
        objective="classification",
        outputs=5,
        details={"vocab_size": 97},
    )
    sizes = Bert.variants[variant]
    listed = {p.name: p.shape for p in Bert().parameters(Bert.Config(**sizes), info)}
    with torch.device("meta"):
        network = transformers.BertForSequenceClassification(
            transformers.BertConfig(vocab_size=97, num_labels=5, **sizes)
        )
    assert listed == {name: tuple(value.shape) for name, value in network.state_dict().items()}
