"""Tests of ``harness data info`` with every kind of source, and of ``harness list options``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import harness_cli
from own_files import houses, photos, reviews, write_csv, write_image, write_jsonl, write_sound

from harness.data.summary import DataSummary

PLUGINS = pytest.mark.plugins("nlp", "vision", "regression", "speech", "baselines")


def rows_of(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def tsv(root: Path) -> Path:
    rows = [f"film {number} was good\t{'np'[number % 2]}" for number in range(30)]
    (root / "reviews.tsv").write_text("\n".join(["review\tlabel", *rows]) + "\n")
    return root / "reviews.tsv"


def json_array(root: Path) -> Path:
    (root / "reviews.json").write_text(json.dumps(rows_of(reviews())))
    return root / "reviews.json"


def parquet(root: Path) -> Path:
    pytest.importorskip("pyarrow", reason="Parquet files are read by pyarrow")
    import pandas

    pandas.DataFrame({**houses(), "area": range(40)}).to_parquet(root / "houses.parquet")
    return root / "houses.parquet"


def in_splits(root: Path) -> Path:
    for split, count in (("Training", 8), ("val", 4), ("TEST", 4)):
        photos(root / "scans" / split, count)
    return root / "scans"


def with_metadata(root: Path) -> Path:
    names = [f"{number}.png" for number in range(20)]
    for number, name in enumerate(names):
        write_image(root / "listed" / name, (8, 8), seed=number)
    write_csv(root / "listed" / "metadata.csv", {"file_name": names, "kind": ["xy"[n % 2] for n in range(20)]})
    return root / "listed"


def metadata_file(root: Path) -> Path:
    return with_metadata(root) / "metadata.csv"


def split_metadata(root: Path) -> Path:
    for split, count in (("train", 12), ("validation", 4), ("test", 4)):
        for number in range(count):
            write_image(root / "hf" / split / f"{number}.png", (8, 8), seed=100 * count + number)
        rows = [{"file_name": f"{number}.png", "label": "xy"[number % 2]} for number in range(count)]
        write_jsonl(root / "hf" / split / "metadata.jsonl", rows)
    return root / "hf"


def sounds(root: Path) -> Path:
    for number in range(20):
        write_sound(root / "sounds" / "ab"[number % 2] / f"{number}.wav", 1600 + 10 * number, seed=number)
    return root / "sounds"


SOURCES: dict[str, tuple[str, Callable[[Path], Path], int, list[str]]] = {
    "csv": ("nlp", lambda root: write_csv(root / "reviews.csv", reviews()), 30, []),
    "csv-upper-case": ("nlp", lambda root: write_csv(root / "REVIEWS.CSV", reviews()), 30, []),
    "tsv": ("nlp", tsv, 30, []),
    "jsonl": ("nlp", lambda root: write_jsonl(root / "reviews.jsonl", rows_of(reviews())), 30, []),
    "ndjson": ("nlp", lambda root: write_jsonl(root / "reviews.ndjson", rows_of(reviews())), 30, []),
    "json": ("nlp", json_array, 30, []),
    "table": ("regression", lambda root: write_csv(root / "t.csv", houses()), 40, ["--target-column", "price"]),
    "two-targets": (
        "regression",
        lambda root: write_csv(root / "t.csv", houses()),
        40,
        ["--target-column", "price,rooms"],
    ),
    "parquet": ("regression", parquet, 40, ["--target-column", "price"]),
    "class-folders": ("vision", lambda root: photos(root / "photos", 10), 20, []),
    "split-folders": ("vision", in_splits, 32, []),
    "metadata": ("vision", with_metadata, 20, []),
    "metadata-file": ("vision", metadata_file, 20, []),
    "metadata-in-splits": ("vision", split_metadata, 20, []),
    "recordings": ("speech", sounds, 20, ["--set", "task.seconds=0.2"]),
    "embedded": ("vision", lambda _: Path("digits"), 1797, []),
}


@PLUGINS
@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_source_is_described(tmp_path: Path, source: str) -> None:
    task, write, count, options = SOURCES[source]
    if task in ("vision", "speech"):
        pytest.importorskip("PIL" if task == "vision" else "soundfile")
    path = write(tmp_path)
    result = harness_cli("data", "info", path, "--task", task, *options, "--format", "json")
    found = msgspec.json.decode(result.stdout, type=DataSummary)
    assert sum(split.examples for split in found.info.splits.values()) == count
    assert set(found.info.splits) == {"train", "validation", "test"}
    assert all(
        len(split.classes) == (0 if task == "regression" else found.info.outputs)
        for split in found.info.splits.values()
    )
    assert len(found.examples) == 3
    assert all(example.content and example.target for example in found.examples)
    assert found.info.inputs
    assert all(all(side > 0 for side in spec.shape) for spec in found.info.inputs.values())
    assert bool(found.columns) == (path.suffix != "" or "metadata" in source)
    shown = harness_cli("data", "info", path, "--task", task, *options).stdout
    assert f"{found.info.splits['train'].examples:,} train" in shown
    assert all(warning.split()[0] in shown for warning in found.info.warnings)


@PLUGINS
@pytest.mark.parametrize(
    ("arguments", "expected", "absent"),
    [
        ("", ["recipe.epochs", "task.max_length", "dataset.decimal", "model.hidden_size", "protocol."], []),
        ("--task nlp", ["recipe.epochs", "task.max_length"], ["task.image_size"]),
        ("--task vision", ["task.image_size"], ["task.max_length"]),
        ("--task speech", ["task.seconds"], ["task.max_length"]),
        ("--task regression", ["task.missing"], ["task.seconds"]),
        ("--task nlp --model bert-tiny", ["model.hidden_size"], ["task.image_size"]),
        ("--task nlp --dataset trec", ["dataset.labels"], ["dataset.decimal"]),
        ("--task regression --dataset wine-quality", ["dataset.wines"], ["dataset.labels"]),
        ("--model resnet-20", ["recipe.epochs", "model."], ["task.image_size"]),
        ("--task nlp --dataset my.csv", ["dataset.text_column", "dataset.encoding"], ["dataset.decimal"]),
        ("--task regression --dataset my.csv", ["dataset.decimal"], ["dataset.text_column"]),
        ("--task vision --dataset ./photos", ["dataset.image_range"], ["dataset.text_column"]),
    ],
)
def test_list_options_prints_the_settings_of_a_selection(
    arguments: str, expected: list[str], absent: list[str]
) -> None:
    shown = harness_cli("list", "options", *arguments.split()).stdout
    assert [name for name in expected if name not in shown] == []
    assert [name for name in absent if name in shown] == []


@PLUGINS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("list optoins", "did you mean 'options'?"),
        ("list option", "did you mean 'options'?"),
        ("list model", "did you mean 'models'?"),
        ("list options --task nlpp", "did you mean 'nlp'?"),
        ("list options --task nlp --model bert_tiny", "did you mean 'bert-tiny'?"),
        ("list options --task nlp --model resnet-20", "cannot be used with task 'nlp'"),
        ("list options --task nlp --dataset mnist", "cannot be used with task 'nlp'"),
        ("list options --task vision --dataset fashion_mnist_", "did you mean 'fashion-mnist'?"),
        ("run --task nlp --dry-run --set recipe.lr=1", "known: recipe."),
        ("run --task nlp --dry-run --set recipe.num_epochs=1", "did you mean 'recipe.epochs'?"),
        ("run --task nlp --dry-run --set recipe.batchsize=1", "did you mean 'recipe.batch_size'?"),
        ("run --task nlp --dry-run --set receipe.epochs=1", "did you mean 'recipe'?"),
        ("run --task nlp --dry-run --set task.maxlength=1", "did you mean 'task.max_length'?"),
        ("run --task nlp --dry-run --set recipe.optimizer=adamm", "did you mean 'adam"),
        ("run --task nlp --dry-run --metric acuracy", "did you mean 'accuracy'?"),
        ("run --task nlp --dry-run --backend pytorch", "did you mean 'torch'?"),
    ],
)
def test_close_names_are_suggested_by_the_command_line(arguments: str, message: str) -> None:
    assert message in " ".join(harness_cli(*arguments.split(), status=2).stderr.split())
