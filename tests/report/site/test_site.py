"""Tests of the files of the site; `browser/` tests them in a browser."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import msgspec
import pytest
from sample_records import failure, record, success
from sample_store import example, hostile, many, report_of, write

from harness.checks.audit.finding import Finding
from harness.plugins import discover
from harness.records import RunRecord
from harness.records.store import ARRAYS, AUDIT
from harness.report.csv_json import csv_text, json_text
from harness.report.report import Report
from harness.report.site.build import files
from harness.report.site.overview import contests, scoreboard
from harness.report.site.tables import HtmlCell


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    return build(example(tmp_path))


def build(report: Report) -> dict[str, str]:
    return {name: content.decode() for name, content in files(report)}


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]


def test_links_lead_to_existing_files_of_the_site(site: dict[str, str]) -> None:
    pages = {name: text for name, text in site.items() if name.endswith(".html")}
    assert {"index.html", "runs.html", "tasks/nlp.html", "tasks/regression.html"} < pages.keys()
    assert sum(name.startswith("runs/") for name in pages) == 11
    for name, text in pages.items():
        for address in Links(text).addresses:
            if address.startswith(("#", "data:")):
                continue
            parts: list[str] = []
            for part in (PurePosixPath(name).parent / address).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            assert "/".join(parts) in site, f"{name} links to {address}"


def test_tables_equal_those_of_other_formats(tmp_path: Path) -> None:
    report = example(tmp_path)
    site = build(report)
    assert site["table.csv"] == csv_text(report.table)
    assert site["table.json"] == json_text(report.table)
    rows = list(csv.DictReader(io.StringIO(site["tables/nlp/cldr-langid.csv"])))
    assert [row["backend"] for row in rows] == ["torch", "tensorflow"]
    for row in report.table.rows[:2]:
        assert f">{row.text('quality')}" in site["tasks/nlp.html"]
    assert "the value may be unreliable; see <code>harness show</code> for details." in site["tasks/nlp.html"]


def test_task_page_has_a_table_for_each_dataset(tmp_path: Path) -> None:
    scores = [("cldr-langid", 0.9), ("sms-spam", 0.5), ("sms-spam", 0.4)]
    records = [
        record(success(quality), dataset=dataset, model=f"model-{place}")
        for place, (dataset, quality) in enumerate(scores)
    ]
    site = build(report_of(write(tmp_path, records)))
    _, *sections = site["tasks/nlp.html"].partition("<ul class=")[0].split("<section>")
    assert [re.findall("<h2>(.*?)</h2>", section) for section in sections] == [["cldr-langid"], ["sms-spam"]]
    assert [section.count("<tr>") - 1 for section in sections] == [1, 2]
    assert re.findall(r">(0\.\d+)", "".join(re.findall('<td class="num best".*?</td>', sections[1])))[0] == "0.5000"
    assert "sms-spam" not in site["tables/nlp/cldr-langid.csv"]
    assert site["tables/nlp/sms-spam.json"].count("sms-spam") == 2


def test_task_page_describes_the_models_with_their_plugins(tmp_path: Path) -> None:
    report = report_of(write(tmp_path, [record(), record(model="not-installed")]))
    catalog = discover()
    page = dict(files(dataclasses.replace(report, catalog=catalog)))["tasks/nlp.html"].decode()
    family = catalog.models[catalog.model("bert-tiny")[0].name]
    about = (
        f"{family.value.summary} (plugin {family.plugin.name}, {family.plugin.distribution} {family.plugin.version})"
    )
    listed = re.findall(r"<li><b>(.*?)</b>: (.*?)</li>", page)
    assert [(name, html.unescape(text)) for name, text in listed] == [("bert-tiny", about)]


def test_library_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    site = build(example(tmp_path / "runs"))
    (cached,) = (tmp_path / "cache").glob("site/*.js")
    bundle, _, digest = cached.read_text().rpartition("\n")
    assert bundle == site["assets/vega.js"]
    assert digest == hashlib.sha256(bundle.encode()).hexdigest()
    cached.write_text(f"cached\n{hashlib.sha256(b'cached').hexdigest()}")
    assert build(report_of(tmp_path / "runs"))["assets/vega.js"] == "cached"
    cached.write_text(f"changed\n{digest}")
    assert build(report_of(tmp_path / "runs"))["assets/vega.js"] == bundle


def test_library_without_a_cache_is_bundled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    assert "vega" in build(example(tmp_path / "runs"))["assets/vega.js"]


def test_run_page_has_command_flags_log_and_plots(site: dict[str, str]) -> None:
    name = next(name for name in site if name.startswith("runs/nlp-cldr-langid-bert-tiny-torch-s0"))
    page = site[name]
    for text in (
        "harness run --rerun --task nlp --dataset cldr-langid --model bert-tiny --backend torch --device cpu",
        "--seed 0 ",
        "train_samples_per_s: drift: throughput changed by +3.1%",
        "epoch 2 &lt;b&gt;done&lt;/b&gt;",
        "Example CPU 2.0 GHz, 2 cores",
        "This run was not audited",
        "95% interval over examples: 0.6 to 0.8",
        "By group, test split",
        "Most frequent mistakes",
    ):
        assert text in page, text
    plots = figures(page)
    assert {
        "confusion",
        "roc",
        "precision_recall",
        "reliability",
        "loss",
        "windows",
        "latency",
        "memory",
        "seconds",
    } <= plots.keys()
    assert {"predicted", "residual"} <= figures(
        site[next(n for n in site if n.startswith("runs/regression-diabetes-linear"))]
    ).keys()


def figures(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="plots">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])["figures"] if found else {}


def test_failed_run_is_shown_with_its_reason(site: dict[str, str]) -> None:
    page = next(text for name, text in site.items() if "regression-diabetes-mlp-tensorflow" in name)
    assert "no CUDA device is visible" in page
    assert "no CUDA device is visible" in site["index.html"]
    assert "no CUDA device is visible" in site["tasks/regression.html"]


def test_run_page_shows_the_audit(tmp_path: Path) -> None:
    path = write(tmp_path, [record()])
    findings = [Finding(check="clocks agree", passed=True, detail="1 s"), Finding(check="x", passed=False, detail="y")]
    (next(path.iterdir()) / AUDIT).write_bytes(msgspec.json.encode(findings))
    page = next(text for name, text in build(report_of(path)).items() if name.startswith("runs/"))
    assert "<h2>Audit</h2>" in page
    assert "<b>ok</b> clocks agree: 1 s" in page
    assert "<b>FAILED</b> x: y" in page


def test_run_page_with_damaged_arrays_and_audit_has_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, [record()])
    folder = next(path.iterdir())
    (folder / ARRAYS).write_bytes(b"PK broken")
    (folder / AUDIT).write_bytes(b"{")
    page = next(text for name, text in build(report_of(path)).items() if name.startswith("runs/"))
    assert "cannot be read" in page
    assert "This run was not audited" in page
    assert "memory" in figures(page)


def test_hostile_names_are_escaped_in_all_files(tmp_path: Path) -> None:
    site = build(report_of(write(tmp_path, hostile())))
    for name, text in site.items():
        assert re.fullmatch(r"[A-Za-z0-9._/+-]+", name)
        if name.endswith(".html"):
            assert "<script>document" not in text
            assert "<img" not in text
            assert Links(text).tags.count("script") <= 6
    for row in csv.reader(io.StringIO(site["table.csv"])):
        assert not any(field.startswith(("=", "@", "+")) for field in row)


def test_contests_have_winner_and_certainty(tmp_path: Path) -> None:
    records = [
        record(success(0.7 + seed / 1000, train=speed + seed, host_mib=500.0), backend=backend, seed=seed)
        for seed in range(5)
        for backend, speed in (("torch", 2000.0), ("tensorflow", 1000.0))
    ]
    (contest,) = contests(report_of(write(tmp_path, records)))
    train, memory = contest.leads["train_samples_per_s"], contest.leads["host_peak_mib"]
    assert (train.winner, train.certainty) == ("torch", "significant after Bonferroni correction")
    assert train.amount.startswith("2.00×")
    assert (memory.winner, memory.certainty) == ("", "inconclusive")
    assert scoreboard([contest])["train_samples_per_s"] == {"torch": 1}


def test_contest_difference_has_metric_and_unit(tmp_path: Path) -> None:
    records = [
        record(success(error + seed / 10, primary="rmse"), backend=backend, seed=seed)
        for seed in range(3)
        for backend, error in (("torch", 5.0), ("tensorflow", 6.0))
    ]
    (contest,) = contests(report_of(write(tmp_path, records)))
    assert contest.leads["quality"].amount.startswith("RMSE -1 score (")


@pytest.mark.parametrize(("error", "leader"), [(5.0, ""), (5.0 - 2.55e-8, ""), (4.99, "tensorflow")])
def test_contest_names_no_leader_if_the_difference_is_not_visible(tmp_path: Path, error: float, leader: str) -> None:
    records = [
        record(success(score, primary="rmse"), backend=backend)
        for backend, score in (("torch", 5.0), ("tensorflow", error))
    ]
    report = report_of(write(tmp_path, records))
    (contest,) = contests(report)
    assert contest.leads["quality"].leader == leader
    page = build(report)["index.html"]
    assert page.count("no difference at the precision shown") == len(
        [lead for lead in contest.leads.values() if not lead.leader]
    )
    assert ("tensorflow ahead" in page) == (leader == "tensorflow")


def test_home_and_task_page_link_to_warnings_of_runs(tmp_path: Path) -> None:
    made = record(
        msgspec.structs.replace(success(), scores=msgspec.structs.replace(success().scores, confusion=[[3, 0], [2, 0]]))
    )
    data = msgspec.structs.replace(made.provenance.data, warnings=("3 rows are duplicates", "2 labels conflict"))  # type: ignore[type-var]
    made = msgspec.structs.replace(made, provenance=msgspec.structs.replace(made.provenance, data=data))
    site = build(report_of(write(tmp_path, [made])))
    (address,) = [name for name in site if name.startswith("runs/") and name.endswith(".html")]
    (task,) = [name for name in site if name.startswith("tasks/") and name.endswith(".html")]
    for name, up in (("index.html", ""), (task, "../")):
        assert f'<a href="{up}{address}#data">nlp · ' in site[name]
        assert ": 2 warnings about the data</a>" in site[name]
        assert f'<a href="{up}{address}">nlp: 1 run predicts only one class</a>' in site[name]
    assert 'id="data"' in site[address]
    clean = build(report_of(write(tmp_path / "clean", [record()])))
    assert "about the data</a>" not in clean["index.html"]


def test_contest_with_one_run_per_side_is_inconclusive(tmp_path: Path) -> None:
    records = [record(), record(success(train=9.0), backend="tensorflow")]
    (contest,) = contests(report_of(write(tmp_path, records)))
    evidence = {name: (lead.winner, lead.evidence) for name, lead in contest.leads.items()}
    few = "on each side; at least 3 are required"
    assert evidence["train_samples_per_s"] == ("", f"1 run {few} (harness run --repeat 3)")
    assert evidence["quality"] == ("", f"1 seed {few} (harness run --seed 0,1,2)")
    records.append(record(backend="tensorflow", seed=1))
    (contest,) = contests(report_of(write(tmp_path / "more", records)))
    assert "2 and 1 seeds; at least 3 are required on each side" in contest.leads["quality"].evidence


def test_home_page_of_failures_only_has_no_best_backend(tmp_path: Path) -> None:
    site = build(report_of(write(tmp_path, [record(failure())])))
    assert "Failed runs" in site["index.html"]
    assert "Best backend" not in site["index.html"]


def test_long_table_has_first_page_and_data_for_the_rest(tmp_path: Path) -> None:
    page = build(report_of(write(tmp_path, many(120))))["runs.html"]
    rest = re.search(r'<script type="application/json" class="rest">(.*?)</script>', page, re.DOTALL)
    assert rest is not None
    assert page.count("<tr>") == 51
    assert len(json.loads(rest[1])) == 70


def test_unreadable_record_is_listed_on_the_home_page(tmp_path: Path) -> None:
    path = write(tmp_path, [record()])
    (path / "broken").mkdir()
    (path / "broken" / "record.json").write_text("{")
    assert "A record was excluded" in build(report_of(path))["index.html"]


def test_best_result_of_each_dataset_is_listed_with_those_that_tie(tmp_path: Path) -> None:
    from harness.report.site.best_results import best_results

    def three(quality: float, **changes: object) -> list[RunRecord]:
        return [record(success(quality + seed / 100), seed=seed, **changes) for seed in range(3)]

    records = [*three(0.9), *three(0.895, model="lstm"), *three(0.5, model="mlp")]
    records += [*three(0.9, dataset="other"), *three(0.5, dataset="other", model="lstm")]
    records += [record(success(0.9), dataset="alone"), record(failure(), dataset="alone", model="lstm")]
    for dataset, second in (("near", 0.8), ("far", 0.5)):  # the test examples give intervals of 0.1
        records += [record(success(0.9), dataset=dataset), record(success(second), dataset=dataset, model="lstm")]
    records += [record(success(0.9), dataset="repeated", repeat=repeat) for repeat in (1, 2)]
    records.append(record(success(0.8), dataset="repeated", model="lstm"))
    report = report_of(write(tmp_path, records))
    view = best_results(report, {run.record.run_id: "" for run in report.runs})
    assert view is not None
    cells = [[value.t if isinstance(value, HtmlCell) else value for value in row] for row in view.rows]
    assert [(row[1], str(row[2]).split(" ")[0], row[5]) for row in cells] == [
        ("cldr-langid", "bert-tiny", "tied with lstm · torch · cpu · fp32"),
        ("other", "bert-tiny", "best of 2"),
        ("alone", "bert-tiny", "the only result"),
        ("near", "bert-tiny", "tied with lstm · torch · cpu · fp32"),
        ("far", "bert-tiny", "best of 2"),
        ("repeated", "bert-tiny", "best value, but confidence intervals are not available"),
    ]
    assert {row[3] for row in cells} == {"accuracy"}


def test_home_page_shows_its_title_once(tmp_path: Path) -> None:
    page = build(example(tmp_path))["index.html"]
    title = report_of(tmp_path).title
    assert f"<title>{title}</title>" in page
    body = page.partition("<body>")[2]
    assert body.count(title) == 1
