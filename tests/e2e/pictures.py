"""`python -m tests.e2e.pictures`: take the documents' pictures of the Airflow UI anew, on a stack after `make demo`.

Needs `eval "$(make -s env ALL=1)"`, and chromium, which `make test` installs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Locator, Page, expect, sync_playwright

from demo.run import prepare_connections
from demo.server import ensure_running
from demo.settings import CHECKOUT, DemoSettings
from tests.e2e.running_stack import RunningStack, wait_for

CHROMIUM: Final = "/usr/bin/chromium"
IMAGES: Final = CHECKOUT / "docs" / "images"
WIDTH: Final = 1280
HEIGHT: Final = 720
MARGIN: Final = 24
PATIENCE_MS: Final = 30_000
#: What the page "Your first ten minutes" collects.
SOURCE: Final = "route_flights"


@contextmanager
def signed_in(settings: DemoSettings) -> Iterator[Page]:
    """A page of a browser in which the administrator has signed in."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.goto(settings.airflow_url)
        page.locator("input[name=username]").fill(settings.airflow_user)
        page.locator("input[name=password]").fill(settings.airflow_password)
        page.locator("button[type=submit]").click()
        expect(page.get_by_text("Dags", exact=True).first).to_be_visible()
        yield page
        browser.close()


def take(what: Page | Locator, name: str, *, down_to: Locator | None = None) -> None:
    """A picture of the page, or of a part of it, as it is; of its upper part only when that ends somewhere."""
    page = what if isinstance(what, Page) else what.page
    page.wait_for_timeout(1500)  # what slides in has arrived
    path = IMAGES / f"{name}.png"
    if isinstance(what, Page) or down_to is None:
        what.screenshot(path=path)
        return
    box, last = what.bounding_box(), down_to.bounding_box()
    assert box is not None
    assert last is not None
    height = last["y"] + last["height"] + MARGIN - box["y"]
    page.screenshot(path=path, clip={"x": box["x"], "y": box["y"], "width": box["width"], "height": height})


def submit_by_form(page: Page, stack: RunningStack) -> dict[str, Any]:
    """Fill in the form of collect_submit, as the documents say; returns the task when it has ended."""
    (before,) = stack.rows("SELECT coalesce(max(id), 0) AS id FROM collect.task")
    page.goto(f"{stack.settings.airflow_url}/dags/collect_submit")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    form.get_by_role("combobox", name="Source").click()
    page.get_by_role("option", name="example_offset", exact=True).click()
    form.get_by_role("spinbutton", name="Priority").fill("9")
    page.set_viewport_size({"width": WIDTH, "height": 2000})
    take(form, "submit-form", down_to=form.get_by_text("Admit even when"))
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    form.get_by_role("button", name="Trigger", exact=True).click()
    task = wait_for(
        "the submitted task",
        lambda: stack.rows("SELECT id FROM collect.task WHERE id > %s ORDER BY id", before["id"]),
        60,
    )[0]
    return stack.task_ended(task["id"])


def main() -> None:
    """Take all of them."""
    stack = RunningStack.from_environment()
    url = stack.settings.airflow_url
    prepare_connections(stack.airflow, ensure_running(stack.settings.home))
    stack.execute("DELETE FROM collect.host")
    stack.execute("DELETE FROM collect.endpoint")
    stack.execute("DELETE FROM collect.dedup")  # the form's submission is no duplicate
    with signed_in(stack.settings) as page:
        page.goto(f"{url}/dags?tags=source")
        expect(page.get_by_text("source_flights").first).to_be_visible()
        page.get_by_role("button", name=re.compile("table", re.IGNORECASE)).click()
        page.set_viewport_size({"width": WIDTH, "height": 900})
        take(page, "dags")

        task = submit_by_form(page, stack)
        stack.run_ended(task["dag_id"], task["run_id"])
        page.goto(stack.airflow.run_page(task["dag_id"], task["run_id"]))
        expect(page.get_by_text("settle").first).to_be_visible()
        take(page, "collect-run")

        page.goto(f"{url}/dags/source_{SOURCE}")
        page.get_by_role("button", name="Trigger").first.click()
        expect(page.get_by_role("dialog")).to_contain_text("origin")
        page.set_viewport_size({"width": WIDTH, "height": 1000})
        take(page.get_by_role("dialog"), "source-form")


if __name__ == "__main__":
    main()
