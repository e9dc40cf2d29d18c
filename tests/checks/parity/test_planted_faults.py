"""Tests that the parity check finds planted faults and explains each at the first stage that it affects."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest
from planted_faults import catalog, computed, late_weights

from harness.checks.parity.check import ROUNDINGS
from harness.checks.parity.evidence import ParityJob, roundings
from harness.checks.parity.explain import explain
from harness.checks.parity.report import Evidence
from harness.checks.parity.stages import compare
from harness.execute.preparation import prepare
from harness.plan.expand import expand
from harness.plan.selection import Selection

pytestmark = [
    pytest.mark.torch,
    pytest.mark.plugins("nlp", "vision", "regression", "speech", "torch"),
    pytest.mark.usefixtures("faulty"),
]

SMALL_BERT = (
    "model.hidden_size=64",
    "model.num_attention_heads=2",
    "model.intermediate_size=128",
    "recipe.batch_size=16",
    "recipe.optimizer=adam",
    "recipe.weight_decay=0",
    "recipe.clip_norm=null",
    "recipe.dropout=0",
)
SMALL_RESNET = ("model.hidden_sizes=[16,32]", "model.depths=[1,1]", "recipe.batch_size=16")
TASKS = {"bert": ("nlp", SMALL_BERT), "resnet": ("vision", SMALL_RESNET)}


@cache
def evidence(backend: str, family: str, precision: str = "fp32", steps: int = 3, perturbed: bool = False) -> Evidence:
    """Compute evidence in this process, because importing the framework again for each fault would take minutes."""
    task, overrides = TASKS[family]
    (spec,) = expand(
        Selection(
            tasks=(task,),
            backends=(backend,),
            models=(family,),
            devices=("cpu",),
            precisions=(precision,),
            threads=1,
            overrides=overrides,
        ),
        catalog(),
    )
    first = (backend, precision) == ("torch", "fp32")
    job = ParityJob(spec=spec, plugins=catalog().refs_for(spec), steps=steps, reference=precision == "fp64")
    found = computed(job, None if first else evidence("torch", family, steps=steps))
    if perturbed:
        job = msgspec.structs.replace(job, roundings=tuple(range(1, ROUNDINGS + 1)))
        late = late_weights(evidence("torch", family, steps=steps))
        found = Evidence(found.report, {**found.arrays, **roundings(job, prepare(spec, job.plugins), late)})
    return found


@pytest.mark.parametrize("family", TASKS)
def test_correct_backend_agrees_with_itself_and_with_float64(family: str) -> None:
    healthy, reference = evidence("torch", family), evidence("torch", family, "fp64")
    compared = {name: array for name, array in healthy.arrays.items() if not name.startswith("replay/")}
    assert all(array.dtype.kind == "f" for array in compared.values())
    assert reference.arrays["logits"].dtype == "float64"
    stages = compare(healthy, healthy, reference)
    assert [stage.name for stage in stages if not stage.passed] == []
    assert all(stage.error == 0 for stage in stages if stage.name != "optimizer")
    errors = {stage.name: stage.from_reference["torch"] for stage in stages if stage.from_reference}
    assert all(error is not None and 0 < error < 1e-4 for error in errors.values()), errors
    assert explain(stages, healthy, healthy) == ""


@pytest.mark.parametrize(
    ("fault", "family", "stage", "words"),
    [
        ("layer_norm_epsilon", "bert", "logits", "an epsilon"),
        ("approximate_gelu", "bert", "logits", "activation"),
        ("attention_mask", "bert", "logits", "attention mask"),
        ("transposed_weight", "bert", "logits", "transposed weight"),
        ("same_padding", "resnet", "logits", "padding"),
        ("dropout_left_on", "bert", "logits", "two predictions of the same batch by dropout_left_on differ"),
        ("tf32", "bert", "logits", "TF32 or bfloat16"),
        ("bf16", "bert", "logits", "TF32 or bfloat16"),
        ("exchanged_predictions", "bert", "logits", "examples 0, 1 are swapped in exchanged_predictions"),
        ("exchanged_training", "bert", "loss", "targets assigned to the wrong examples"),
        ("gradient_scaled", "bert", "gradients", "`bert.encoder.layer.1.intermediate.dense.weight` differ by 1.0e-02"),
        ("adam_uncorrected", "bert", "step", "bias correction"),
        ("biased_variance", "resnet", "statistics", "biased variance"),
    ],
)
def test_a_planted_fault_is_named_at_its_stage(fault: str, family: str, stage: str, words: str) -> None:
    healthy, faulty, reference = evidence("torch", family), evidence(fault, family), evidence("torch", family, "fp64")
    stages = compare(healthy, faulty, reference)
    failed = [each.name for each in stages if not each.passed]
    assert failed[:1] == [stage], [(each.name, each.error) for each in stages]
    explanation = explain(stages, healthy, faulty)
    assert words in explanation
    if fault != "dropout_left_on":
        assert f"check {fault}" in explanation
    caught = next(each for each in stages if each.name == stage)
    assert caught.error is not None
    assert caught.error > 2 * caught.tolerance, "the error is too close to the tolerance"
    relaxed = compare(healthy, faulty, evidence("torch", family, "fp64", perturbed=True))
    assert next(each.name for each in relaxed if not each.passed) == stage, "the fault is attributed to rounding"


def test_step_without_bias_correction_is_reported_with_its_length() -> None:
    """Kingma and Ba 2015: (1 - beta1) / sqrt(1 - beta2) = 0.1 / sqrt(0.001)."""
    healthy, faulty = evidence("torch", "bert"), evidence("adam_uncorrected", "bert")
    explanation = explain(compare(healthy, faulty, None), healthy, faulty)
    assert "the step of adam_uncorrected is 3.16" in explanation


def test_wrong_mask_affects_only_some_examples() -> None:
    healthy, faulty = evidence("torch", "bert"), evidence("attention_mask", "bert")
    logits = next(stage for stage in compare(healthy, faulty, None) if stage.name == "logits")
    assert "examples exceed the tolerance" in logits.where
