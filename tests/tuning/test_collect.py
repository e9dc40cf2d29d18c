"""Tests of merging and packing studies."""

from __future__ import annotations

import zipfile
from pathlib import Path

import msgspec
import pytest
from command_line import Invoke
from sample_records import record, spec
from stored_runs import keep

from harness.records.store import Store
from harness.tuning.collect import merge_studies
from harness.tuning.study import STUDY, TRIALS, Objective, Study, directory, load_all, save


def study(**changes: object) -> Study:
    made = Study(
        name="nlp-1",
        started_at="2025-11-22T12:00:00Z",
        spec=spec(),
        search=["recipe.epochs=1,2"],
        objectives=[Objective(name="quality", title="accuracy", unit="", higher_is_better=True)],
        sampler="tpe",
        pruner="none",
        seed=0,
        storage="journal.log",
        software={},
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two results directories with repeats of one run. The second one, whose run is older, has a study."""
    target, other = tmp_path / "target", tmp_path / "other"
    keep(Store(target), record(started_at="2025-11-24T12:00:00Z"))
    kept = keep(Store(other), record(started_at="2025-11-23T12:00:00Z"))
    save(study(confirmed={"default": [kept.record.run_id]}), other)
    keep(Store(directory(other, "nlp-1") / TRIALS), record(seed=5))
    return target, other


def test_merge_copies_studies_and_changes_the_ids_of_their_runs(invoke: Invoke, folders: tuple[Path, Path]) -> None:
    target, other = folders
    save(study(name="nlp-2", confirmed={"default": [record().run_id, "removed"]}), target)
    done = invoke("results", "merge", str(other), "--results", str(target))
    assert (done.exit_code, "1 tuning study added" in done.stdout) == (0, True), done.output
    first, second = record(repeat=1).run_id, record(repeat=2).run_id
    studies, problems = load_all(target)
    assert problems == []
    assert {each.name: each.confirmed["default"] for each in studies} == {
        "nlp-1": [first],
        "nlp-2": [second, "removed"],
    }
    assert [run.record for run in Store(directory(target, "nlp-1") / TRIALS).load().runs] == [record(seed=5)]
    assert {path.name for path in target.iterdir() if path.name.startswith(".")} <= {".index.json"}
    again = invoke("results", "merge", str(other), "--results", str(target))
    assert (again.exit_code, "study" in again.stdout) == (0, False), again.output
    assert load_all(target)[0] == studies


def test_merge_keeps_a_different_study_with_the_same_name(folders: tuple[Path, Path]) -> None:
    target, other = folders
    save(study(seed=7), target)
    assert merge_studies(target, [other], {}) == (
        0,
        [
            f"{directory(other, 'nlp-1')}: not merged, because {target / 'tuning'} contains a different study with the "
            "same name"
        ],
    )
    assert load_all(target)[0] == [study(seed=7)]


def test_merge_reports_unreadable_studies_links_and_foreign_names(folders: tuple[Path, Path]) -> None:
    target, other = folders
    (directory(other, "nlp-1") / "link").symlink_to("/etc/passwd")
    (other / "tuning" / "broken").mkdir()
    (other / "tuning" / "broken" / STUDY).write_text("{}")
    save(study(name="elsewhere"), other)
    directory(other, "elsewhere").rename(other / "tuning" / "moved")
    added, problems = merge_studies(target, [other], {})
    assert added == 1
    assert sorted(problem.split(": ")[0] for problem in problems) == [
        str(other / "tuning"),
        str(other / "tuning" / "broken" / STUDY),
        str(directory(other, "nlp-1") / "link"),
    ]
    assert not (directory(target, "nlp-1") / "link").is_symlink()


def test_bundle_contains_the_studies_of_its_runs(invoke: Invoke, folders: tuple[Path, Path], tmp_path: Path) -> None:
    target, other = folders
    save(study(name="unconfirmed"), other)

    def packed(*runs: str) -> dict[str, Study]:
        done = invoke("bundle", *runs, "--output", str(tmp_path / "all.zip"), "--results", str(other))
        assert done.exit_code == 0, done.output
        with zipfile.ZipFile(tmp_path / "all.zip") as archive:
            names = [name for name in archive.namelist() if name.startswith("records/tuning/")]
            return {name.split("/")[2]: msgspec.json.decode(archive.read(name), type=Study) for name in names}

    assert packed().keys() == {"nlp-1", "unconfirmed"}
    assert packed("nlp").keys() == {"nlp-1"}
    both = packed(str(target), str(other))
    assert both["nlp-1"].confirmed == {"default": [record(repeat=1).run_id]}
