"""Tests of the results directory: atomic writes, repeats, and reading if other records are damaged."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from sample_records import failure, record
from stored_runs import keep
from strategies import records
from toy_plugin import environment_with

from harness.errors import RecordError, UnknownNameError, UsageError
from harness.records import PROTOCOLS, DataSource, Pretrained, Recipe, RunRecord, TrainedWeights
from harness.records import store as store_module
from harness.records.store import (
    RECORD,
    WEIGHTS,
    Store,
    StoredRun,
    earlier_run_id,
    read_record,
    results_dir,
    write_json,
)


def test_commit_assigns_an_id_and_stores_all_files(store: Store) -> None:
    run = keep(store, record())
    key = run.record.spec.key
    assert run.path.name == run.record.run_id == f"nlp-cldr-langid-bert-tiny-torch-s0-{key[:8]}-1"
    assert (run.record.key, run.record.repeat) == (key, 1)
    assert sorted(path.name for path in run.path.iterdir()) == ["log.txt", RECORD]
    assert read_record(run.path / RECORD) == run.record
    assert list(store.path.iterdir()) == [run.path]
    assert (run.path.stat().st_mode & 0o777) == 0o755


def test_repeats_do_not_overwrite_each_other(store: Store) -> None:
    runs = [keep(store, record(seed=seed)) for seed in (0, 0, 1, 0)]
    assert [run.record.repeat for run in runs] == [1, 2, 1, 3]
    assert len({run.path for run in runs}) == 4


def test_repeats_of_earlier_ids_and_of_renamed_data_are_counted(store: Store) -> None:
    source = DataSource(path="/data/visits.csv")
    runs = [keep(store, record(dataset=name, source=source)) for name in ("visits.csv", "visits 2.csv")]
    earlier = store.path / earlier_run_id(runs[0].record.spec, runs[0].record.key, 1)
    runs[0].path.rename(earlier)
    runs.append(keep(store, record(dataset="visits.csv", source=source)))
    assert [run.record.repeat for run in runs] == [1, 2, 3]
    assert earlier.name.startswith("nlp-bert-tiny-torch-s0-")


@pytest.mark.parametrize(
    ("dataset", "part"),
    [
        ("sms-spam", "-sms-spam-"),
        ("visits of 2026_01.csv", "-visits-of-2026-01-csv-"),
        ("a very long name of a file with numbers.parquet", "-a-very-long-name-of-a-fi-"),
        ("../データ", "-"),
    ],
)
def test_run_id_contains_a_short_name_of_the_dataset(dataset: str, part: str) -> None:
    assert record(dataset=dataset).run_id.startswith(f"nlp{part}bert-tiny-torch-s0-")


def test_existing_file_with_the_name_of_a_run_is_kept(store: Store) -> None:
    name = f"nlp-cldr-langid-bert-tiny-torch-s0-{record().spec.key[:8]}"
    (store.path / f"{name}-1").write_text("mine")
    (store.path / f"{name}-2").mkdir()
    assert keep(store, record()).record.repeat == 3
    assert (store.path / f"{name}-1").read_text() == "mine"


def test_two_processes_commit_at_once(store: Store) -> None:
    code = """
import sys
from pathlib import Path
from harness.records.store import Store
from sample_records import record
store = Store(Path(sys.argv[1]))
for _ in range(15):
    with store.scratch() as scratch:
        store.commit(scratch, record())
"""
    environment = environment_with(Path(__file__).parents[1] / "helpers")
    writers = [subprocess.Popen([sys.executable, "-c", code, str(store.path)], env=environment) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    loaded = store.load()
    assert loaded.problems == []
    assert sorted(run.record.repeat for run in loaded.runs) == list(range(1, 31))
    assert all(run.path.name == run.record.run_id for run in loaded.runs)


def test_scratch_directory_without_a_commit_is_removed(store: Store) -> None:
    def fail(scratch: Path) -> None:
        (scratch / "half").write_text("x")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), store.scratch() as scratch:
        fail(scratch)
    assert list(store.path.iterdir()) == []


def test_uncommitted_run_is_not_loaded(store: Store) -> None:
    with store.scratch() as scratch:
        write_json(scratch / RECORD, record())
        assert store.load() == store_module.Loaded([], [])


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(records)
def test_record_round_trips_through_a_file(tmp_path: Path, kept: RunRecord) -> None:
    write_json(tmp_path / RECORD, kept)
    assert read_record(tmp_path / RECORD) == kept


@pytest.mark.parametrize("name", ["with space", "Ergebnisse-äöü-結果", "a/b/c", "per%20cent'quote\""])
def test_results_directory_may_have_any_name(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / name)
    store.prepare()
    run = keep(store, record())
    assert [stored.record for stored in store.load().runs] == [run.record]
    assert store.find(str(run.path)).record == run.record


def test_file_in_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    for path in (tmp_path / "results", tmp_path / "results" / "below"):
        with pytest.raises(RecordError, match=f"{path}: cannot store results here: .*choose another directory"):
            Store(path).prepare()
        with pytest.raises(RecordError, match=str(path)), Store(path).scratch():
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root has write permission everywhere")
def test_directory_without_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RecordError, match="Permission denied"):
        Store(tmp_path).prepare()


def test_full_disk_is_an_error_and_leaves_no_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kept = keep(store, record())

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match=rf"{RECORD}: cannot be written: No space left on device"):
        keep(store, record())
    assert list(store.path.iterdir()) == [kept.path]


def test_write_over_the_size_limit_is_an_error(store: Store) -> None:
    """The write fails in the middle, as on a full disk or over a quota."""
    code = """
import resource, signal, sys
from pathlib import Path
from harness.errors import RecordError
from harness.records.store import Store
from sample_records import record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
store = Store(Path(sys.argv[1]))
try:
    with store.scratch() as scratch:
        store.commit(scratch, record())
except RecordError as error:
    print(error)
"""
    environment = environment_with(Path(__file__).parents[1] / "helpers", PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-c", code, str(store.path)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "record.json: cannot be written: File too large" in output
    assert list(store.path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200


def test_find_accepts_ids_keys_and_paths(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, again = keep(store, record()), keep(store, record())
    vision = keep(store, record(task="vision", model="resnet-20"))
    for text in (vision.record.run_id, "vision", "resnet-20-torch", vision.record.key[:8], f"{vision.path}/"):
        assert store.find(text) == StoredRun(vision.path, vision.record)
    assert store.find(again.record.run_id).record.repeat == 2
    monkeypatch.chdir(store.path)
    assert store.find(torch.record.run_id).record == torch.record


def test_find_lists_the_settings_and_repeats_in_which_runs_differ(store: Store) -> None:
    plain = keep(store, record())
    again = keep(store, record(started_at="2025-11-23T12:00:00Z"))
    longer = keep(store, record(recipe=Recipe(epochs=5)))
    broken = keep(store, record(model="lstm"))
    (broken.path / RECORD).write_text("{")
    with pytest.raises(UsageError) as caught:
        store.find("nlp")
    lines = dict(line.strip().split(": ", 1) for line in str(caught.value).splitlines()[1:])
    assert lines == {
        plain.path.name: "recipe.epochs=2, repeat=1, started=2025-11-22T12:00:00Z",
        again.path.name: "recipe.epochs=2, repeat=2, started=2025-11-23T12:00:00Z",
        longer.path.name: "recipe.epochs=5, repeat=1, started=2025-11-22T12:00:00Z",
        broken.path.name: "not readable",
    }


def test_find_prefers_the_exact_id(store: Store) -> None:
    first, *_ = [keep(store, record()) for _ in range(10)]
    assert store.find(first.record.run_id).record.repeat == 1


def test_find_rejects_ambiguous_and_unknown_text(store: Store) -> None:
    ids = [keep(store, record(seed=seed)).record.run_id for seed in range(12)]
    with pytest.raises(UsageError, match=r"12 runs match 'nlp'; pass a longer part of one of these ids") as caught:
        store.find("nlp")
    _, *lines, last = str(caught.value).splitlines()
    assert lines == [f"  {name}: seed={name.split('-s')[1].split('-')[0]}" for name in sorted(ids)[:10]]
    assert last == "  ... and 2 more"
    with pytest.raises(UnknownNameError, match=rf"unknown run '{ids[0]}x'; did you mean '{ids[0]}'\?.*looked in"):
        store.find(ids[0] + "x")
    with pytest.raises(RecordError, match=r"nowhere/record\.json: cannot be read: No such file"):
        store.find(str(store.path / "nowhere"))


def test_find_names_the_protocols_of_ambiguous_runs(store: Store) -> None:
    for name in ("quick", "standard"):
        keep(store, record(protocol=PROTOCOLS[name].protocol))
    with pytest.raises(UsageError, match="2 runs match 'nlp'") as caught:
        store.find("nlp")
    assert sorted(line.partition(": ")[2] for line in str(caught.value).splitlines()[1:]) == [
        "protocol=quick",
        "protocol=standard",
    ]


def test_error_for_an_unknown_run_lists_few_of_many_runs(store: Store) -> None:
    for number in range(200):
        (store.path / f"run-{number:05}").mkdir()
        (store.path / f"run-{number:05}" / RECORD).write_bytes(msgspec.json.encode(record()))
    with pytest.raises(UnknownNameError) as caught:
        store.find("xyz")
    assert len(str(caught.value)) < 600


def test_results_directory_is_the_argument_the_variable_or_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_RESULTS", raising=False)
    assert results_dir() == Path("results")
    monkeypatch.setenv("HARNESS_RESULTS", "/elsewhere")
    assert results_dir() == Path("/elsewhere")
    assert results_dir("here") == Path("here")
    monkeypatch.setenv("HARNESS_RESULTS", "")
    assert results_dir() == Path("results")


WEIGHTS_OF = TrainedWeights(
    run="nlp-a", backend="torch", digest="b" * 64, dataset_digest="d" * 64, path="/results/nlp-a"
)


def test_find_trained_ignores_runs_without_weights_of_their_own(store: Store) -> None:
    trained = keep(store, record())
    for repeat in range(2):
        keep(store, record(weights=WEIGHTS_OF, repeat=repeat))
    without = keep(store, record(recipe=Recipe(epochs=5)))
    keep(store, record(failure(), recipe=Recipe(epochs=7)))
    with pytest.raises(UsageError, match="5 runs match 'nlp'"):
        store.find_trained("nlp")
    (trained.path / WEIGHTS).write_bytes(b"")
    assert store.find_trained("nlp").path == trained.path
    with pytest.raises(UsageError, match="5 runs match 'nlp'"):
        store.find("nlp")
    (without.path / WEIGHTS).write_bytes(b"")
    with pytest.raises(UsageError, match="2 runs match 'nlp'"):
        store.find_trained("nlp")


def test_find_lists_the_run_whose_weights_were_used_without_the_fields_that_follow_from_it(store: Store) -> None:
    trained, served = keep(store, record()), keep(store, record(weights=WEIGHTS_OF))
    with pytest.raises(UsageError) as caught:
        store.find("nlp")
    assert {line.strip() for line in str(caught.value).splitlines()[1:]} == {
        f"{trained.path.name}: weights.run=none",
        f"{served.path.name}: weights.run=nlp-a",
    }


def test_find_lists_a_digest_if_nothing_else_differs(store: Store) -> None:
    for digest in ("1" * 64, "2" * 64):
        pretrained = Pretrained(name="bert", digest=digest, path="/models/bert")
        keep(store, record(pretrained=pretrained))
    with pytest.raises(UsageError, match=f"pretrained.digest={'1' * 64}"):
        store.find("nlp")
