"""From a selection to its runs."""

from __future__ import annotations

from harness.data.user_files.dataset import find_dataset
from harness.errors import UsageError
from harness.measure.environment import available_cores
from harness.plan import checkpoint as pretrained
from harness.plan.datasets import check_dataset, dataset_options, splits
from harness.plan.models import check_model, check_variant, default_model, nothing_runs
from harness.plan.overrides import parse_overrides
from harness.plan.selection import (
    MAX_THREADS,
    Selection,
    check_device,
    chosen_backends,
    known_precision,
    named_protocol,
)
from harness.plan.settings import Asked
from harness.plugins.catalog import Catalog
from harness.records import RunSpec


def expand(selection: Selection, catalog: Catalog) -> tuple[RunSpec, ...]:
    """The runs of a selection. Backends vary fastest, so that the runs to be compared alternate (A B A B).

    Raises `harness.UsageError` for an unknown name, an impossible combination or a wrong value; nothing has run then.
    """
    if not selection.tasks:
        raise UsageError(f"no task given; known: {', '.join(sorted(catalog.tasks))}")
    precisions = [known_precision(name) for name in selection.precisions]
    for device in selection.devices:
        check_device(device)
    if selection.threads is not None and not 1 <= selection.threads <= MAX_THREADS:
        raise UsageError(f"threads must lie between 1 and {MAX_THREADS}, got {selection.threads}")
    if not all(0 <= seed < 2**32 for seed in selection.seeds):  # what numpy and every framework take
        raise UsageError("a seed must lie between 0 and 4294967295")
    named = named_protocol(selection.protocol)
    overrides = parse_overrides(selection.overrides)
    available = chosen_backends(selection, catalog)
    checkpoint = pretrained.locate(selection.pretrained) if selection.pretrained else None
    specs = []
    for task_name in selection.tasks:
        task = catalog.task(task_name)
        for metric in task.metrics:
            catalog.metric(metric)
        for dataset_name in selection.datasets or (task.default_dataset,):
            dataset = find_dataset(dataset_name, task, catalog)
            check_dataset(task, dataset)
            data_settings = [
                dataset_options(dataset, overrides["dataset"] | split)
                for split in splits(selection, dataset, overrides["dataset"])
            ]
            for model_name in selection.models or (default_model(task, checkpoint, catalog),):
                model, variant = catalog.model(model_name)
                if checkpoint is not None:
                    check_variant(checkpoint, model, model_name)
                    variant = model.name
                check_model(task, model, variant)
                backends = [name for name in available if catalog.network(model.name, name)]
                if not (selection.backends or backends):
                    raise nothing_runs(catalog, model)
                asked = Asked(task, dataset, named.protocol, overrides, checkpoint, catalog)
                contenders = {
                    name: asked.contender(name, model, variant)
                    if selection.models or name in backends
                    else asked.stand_in(name, model, alone=not backends)
                    for name in (available if selection.backends else backends)
                }
                specs += [
                    RunSpec(
                        task=task_name,
                        dataset=dataset.name,
                        backend=backend,
                        device=device,
                        precision=precision,
                        compile=selection.compile,
                        deterministic=selection.deterministic,
                        seed=seed,
                        threads=selection.threads or available_cores(),
                        **contender,
                        **data,
                    )
                    for device in selection.devices
                    for precision in precisions
                    for data in data_settings
                    for seed in selection.seeds or named.seeds
                    for backend, contender in contenders.items()
                ]
    return tuple({spec.key: spec for spec in specs}.values())
