"""A model of a selection: which one, and whether it suits and can run."""

from __future__ import annotations

import msgspec

from harness.errors import CombinationError, UsageError
from harness.interfaces import Model, Task
from harness.plan import checkpoint as pretrained
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import missing
from harness.records import Pretrained


def default_model(task: Task, checkpoint: Pretrained | None, catalog: Catalog) -> str:
    """The family that takes such a checkpoint and suits the task, else the one it is named after, else the task's."""
    family = pretrained.read_config(checkpoint).get("model_type") if checkpoint else None
    for model in (provided.value for provided in catalog.models.values()):
        if suits(task, model) and (model.checkpoint_type or model.name) == family:
            return str(model.name)
    return family if isinstance(family, str) and family in catalog.models else task.default_model


def suits(task: Task, model: Model) -> bool:
    return task.produces in model.accepts and task.objective in model.objectives


def check_model(task: Task, model: Model, variant: str) -> None:
    if not suits(task, model):
        raise CombinationError(
            f"model {variant!r} (takes {', '.join(model.accepts)}; {', '.join(model.objectives)}) does not suit task "
            f"{task.name!r} ({task.produces}, {task.objective}); its default is {task.default_model!r}"
        )


def check_variant(checkpoint: Pretrained, model: Model, name: str) -> None:
    """The checkpoint decides the sizes: a variant may be named, if it has the same."""
    sizes = pretrained.model_options(checkpoint, model)
    if name == model.name:
        return
    for key, size in model.variants[name].items():
        given = sizes.get(key, size)
        if msgspec.json.encode(given) != msgspec.json.encode(size):
            raise CombinationError(
                f"the checkpoint {checkpoint.name!r} has {key}={given}, {name} has {size}; use --model {model.name}"
            )


def check_network(catalog: Catalog, model: Model, backend: str) -> None:
    if catalog.network(model.name, backend) is None:
        conflict = catalog.conflicts.get(("network", f"{model.name}/{backend}"))
        others = sorted(b for family, b in catalog.networks if family == model.name)
        raise CombinationError(
            conflict
            or f"no plugin brings model {model.name!r} to backend {backend!r}; it runs on: "
            f"{', '.join(others) or 'none'}"
            + (
                f"; without --model {backend} runs a model of its own"
                if catalog.backend(backend).default_models
                else ""
            )
        )


def nothing_runs(catalog: Catalog, model: Model) -> UsageError:
    reasons = {
        name: missing(catalog.backend(name).requires)
        if catalog.network(model.name, name)
        else catalog.conflicts.get(("network", f"{model.name}/{name}"))
        for name in sorted(catalog.backends)
    }
    told = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items() if reason)
    return CombinationError(f"no backend that can run here has the model {model.name!r}{told or '; none has it'}")
