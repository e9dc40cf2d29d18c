"""Differences between runs in their settings, machines and software versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from harness.analysis.formatting import short_commit
from harness.records import PROTOCOLS, RunRecord, RunSpec

IDENTITY = ("task", "dataset", "model", "backend", "device", "precision")
"""Fields of a spec that identify a row of a table."""
_IN_TITLE = ("env", "devices", "teacher")
"""Settings that `RunSpec.title` contains."""


def machine_of(record: RunRecord) -> dict[str, str]:
    """Return the processor, the number of cores and the GPUs of a run's machine."""
    environment = record.environment
    gpus = Counter(gpu.name for gpu in environment.gpus)
    return {
        "cpu": environment.cpu,
        "cores": str(environment.cores),
        "gpu": " + ".join(f"{n} x {name}" if n > 1 else name for name, n in sorted(gpus.items())) or "none",
    }


def software_of(record: RunRecord) -> dict[str, str]:
    """Return the package versions and the dataset digest, which may differ between runs with the same spec."""
    digest = record.provenance.dataset_digest
    data = {"data": digest[:8]} if digest else {}
    return {**record.environment.packages, "python": record.environment.python, **data}


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (name, before, after) for each entry that differs. A missing value is shown as ``none``.

    Settings that are implied by the names of the protocols are omitted.
    """
    return [(name, before.get(name, "none"), after.get(name, "none")) for name in differing([before, after])]


def described(record: RunRecord) -> dict[str, str]:
    """Return all properties of a run except the seed, the split and the fields of `IDENTITY`."""
    environment = record.environment
    drivers = {"driver": environment.gpus[0].driver} if environment.gpus else {}
    commit = {"commit": short_commit(environment.git_commit)} if environment.git_commit else {}
    lock = {"environment lock": environment.lock_digest[:8]} if environment.lock_digest else {}
    place = {"os": environment.os, "kernel": environment.kernel, **drivers}
    return settings_of(record.spec) | machine_of(record) | place | software_of(record) | lock | commit


def differences(firsts: list[RunRecord]) -> list[str]:
    """Describe each row by the settings in which it differs from similar rows. Rows are similar if they have the same
    task, dataset, model, device and precision. Settings and machines are compared. Package versions are compared only
    between rows with the same backend. `firsts` contains one record from each row.
    """
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, record in enumerate(firsts):
        alike.setdefault(tuple(getattr(record.spec, name) for name in IDENTITY if name != "backend"), []).append(index)
    texts = [""] * len(firsts)
    for indices in alike.values():
        settings = {index: settings_of(firsts[index].spec) | machine_of(firsts[index]) for index in indices}
        software = {index: software_of(firsts[index]) for index in indices}
        names = differing(list(settings.values()))
        for index in indices:
            backend = firsts[index].spec.backend
            same_backend = [software[other] for other in indices if firsts[other].spec.backend == backend]
            shown = {name: settings[index].get(name, absent(name)) for name in names}
            shown |= {name: software[index].get(name, "none") for name in differing(same_backend)}
            shown.pop("compile", None)
            for name in ("weights", "dataset.folds", "dataset.random_splits"):
                shown.pop(name, None)  # the table names the runs and counts the splits
            spec = firsts[index].spec
            compiled = spec.compile  # listed even if all rows are compiled
            if spec.devices > 1:
                shown = {"devices": str(spec.devices), **shown}  # likewise
            texts[index] = ", ".join(["compile"] * compiled + [f"{name}={value}" for name, value in shown.items()])
    return texts


def absent(name: str) -> str:
    """Return the text for a setting that is missing from the result of `settings_of`. The setting `env` is missing if a
    run used the current environment, so its text is ``current``. For all other settings, the text is ``none``."""
    return "current" if name == "env" else "none"


def varying(specs: Sequence[RunSpec]) -> list[str]:
    """Return the names of the settings that differ among specs with the same task, dataset, model and backend, such as
    ``recipe.batch_size``.

    Specs of different models or tasks are not compared, because their default settings differ.
    """
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for spec in specs:
        groups.setdefault((spec.task, spec.dataset, spec.model, spec.backend), []).append(settings_of(spec))
    return list(dict.fromkeys(name for group in groups.values() for name in differing(group)))


def titles(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Return a title for each run in a plan, keyed by the run's key.

    A title consists of `RunSpec.title` and those settings that differ between the runs with the same task, model and
    backend. The dataset, the device and the precision are treated as settings. An example is
    ``regression · mlp · torch · seed 0 · recipe.batch_size=16``.
    """
    groups: dict[tuple[str, ...], list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.task, spec.model, spec.backend), []).append(spec)
    found = {}
    for group in groups.values():
        fields = [name for name in ("dataset", "device", "precision") if len({getattr(one, name) for one in group}) > 1]
        names = [name for name in varying(group) if name not in _IN_TITLE]
        for spec in group:
            settings = settings_of(spec)
            values = [f"{name}={getattr(spec, name)}" for name in fields]
            values += [f"{name}={settings.get(name, absent(name))}" for name in names]
            found[spec.key] = " · ".join([spec.title, *values])
    return found


def settings_of(spec: RunSpec) -> dict[str, str]:
    """Return the settings of a spec by name, except for the seed, the split and the fields of `IDENTITY`.

    As in the run's key, dataset options that were added later are omitted if they have their default value.
    """
    sections = {"recipe": "recipe", "protocol": "protocol"} | {f"{s}_options": s for s in ("task", "dataset", "model")}
    flat: dict[str, str] = {}
    replaced = {"protocol": msgspec.structs.asdict(spec.protocol), "dataset_options": spec.options_of_all_splits}
    for name, value in (msgspec.to_builtins(spec) | replaced).items():
        if name in sections:
            flat |= {f"{sections[name]}.{key}": _plain(inner) for key, inner in value.items()}
            if spec.source is not None and "dataset.sha256" in flat:
                flat["dataset.sha256"] = flat["dataset.sha256"][:8]
        elif name not in (*IDENTITY, "seed", "source", "pretrained", "weights", "teacher") and (name != "env" or value):
            flat[name] = _plain(value)
    if spec.pretrained is not None:
        flat["pretrained"] = f"{spec.pretrained.name}@{spec.pretrained.digest[:8]}"
        flat = {key: value for key, value in flat.items() if value != spec.pretrained.path}
    if spec.weights is not None:
        flat["weights"] = f"trained by {spec.weights.backend}"
        if spec.weights.exported is not None:
            flat["weights"] += f", exported by {spec.weights.exported.exporter}"
    if spec.teacher is not None:
        flat["teacher"] = spec.teacher.run
    return flat


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the names of the settings that differ, except for settings that are implied by the names of the
    protocols."""
    names = dict.fromkeys(name for one in settings for name in one)
    return [
        name
        for name in names
        if len({one.get(name) for one in settings}) > 1
        and not all(_follows_from_protocol(name, one) for one in settings)
    ]


def _follows_from_protocol(name: str, settings: Mapping[str, str]) -> bool:
    """Return whether a setting has the value that the named protocol prescribes."""
    protocol = PROTOCOLS.get(settings.get("protocol.name", ""))
    section, _, key = name.partition(".")
    if protocol is None or section != "protocol" or key == "name":
        return False
    return settings.get(name) == _plain(msgspec.structs.asdict(protocol.protocol).get(key))
