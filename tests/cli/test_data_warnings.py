"""Warnings about the user's data are the same in planning, in ``harness data info``, in a run and in its record."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from command_line import harness_cli
from own_files import write_csv

from harness.data.summary import DataSummary
from harness.data.user_files.dataset import UserDataset
from harness.records.store import Store

PLUGINS = pytest.mark.plugins("nlp", "vision", "regression", "speech", "baselines")

COUNT = 40
PARTS = ["train"] * 28 + ["validation"] * 4 + ["test"] * 8
DUPLICATED = (0, 1, 2, 3)
"""Numbers of the examples that have a duplicate in the test split. The duplicate of the last one has another label."""
EXACT = "4 of 44 rows are duplicates of other rows"
ENCODED = "4 of 44 rows are duplicates of other rows (2 in another format or with other metadata)"
SHARED = "4 of 12 test examples also occur in the training split after preparation, so a model can score well by "
CONTRADICTORY = "2 of 44 examples are identical to an example of another class after preparation"


def labels(kind: str) -> list[Any]:
    """Return the targets of all examples, followed by those of the duplicates."""
    if kind == "table":
        return [round(value, 3) for value in np.random.default_rng(1).normal(size=COUNT + len(DUPLICATED))]
    return ["ab"[n % 2] for n in range(COUNT)] + ["ab"[(n + (n == DUPLICATED[-1])) % 2] for n in DUPLICATED]


def table(root: Path, kind: str, given: bool) -> Path:
    rng = np.random.default_rng(0)
    cells: list[Any] = rng.normal(size=COUNT).tolist()
    if kind == "text":
        cells = [" ".join(rng.choice(list("bcdfghjklm"), 9)) for _ in range(COUNT)]
    columns = {kind: [*cells, *(cells[n] for n in DUPLICATED)], "label": labels(kind)}
    return write_csv(root / "t.csv", {**columns, **({"split": PARTS + ["test"] * len(DUPLICATED)} if given else {})})


def folder(root: Path, kind: str, given: bool) -> Path:
    """Write files, of which one has an invalid header, and one has a valid header and damaged content."""
    rng = np.random.default_rng(0)
    names, first, second = labels(kind), *({"image": (".png", ".bmp"), "audio": (".wav", ".flac")}[kind])

    def place(number: int, name: str) -> Path:
        part = [*PARTS, *["test"] * len(DUPLICATED)][number]
        path = root / "d" / (part if given else "") / names[number] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    for number in range(COUNT):
        path = place(number, f"{number}{first}")
        if kind == "image":
            from PIL import Image

            image = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8))
            image.save(path)
        else:
            import soundfile

            samples = rng.integers(-9000, 9000, 800).astype(np.int16)
            soundfile.write(path, samples, 8000)
        if number in DUPLICATED[:2]:
            shutil.copy(path, place(COUNT + number, f"copy of {number}{first}"))
        elif number in DUPLICATED:
            copy = place(COUNT + number, f"copy of {number}{second}")
            image.save(copy) if kind == "image" else soundfile.write(copy, samples, 8000)
    place(0, f"junk{first}").write_bytes(b"junk")
    damaged = place(1, f"damaged{second}")
    whole = place(COUNT + DUPLICATED[-1], f"copy of {DUPLICATED[-1]}{second}").read_bytes()
    damaged.write_bytes(whole[: len(whole) * 2 // 3])
    return root / "d"


TASKS = {"text": "nlp", "table": "regression", "image": "vision", "audio": "speech"}
MODELS = {"text": "tfidf-logreg", "table": "ridge", "image": "logreg", "audio": "mfcc-svm"}


def written(root: Path, kind: str, given: bool) -> tuple[Path, tuple[str, ...]]:
    """Write data with duplicates. Return the path and the options for the command line."""
    if kind in ("text", "table"):
        return table(root, kind, given), ("--target-column", "label")
    pytest.importorskip("PIL" if kind == "image" else "soundfile")
    return folder(root, kind, given), ("--on-bad-row", "skip")


def described(path: Path, kind: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """Return the warnings of ``harness data info``."""
    result = harness_cli("data", "info", path, "--task", TASKS[kind], *options, "--format", "json")
    return msgspec.json.decode(result.stdout, type=DataSummary).info.warnings


def selection(path: Path, kind: str, options: tuple[str, ...]) -> tuple[object, ...]:
    """Return the arguments of a run."""
    return (
        "run", "--task", TASKS[kind], "--dataset", path, *options, "--model", MODELS[kind], "--backend", "baseline",
        "--protocol", "quick", "--results", path.parent / "results",
    )  # fmt: skip


def printed(stderr: str, name: str) -> list[str]:
    prefix = f"Warning: {name}: "
    return [line.removeprefix(prefix) for line in stderr.splitlines() if line.startswith(prefix)]


@PLUGINS
@pytest.mark.parametrize("given", [False, True], ids=["drawn", "given"])
@pytest.mark.parametrize("kind", TASKS)
def test_duplicates_are_counted_once_and_alike_in_planning_and_data_info(
    tmp_path: Path, kind: str, given: bool
) -> None:
    path, options = written(tmp_path, kind, given)
    found = described(path, kind, options)
    about = [text for text in found if any(part in text for part in ("duplicates", "identical", "occur in", "bad row"))]
    decoded = kind in ("image", "audio")
    expected = [ENCODED if decoded else EXACT, *[SHARED] * given, *[CONTRADICTORY] * (kind != "table")]
    assert [text[: len(start)] for text, start in zip(about[decoded:], expected, strict=True)] == expected
    assert [text.split(":")[0] for text in about[:decoded]] == ["2 bad rows were skipped"] * decoded

    planned = harness_cli(*selection(path, kind, options), "--dry-run").stderr
    warned = printed(planned, path.name)
    assert set(warned) <= set(found)
    assert [text for text in warned if "duplicates" in text] == ([] if decoded else [EXACT])
    assert ("Note: d: the files are decoded by the run" in planned) == decoded


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_settle_reports_what_does_not_depend_on_decoded_content(tmp_path: Path, kind: str) -> None:
    path, _ = written(tmp_path, kind, given=False)
    (path / "a" / "notes.txt").write_text("other format")
    dataset = UserDataset(path, kind, "classification")
    options, source, raw = dataset.settle(dataset.Options(on_bad_row="skip"))
    assert raw is None
    assert [text.split(" that ")[0] for text in source.warnings] == ["1 file is not in a format"]
    assert set(source.warnings) < set(dataset.load(options).warnings)


@PLUGINS
@pytest.mark.slow
def test_run_with_several_seeds_prints_each_recorded_warning_once(tmp_path: Path) -> None:
    kind = "image"
    path, options = written(tmp_path, kind, given=True)
    done = harness_cli(*selection(path, kind, options), "--seed", "0,1", "--quality-only")
    records = [run.record for run in Store(tmp_path / "results").load().runs]
    (warnings,) = {record.provenance.data.warnings for record in records if record.provenance.data}
    assert len(records) == 2
    assert sorted(printed(done.stderr, path.name)) == sorted(warnings)
    assert described(path, kind, options) == warnings
    shown = harness_cli("show", "--results", tmp_path / "results", records[0].run_id).stdout
    assert [shown.count(text) for text in warnings] == [1] * len(warnings)
