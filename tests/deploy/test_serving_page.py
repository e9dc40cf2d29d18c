"""Tests of the page for trying a model, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from chromium import browser
from serving import TOKEN, Server, start, stop, train

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        running = start(train(tmp_path_factory.mktemp("page"), patch), HARNESS_SERVE_TOKEN=TOKEN)
        yield running
        stop(running)


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """Return the page of the service after the token was entered. The test fails if the page had errors or requested
    anything from another server."""
    page = browser.new_page()
    errors: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Predict").wait_for()
    yield page
    page.close()
    assert errors == []
    assert {url.split("/")[2] for url in requests if not url.startswith("data:")} == {f"127.0.0.1:{server.port}"}


def test_prediction_is_shown(page: Page) -> None:
    page.get_by_label("rooms").fill("3")
    page.get_by_label("town").fill("Ulm")
    page.get_by_label("sold").fill("2021-03-04")
    page.get_by_role("button", name="Predict").click()
    row = page.locator("#predictions tr")
    row.wait_for()
    assert row.locator("th").inner_text() == "price"
    assert float(row.locator("td").inner_text()) > 0


def test_problem_is_shown(page: Page) -> None:
    page.get_by_label("rooms").fill("<b>many</b>")
    page.get_by_role("button", name="Predict").click()
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert "contains '<b>many</b>', which is not a number" in problem.inner_text()


def test_operations_of_the_api_are_listed(page: Page) -> None:
    page.locator("#operations tr").first.wait_for()
    assert "POST /predict" in page.locator("#operations th").all_inner_texts()
    assert "curl http://127.0.0.1" in page.locator("#curl").inner_text()


def test_wrong_token_is_reported(browser: Browser, server: Server) -> None:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/docs")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == "The token is wrong."
    page.close()
