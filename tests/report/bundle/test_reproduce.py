from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from command_line import Invoke, harness_cli
from sample_records import failure, record, success
from toy_plugin import SET_FAST, install_toy

from harness.cli.reproduce import _copies, _with_data, render
from harness.deploy.explanations import FOLDER, PERMUTATION
from harness.errors import UsageError
from harness.records import DataSource, RunRecord, Success
from harness.records.store import AUDIT, RECORD, Loaded, Store, write_json
from harness.report.bundle.reproduce import judge
from harness.report.bundle.unpack import unpack

RUN = ("run", "--task", "toy-classify,toy-regress", "--backend", "toy-numpy", "--threads", "1", "--seed", "0,1", "-q")


def scored(value: float, interval: tuple[float, float] | None = (0.70, 0.80), **changes: object) -> RunRecord:
    made = record(success(value), **changes)
    assert isinstance(made.outcome, Success)
    scores = msgspec.structs.replace(made.outcome.scores, intervals={"accuracy": interval} if interval else {})
    return msgspec.structs.replace(made, outcome=msgspec.structs.replace(made.outcome, scores=scores))


def test_judge_score_within_interval_over_examples_agrees() -> None:
    then = scored(0.75)
    assert judge(then, scored(0.79), [then]).quality == "agrees"
    outcome = judge(then, scored(0.81), [then])
    assert (outcome.quality, outcome.agrees) == ("differs", False)
    assert "0.7 to 0.8" in outcome.why


def test_judge_without_interval_uses_the_other_seeds() -> None:
    seeds = [scored(0.74, None), scored(0.75, None, seed=1), scored(0.76, None, seed=2)]
    assert judge(seeds[0], scored(0.78, None), seeds).quality == "agrees"
    assert judge(seeds[0], scored(0.90, None), seeds).quality == "differs"
    assert judge(seeds[0], scored(0.75, None), seeds[:1]).quality == "not known"
    assert judge(seeds[0], scored(0.74, None), seeds[:1]).quality == "agrees"


def test_judge_different_data_or_weights_does_not_agree() -> None:
    then, now = scored(0.75), scored(0.75)
    other = msgspec.structs.replace(now, provenance=msgspec.structs.replace(now.provenance, dataset_digest="e" * 64))
    assert judge(then, now, [then]).agrees
    assert judge(then, other, [then]).dataset == "differs"
    assert not judge(then, other, [then]).agrees


NO_BYTES = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("then", "now", "answer"),
    [
        (None, None, "none"),
        (NO_BYTES, None, "none"),
        ("e" * 64, None, "not known"),
        (NO_BYTES, "e" * 64, "differs"),
        (None, "e" * 64, "not known"),
    ],
)
def test_judge_model_without_weights_agrees(then: str | None, now: str | None, answer: str) -> None:
    runs = [
        msgspec.structs.replace(
            scored(0.75), provenance=msgspec.structs.replace(record().provenance, initial_weights_digest=digest)
        )
        for digest in (then, now)
    ]
    outcome = judge(*runs, runs[:1])
    assert (outcome.initial_weights, outcome.agrees) == (answer, answer == "none")


def test_judge_failed_run_does_not_agree() -> None:
    then = scored(0.75)
    outcome = judge(then, record(failure("unsupported", "no CUDA device")), [then])
    assert outcome.quality == "differs"
    assert "no CUDA device" in outcome.why
    assert outcome.costs == []


def test_render_lists_both_machines() -> None:
    then, now = scored(0.75), scored(0.75)
    now = msgspec.structs.replace(now, environment=msgspec.structs.replace(now.environment, cpu="Another CPU"))
    outcome = judge(then, now, [then])
    assert ("cpu", "Example CPU 2.0 GHz", "Another CPU") in outcome.differences
    told = render([outcome, outcome])
    assert told.count("  bundle: Example CPU 2.0 GHz, 2 cores, ") == told.count("  here:   Another CPU, 2 cores, ") == 1


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of four real runs, ``toy.zip``, and the results that it was made of, ``published``."""
    folder = tmp_path_factory.mktemp("bundled")
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        patch.chdir(folder)
        harness_cli(*RUN, *SET_FAST, "--results", "published")
        made = harness_cli("bundle", "--results", "published", "--output", "toy.zip", "--title", "Toys")
        assert "toy.zip: 4 runs" in made.output
    return folder


@pytest.fixture
def published(bundled: Path, invoke: Invoke) -> Path:
    """A copy in the current directory."""
    return Path(shutil.copy(bundled / "toy.zip", "toy.zip"))


def test_reproduce_bundle_agrees(invoke: Invoke, published: Path) -> None:
    done = invoke("reproduce", str(published), "-q", "--results", "here")
    assert done.exit_code == 0, done.output
    assert "4 of 4 runs match in quality, data and initial weights" in done.output
    assert "4 runs, created by harness" in done.output
    assert len(Store(Path("here")).load().runs) == 4


def test_reproduce_saves_its_runs_apart_from_the_others(invoke: Invoke, published: Path) -> None:
    done = invoke("reproduce", str(published), "-q", "--task", "toy-regress")
    assert (done.exit_code, "the new runs are saved in results/reproduced" in done.output) == (0, True)
    assert len(Store(Path("results/reproduced")).load().runs) == 2
    assert Store(Path("results")).load() == Loaded([], [])


def test_reproduce_filtered_runs_as_json(invoke: Invoke, published: Path) -> None:
    done = invoke("reproduce", str(published), "-q", "--results", "here", "--task", "toy-regress", "--format", "json")
    found = json.loads(done.stdout)
    assert {(one["metric"], one["quality"], one["final_weights"]) for one in found} == {("rmse", "agrees", "agrees")}
    assert len(found) == 2


def test_reproduce_verify_runs_nothing(invoke: Invoke, published: Path) -> None:
    done = invoke("reproduce", str(published), "--verify")
    assert done.exit_code == 0
    assert "verified against the manifest" in done.output
    assert not Path("results").exists()


def test_reproduce_modified_bundle_runs_nothing(invoke: Invoke, published: Path) -> None:
    published.write_bytes(published.read_bytes().replace(b"suite.toml", b"suite.tomk"))
    done = invoke("reproduce", str(published))
    assert done.exit_code == 1
    assert "suite.tom" in done.stderr
    assert not Path("results").exists()


def test_reproduce_filter_without_match_is_a_usage_error(invoke: Invoke, published: Path) -> None:
    done = invoke("reproduce", str(published), "--task", "nlp")
    assert done.exit_code == 2
    assert "the bundle contains toy-classify/" in done.stderr


def test_bundle_of_several_directories_contains_each_run_once(invoke: Invoke, bundled: Path) -> None:
    """The second directory contains copies of the runs, one of them with an audit, and a repeat with the same id."""
    shutil.copytree(bundled / "published", "copies")
    shutil.copytree(bundled / "published", "other")
    first, *rest = Store(Path("other")).load().runs
    for run in rest:
        shutil.rmtree(run.path)
    audited = Path("copies", first.record.run_id, AUDIT)
    audited.write_text("{}")
    explained = audited.with_name(FOLDER) / "permutation.json"
    explained.parent.mkdir()
    explained.write_text("{}")
    write_json(first.path / RECORD, msgspec.structs.replace(first.record, started_at="2099-01-01T00:00:00.000+00:00"))
    stores = [str(bundled / "published"), "copies", "other"]
    done = invoke("bundle", *stores, "--output", "both.zip")
    assert done.exit_code == 0, done.output
    unpack(Path("both.zip"), Path("out"))
    loaded = Store(Path("out/records")).load()
    assert loaded.problems == []
    before = [run.record for run in Store(bundled / "published").load().runs]
    assert [run.record for run in loaded.runs[:-1]] == before
    assert loaded.runs[-1].record.repeat == max(each.repeat for each in before if each.key == first.record.key) + 1
    assert (Path("out/records") / first.record.run_id / AUDIT).is_file()
    assert (Path("out/records") / first.record.run_id / PERMUTATION).is_file()


@pytest.mark.parametrize("place", ["recorded", "current folder", "next to the bundle", "given", "nowhere"])
def test_reproduce_finds_the_users_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    for folder in ("old", "here", "bundles", "other"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recorded = tmp_path / "old" / "wine.csv"
    spec = msgspec.structs.replace(record(success()).spec, source=DataSource(path=str(recorded)))
    paths = {
        "recorded": recorded,
        "current folder": tmp_path / "here" / "wine.csv",
        "next to the bundle": tmp_path / "bundles" / "wine.csv",
        "given": tmp_path / "other" / "renamed.csv",
    }
    if place in paths:
        paths[place].touch()
    given = _copies([str(paths["given"])] if place == "given" else [], [spec])
    bundle = tmp_path / "bundles" / "comparison.zip"
    if place == "nowhere":
        with pytest.raises(UsageError, match="which does not exist here; pass its path with --data"):
            _with_data(spec, given, bundle)
        return
    found = _with_data(spec, given, bundle)
    assert found.source is not None
    assert Path(found.source.path) == paths[place]
    assert found.key == spec.key


def test_reproduce_data_of_several_datasets_are_selected_by_path_or_name(tmp_path: Path) -> None:
    specs = [
        msgspec.structs.replace(record(success()).spec, source=DataSource(path=f"/old/{name}", memory="DataFrame"))
        for name in ("wine.csv", "iris.csv")
    ]
    for name in ("new.csv", "a=b.csv"):
        (tmp_path / name).touch()
    copies = _copies([f"wine.csv={tmp_path}/new.csv", f"/old/iris.csv={tmp_path}/a=b.csv"], specs)
    assert copies == {"/old/wine.csv": tmp_path / "new.csv", "/old/iris.csv": tmp_path / "a=b.csv"}
    assert _copies([f"{tmp_path}/a=b.csv"], specs) == {"": tmp_path / "a=b.csv"}
    with pytest.raises(UsageError, match=r"used beer.csv; the selected runs used /old/iris.csv, /old/wine.csv"):
        _copies([f"beer.csv={tmp_path}/new.csv"], specs)
    with pytest.raises(UsageError, match=r"nowhere.csv does not exist; pass the path of your copy"):
        _copies(["wine.csv=nowhere.csv"], specs)
    with pytest.raises(UsageError, match=r"a DataFrame in memory, .* as wine.csv .* harness.save_data"):
        _with_data(specs[0], {}, tmp_path / "bundle.zip")


def test_bundle_filters_select_runs(invoke: Invoke, bundled: Path) -> None:
    chosen = ("--task", "toy-regress", "--status", "success", "--since", "2020-01-01")
    done = invoke("bundle", str(bundled / "published"), *chosen, "--output", "some.zip")
    assert done.exit_code == 0, done.output
    unpack(Path("some.zip"), Path("some"))
    runs = Store(Path("some/records")).load().runs
    assert {run.record.spec.task for run in runs} == {"toy-regress"}
    none = invoke("bundle", str(bundled / "published"), "--until", "2020-01-01", "--output", "none.zip")
    assert (none.exit_code, "no run matches all of these filters" in none.stderr) == (2, True)
