"""Tests of the site in a browser.

The fixture `watched` also asserts that no page had errors or made network requests.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sample_records import record, success
from sample_store import hostile, write
from site_pages import build, pages_of

from harness.records import TrainedWeights

if TYPE_CHECKING:
    from playwright.sync_api import Page

SERIOUS = ("serious", "critical")


def column(page: Page, table: str, name: str) -> list[str]:
    heads = page.locator(f"{table} thead th").all()
    place = next(i for i, head in enumerate(heads) if head.get_attribute("data-name") == name)
    return [row.locator("td").nth(place).inner_text() for row in page.locator(f"{table} tbody tr").all()]


def press(page: Page, table: str, name: str) -> None:
    page.locator(f"{table} thead th[data-name='{name}'] button").click()


def test_click_on_header_sorts_rows(site: Path, watched: Any) -> None:
    page = watched.open(site / "runs.html")
    press(page, "#table-runs", "train_samples_per_s")
    shown = [float(text) for text in column(page, "#table-runs", "train_samples_per_s")]
    assert shown == sorted(shown, reverse=True)
    press(page, "#table-runs", "train_samples_per_s")
    shown = [float(text) for text in column(page, "#table-runs", "train_samples_per_s")]
    assert shown == sorted(shown)
    assert page.locator("th[aria-sort='ascending']").count() == 1


def test_enter_on_header_sorts_rows(site: Path, watched: Any) -> None:
    page = watched.open(site / "runs.html")
    page.locator("#table-runs thead th[data-name='seed'] button").focus()
    page.keyboard.press("Enter")
    assert column(page, "#table-runs", "seed")[0] == "29"


def test_sort_puts_missing_values_last(site: Path, watched: Any) -> None:
    page = watched.open(site / "tasks" / "regression.html")
    for _ in range(2):
        press(page, "#table-comparison-diabetes", "quality")
        assert column(page, "#table-comparison-diabetes", "quality")[-1] == "–"


def test_filter_selects_rows(site: Path, watched: Any) -> None:
    page = watched.open(site / "runs.html")
    page.get_by_label("Filter rows").fill("resnet-20 tensorflow")
    assert set(column(page, "#table-runs", "model")) == {"resnet-20"}
    assert set(column(page, "#table-runs", "backend")) == {"tensorflow"}
    assert "30 of 131 rows" in page.locator("#table-runs [role=status]").inner_text()


def test_failed_runs_can_be_hidden(site: Path, watched: Any) -> None:
    page = watched.open(site / "runs.html")
    holder = page.locator("#table-runs")
    holder.get_by_label("Failed", exact=True).uncheck()
    for _ in range(2):
        assert holder.locator("td.failed").count() == 0
        holder.get_by_role("button", name="Next").click()
    assert "of 131 rows" in holder.locator("[role=status]").inner_text()


def test_column_menu_hides_a_column(site: Path, watched: Any) -> None:
    page = watched.open(site / "tasks" / "nlp.html")
    holder = page.locator("#table-comparison-cldr-langid")
    assert holder.locator("th[data-name='latency_p50_ms']").is_visible()
    holder.locator("summary").click()
    holder.locator("label", has_text="p50").locator("input").uncheck()
    assert not holder.locator("th[data-name='latency_p50_ms']").is_visible()


def test_next_button_shows_other_rows(site: Path, watched: Any) -> None:
    page = watched.open(site / "runs.html")
    first = column(page, "#table-runs", "run")
    assert len(first) == 50
    page.get_by_role("button", name="Next").click()
    second = column(page, "#table-runs", "run")
    assert not set(first) & set(second)
    assert "page 2 of 3" in page.locator("#table-runs [role=status]").inner_text()
    page.get_by_role("button", name="Next").click()
    assert page.get_by_role("button", name="Next").is_disabled()


def test_run_page_opens_and_has_the_command(site: Path, watched: Any) -> None:
    page = watched.open(site / "index.html")
    page.get_by_role("navigation").get_by_role("link", name="vision").click()
    page.locator("#table-runs tbody a").first.click()
    assert page.locator("h1").inner_text().startswith("vision-digits-resnet-20")
    assert page.locator("#command").inner_text().startswith("harness run --rerun --task vision")


def test_link_on_a_later_page_opens_the_run(site: Path, watched: Any) -> None:
    page = watched.open(site / "runs.html")
    page.get_by_role("button", name="Next").click()
    link = page.locator("#table-runs tbody a").nth(3)
    name = link.inner_text()
    link.click()
    assert page.locator("h1").inner_text() == name


def test_run_page_draws_all_plots_with_tooltips(site: Path, watched: Any) -> None:
    page = watched.open(next((site / "runs").glob("nlp-cldr-langid-bert-tiny-torch-s0-*")))
    figures = page.locator("[data-plot]")
    assert figures.count() >= 9
    for number in range(figures.count()):
        figures.nth(number).scroll_into_view_if_needed()
        figures.nth(number).locator("svg.marks").wait_for()
    assert "Cannot draw" not in page.locator("main").inner_text()
    page.locator("#plot-confusion").scroll_into_view_if_needed()
    page.locator("#plot-confusion .mark-rect path").first.hover()
    page.locator("#vg-tooltip-element.visible").wait_for()
    assert "examples" in page.locator("#vg-tooltip-element").inner_text()


def test_task_page_draws_all_plots_with_tooltips(site: Path, watched: Any) -> None:
    page = watched.open(site / "tasks" / "nlp.html")
    figures = page.locator("[data-plot]")
    for number in range(figures.count()):
        figures.nth(number).scroll_into_view_if_needed()
        figures.nth(number).locator("svg.marks").wait_for()
    page.locator("#plot-pareto-0-0 .mark-symbol path").first.hover()
    page.locator("#vg-tooltip-element.visible").wait_for()
    assert "±" in page.locator("#vg-tooltip-element").inner_text()


def test_csv_download_has_the_filtered_rows(site: Path, watched: Any) -> None:
    page = watched.open(site / "runs.html")
    page.get_by_label("Filter rows").fill("resnet-20")
    with page.expect_download() as started:
        page.locator("#table-runs [data-save=csv]").click()
    rows = list(csv.DictReader(io.StringIO(Path(started.value.path()).read_text())))
    assert len(rows) == 60
    assert {row["model"] for row in rows} == {"resnet-20"}


def test_csv_download_of_the_comparison_equals_the_file(site: Path, watched: Any) -> None:
    page = watched.open(site / "tasks" / "nlp.html")
    with page.expect_download() as started:
        page.locator("#table-comparison-cldr-langid a", has_text="CSV").click()
    assert Path(started.value.path()).read_bytes() == (site / "tables" / "nlp" / "cldr-langid.csv").read_bytes()


def test_csv_download_of_best_backends(site: Path, watched: Any) -> None:
    page = watched.open(site / "index.html")
    with page.expect_download() as started:
        page.locator("#table-wins [data-save=csv]").click()
    rows = list(csv.DictReader(io.StringIO(Path(started.value.path()).read_text())))
    assert rows[0]["comparison"].startswith("nlp cldr-langid")
    assert "train_samples_per_s" in rows[0]


def test_theme_button_switches_and_is_remembered(site: Path, watched: Any) -> None:
    page = watched.open(site / "index.html")
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.locator("[data-plot]").first.scroll_into_view_if_needed()
    page.locator("[data-plot]").first.locator("svg.marks").wait_for()
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != light
    page.locator("[data-plot][data-drawn=dark]").first.wait_for()
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_printing_draws_all_plots(site: Path, watched: Any) -> None:
    page = watched.open(site / "tasks" / "nlp.html")
    page.locator("[data-plot]").first.locator("svg.marks").wait_for()
    drawn = "document.querySelectorAll('[data-plot] svg.marks').length"
    figures = page.locator("[data-plot]").count()
    assert page.evaluate(drawn) < figures
    now = (
        f"new Promise((resolve) => {{ dispatchEvent(new Event('beforeprint')); setTimeout(() => resolve({drawn})); }})"
    )
    assert page.evaluate(now) == figures


@pytest.mark.parametrize("width", [360, 768])
def test_narrow_screen_does_not_scroll_sideways(site: Path, watched: Any, width: int) -> None:
    watched.page.set_viewport_size({"width": width, "height": 800})
    for path in pages_of(site):
        page = watched.open(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
        for chooser in page.locator(".tools details").all():
            chooser.locator("summary").click()
            box = chooser.locator(".menu").bounding_box()
            assert box["x"] >= 0, path.name
            assert box["x"] + box["width"] <= width, path.name


def test_hostile_names_run_no_script(tmp_path: Path, watched: Any) -> None:
    site = build(write(tmp_path / "results", hostile()), tmp_path / "site")
    for path in sorted(site.rglob("*.html")):
        page = watched.open(path)
        for figure in page.locator("[data-plot]").all():
            figure.scroll_into_view_if_needed()
            figure.locator("svg.marks").wait_for()
        assert page.title() != "owned"
        assert page.locator("main img").count() == 0


def test_csv_download_escapes_formulas(tmp_path: Path, watched: Any) -> None:
    site = build(write(tmp_path / "results", hostile()), tmp_path / "site")
    page = watched.open(next(path for path in (site / "runs").iterdir() if not path.name.startswith("safe")))
    with page.expect_download() as started:
        page.locator("#table-per-class [data-save=csv]").click()
    rows = list(csv.reader(io.StringIO(Path(started.value.path()).read_text())))
    assert rows[2][0] == "'=cmd|' /C calc'!A0"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_violation(site: Path, watched: Any, theme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    watched.page.emulate_media(color_scheme=theme)
    for path in pages_of(site):
        page = watched.open(path)
        for figure in page.locator("[data-plot]").all()[:2]:
            figure.scroll_into_view_if_needed()
            figure.locator("svg.marks").wait_for()
        found = Axe().run(page, options={"preload": False}).response["violations"]
        serious = [
            (one["id"], one["help"], [node["html"][:160] for node in one["nodes"]][:3])
            for one in found
            if one["impact"] in SERIOUS
        ]
        assert serious == [], path.name


def test_legends_are_inside_their_plots(tmp_path: Path, watched: Any) -> None:
    name = "nlp-cldr-langid-bert-tiny-torch-s0-0a1b2c3d-1"
    weights = TrainedWeights(run=name, backend="torch", digest="b" * 64, dataset_digest="d" * 64, path="")
    backends = ("torch", "tensorflow", "onnxruntime", "a-backend-with-a-long-name")
    trained = [record(success(train=1000.0 + seed), backend=each, seed=seed) for each in backends for seed in range(2)]
    served = [record(backend=each, weights=weights) for each in backends]
    site = build(write(tmp_path / "results", [*trained, *served]), tmp_path / "site")
    page = watched.open(site / "tasks" / "nlp.html")
    for place in page.locator("[data-plot]").all():
        place.scroll_into_view_if_needed()
        place.locator("svg.marks").wait_for()
    outside = """places => places.flatMap(place => {
        const svg = place.querySelector("svg.marks"), end = svg.getBoundingClientRect().right + 1;
        return [...svg.querySelectorAll(".role-legend-label text")]
            .filter(text => text.getBoundingClientRect().right > end)
            .map(text => `${place.dataset.plot}: ${text.textContent}`);
    })"""
    assert page.locator(".role-legend-label text").count() > 0
    assert page.locator("[data-plot]").evaluate_all(outside) == []
