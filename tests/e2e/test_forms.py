"""Every form that people trigger DAGs with, looked at in the browser: no star on what is optional, no word null."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.e2e.running_stack import RunningStack
from tests.e2e.test_browser import logged_in, screenshots

__all__ = ["logged_in", "screenshots"]
pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

#: Airflow's page draws a form of many fields slowly on a busy machine.
PATIENCE_MS = 90_000
#: The fields that must be filled in, and a source that must be offered, by form.
FORMS = {
    "collect_submit": ["Source"],
    "collect_priority": ["Action"],
    "dead_letters": ["Action"],
    "source_example_offset": [],
    "source_example_cursor": [],
}


@pytest.fixture
def page(logged_in: BrowserContext) -> Iterator[Page]:
    page = logged_in.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


def form_of(stack: RunningStack, page: Page, dag_id: str) -> Locator:
    page.goto(f"{stack.settings.airflow_url}/dags/{dag_id}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    expect(form.get_by_role("button", name="Trigger", exact=True)).to_be_visible()
    return form


@pytest.mark.parametrize("dag_id", FORMS)
def test_a_form_stars_what_is_required_and_shows_no_null(
    stack: RunningStack,
    page: Page,
    screenshots: Path,
    dag_id: str,
) -> None:
    form = form_of(stack, page, dag_id)
    expect(form.locator("label").first).to_be_visible()
    page.screenshot(path=screenshots / f"form-{dag_id}.png", full_page=True)
    labels = form.locator("label").all_inner_texts()
    starred = [label.replace("*", "").strip() for label in labels if "*" in label]
    assert starred == FORMS[dag_id]
    values = form.locator("input, textarea").evaluate_all("all => all.map(each => each.value)")
    assert "null" not in values
    assert "null" not in form.inner_text().split()


def test_a_source_dags_form_has_its_parameters(stack: RunningStack, page: Page) -> None:
    form = form_of(stack, page, "source_example_cursor")
    expect(form.get_by_role("checkbox", name="even")).to_be_checked()
    region = form.get_by_role("combobox", name="region")
    region.click()
    for name in ("north", "south", "not given"):
        expect(page.get_by_role("option", name=name, exact=True)).to_be_visible()


@pytest.mark.parametrize("dag_id", ["collect_priority", "dead_letters"])
def test_a_filter_proposes_the_sources(stack: RunningStack, page: Page, dag_id: str) -> None:
    form = form_of(stack, page, dag_id)
    proposed = form.locator("datalist option").evaluate_all("all => all.map(each => each.value)")
    assert {"flights", "example_offset"} <= set(proposed)


def test_a_source_dags_page_links_to_the_runs_of_its_source(
    stack: RunningStack,
    page: Page,
    screenshots: Path,
) -> None:
    page.goto(f"{stack.settings.airflow_url}/dags/source_example_offset")
    page.get_by_role("button", name="Dag Docs").first.click()
    link = page.get_by_role("link", name="Runs of this source")
    expect(link).to_be_visible()
    page.goto(f"{stack.settings.airflow_url}{link.get_attribute('href')}")
    expect(page.get_by_text("example_offset").first).to_be_visible()
    page.screenshot(path=screenshots / "runs-of-a-source.png")
