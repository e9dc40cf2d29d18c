"""Evidence for parity checks, computed in the tests' process with the torch backend and with planted faults."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import numpy as np

from harness.checks.parity.evidence import ParityJob, gather
from harness.checks.parity.report import Evidence
from harness.execute.preparation import load_and_prepare, prepare, prepare_data
from harness.execute.teacher_logits import logits_path
from harness.interfaces import Dataset, PreparedData, Task
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import PluginRef, RunSpec, TrainedWeights
from harness.records.arrays import digest, write_arrays

FAMILIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "linear": ("regression", "linear", ()),
    "mlp": ("vision", "mlp", ()),
    "resnet": (
        "vision",
        "resnet-20",
        ("model.embedding_size=8", "model.hidden_sizes=[8,16]", "model.depths=[1,1]", "recipe.batch_size=16"),
    ),
    "bert": (
        "nlp",
        "bert-tiny",
        (
            "model.hidden_size=32",
            "model.num_attention_heads=2",
            "model.intermediate_size=64",
            "recipe.batch_size=16",
        ),
    ),
    "lstm": ("nlp", "lstm", ("model.embedding_size=16", "model.hidden_size=16", "recipe.batch_size=16")),
    "wav2vec2": ("speech", "wav2vec2-tiny", ("model.num_hidden_layers=1", "recipe.batch_size=4")),
}
"""Task, model and overrides that make the model small, for each family. The recipe is that of the model."""
PLUGINS = ("nlp", "regression", "speech", "vision", "torch", "faulty")


@cache
def catalog() -> Catalog:
    refs = [PluginRef(name=name, value=f"harness_{name}", distribution="harness", version="0") for name in PLUGINS]
    loaded = load(refs)
    assert loaded.failures == ()
    return loaded


_PREPARED: dict[tuple[str, str, str], PreparedData] = {}


def prepared_once(task: Task, dataset: Dataset, spec: RunSpec) -> PreparedData:
    """Return prepared data, which take longer to prepare than a small model to train."""
    key = (task.name, dataset.name, repr((spec.task_options, spec.dataset_options)))
    if key not in _PREPARED:
        _PREPARED[key] = load_and_prepare(task, dataset, spec.dataset_options, spec.task_options)[1]
    return _PREPARED[key]


def spec_of(family: str, overrides: tuple[str, ...] = (), precision: str = "fp32", backend: str = "torch") -> RunSpec:
    """Return the spec of a small model. With options of distillation, the logits of its teacher are random."""
    distillation = {
        text.partition("=")[0].removeprefix("recipe."): float(text.partition("=")[2])
        for text in overrides
        if text.startswith("recipe.distillation")
    }
    if distillation:
        overrides = tuple(text for text in overrides if not text.startswith("recipe.distillation"))
        spec = spec_of(family, overrides, precision, backend)
        recipe = msgspec.structs.replace(spec.recipe, **distillation)
        return msgspec.structs.replace(spec, recipe=recipe, teacher=_random_teacher(family, spec))
    task, model, small = FAMILIES[family]
    (spec,) = expand(
        Selection(
            tasks=(task,),
            backends=(backend,),
            models=(model,),
            devices=("cpu",),
            precisions=(precision,),
            threads=1,
            overrides=small + overrides,
        ),
        catalog(),
    )
    return spec


def _random_teacher(family: str, spec: RunSpec) -> TrainedWeights:
    """Return a reference to a teacher, and write its random logits to the cache."""
    teacher = TrainedWeights(run="random", backend="torch", digest=family, dataset_digest="")
    path = logits_path(teacher)
    if not path.exists():
        data = prepare_data(catalog(), spec)
        arrays = {
            "logits": np.random.default_rng(5).normal(size=(len(data.train), data.info.outputs)).astype(np.float32),
            "targets": np.asarray(data.train.targets),
            "label_names": np.array(data.info.label_names, dtype=str),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, arrays | {"digest": np.array(digest(arrays))})
    return teacher


@cache
def training_evidence(
    fault: str, family: str, overrides: tuple[str, ...] = (), steps: int = 12, precision: str = "fp32"
) -> Evidence:
    """Return the evidence for a session of `harness_faulty_training`, or for torch if `fault` is empty."""
    import harness_faulty

    spec = spec_of(family, overrides, precision, "faulty-training" if fault else "torch")
    first = not fault and precision == "fp32"
    job = ParityJob(spec=spec, plugins=catalog().refs_for(spec), steps=steps, reference=precision == "fp64")
    harness_faulty.FaultyTraining.fault = fault
    return computed(job, None if first else training_evidence("", family, overrides, steps))


_LATE: dict[int, dict[str, Any]] = {}
"""Late weights by the id of the evidence of the backend that reached them."""


def computed(job: ParityJob, first: Evidence | None) -> Evidence:
    """Compute evidence in this process, at the late weights of `first` or, if it is None, at those that are reached."""
    handed: dict[str, Any] = {}
    late = None if first is None else lambda: late_weights(first)
    evidence = Evidence(*gather(job, prepare(job.spec, job.plugins), late, handed.update))
    _LATE[id(evidence)] = handed
    return evidence


def late_weights(evidence: Evidence) -> dict[str, Any]:
    """Return the late weights that the backend reached, ``K/NAME``."""
    return _LATE[id(evidence)]
