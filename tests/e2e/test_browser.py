"""A person in the browser: logs in, fills in the form, finds the run and its mapped instances by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from tests.e2e.kills import readings_are_exact
from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
CHROMIUM = "/usr/bin/chromium"
PATIENCE_MS = 30_000


def screenshots_of(stack: RunningStack) -> Path:
    """Where a person can look at what the tests saw."""
    folder = stack.settings.home / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def screenshots(stack: RunningStack) -> Path:
    """The same."""
    return screenshots_of(stack)


@pytest.fixture(scope="module")
def logged_in(running_stack: RunningStack) -> Iterator[BrowserContext]:
    """A browser, logged in as the administrator."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        context = browser.new_context(viewport={"width": 1400, "height": 1100})
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.goto(running_stack.settings.airflow_url)
        page.locator("input[name=username]").fill(running_stack.settings.airflow_user)
        page.locator("input[name=password]").fill(running_stack.settings.airflow_password)
        folder = screenshots_of(running_stack)
        page.screenshot(path=folder / "1-log-in.png", mask=[page.locator("input[name=password]")])
        page.locator("button[type=submit]").click()
        expect(page.get_by_text("Dags", exact=True).first).to_be_visible()
        page.close()
        yield context
        browser.close()


@pytest.fixture
def page(logged_in: BrowserContext) -> Iterator[Page]:
    """A page of its own in that browser."""
    page = logged_in.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


def test_submitting_with_the_form(
    stack: RunningStack, server: PagedServer, page: Page, screenshots: Path
) -> None:
    (before,) = stack.rows("SELECT coalesce(max(id), 0) AS id FROM collect.task")
    page.goto(f"{stack.settings.airflow_url}/dags/collect_submit")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    source = form.get_by_role("combobox", name="Source")
    priority = form.get_by_role("spinbutton", name="Priority")
    force = form.get_by_role("checkbox", name="Force")
    for text in ("Parameters", "Path", "0 to 10; empty takes the source's"):
        expect(form).to_contain_text(text)
    source.click()
    for name in ("example_offset", "flights"):
        expect(page.get_by_role("option", name=name, exact=True)).to_be_visible()
    page.screenshot(path=screenshots / "2-form.png")
    page.get_by_role("option", name="example_offset", exact=True).click()
    priority.fill("9")
    force.press("Space")
    expect(force).to_be_checked()
    page.screenshot(path=screenshots / "3-form-filled-in.png")
    form.get_by_role("button", name="Trigger", exact=True).click()

    submitted = wait_for(
        "the submitted task",
        lambda: stack.rows("SELECT * FROM collect.task WHERE id > %s ORDER BY id", before["id"]),
        60,
    )[0]
    assert (submitted["source"], submitted["priority"]) == ("example_offset", 9)
    ended = stack.task_ended(submitted["id"])
    assert (ended["status"], ended["submitted_via"]) == ("COMPLETED", "dag")
    assert readings_are_exact(stack, 2000)
    stack.run_ended(ended["dag_id"], ended["run_id"])

    page.goto(stack.airflow.run_page(ended["dag_id"], ended["run_id"]))
    expect(page.get_by_text(re.compile(re.escape(ended["run_id"]))).first).to_be_visible()
    expect(page.get_by_text("settle").first).to_be_visible()
    page.screenshot(path=screenshots / "4-run.png")

    page.goto(f"{stack.airflow.run_page(ended['dag_id'], ended['run_id'])}/tasks/collect/mapped")
    for label in ("example_offset 0-999", "example_offset 1,000-1,999"):
        expect(page.get_by_text(label).first).to_be_visible()
    page.screenshot(path=screenshots / "5-mapped-instances.png")


@pytest.mark.parametrize("dag_id", ["collect_priority", "dead_letters"])
def test_a_form_can_be_sent_as_it_opens(
    stack: RunningStack, page: Page, screenshots: Path, dag_id: str
) -> None:
    """What may be left empty does not keep the button shut."""
    page.goto(f"{stack.settings.airflow_url}/dags/{dag_id}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    expect(form).to_contain_text("empty: those that the fields below choose")
    page.screenshot(path=screenshots / f"6-{dag_id}.png")
    trigger = form.get_by_role("button", name="Trigger", exact=True)
    expect(trigger).to_be_enabled()
    if dag_id == "dead_letters":  # groups, which changes nothing
        trigger.click()
        expect(form).to_be_hidden()
