"""A producer that knows nothing but AMQP: it publishes, is answered, and its rows land."""

from __future__ import annotations

import pytest

from tests.e2e.running_stack import RunningStack, wait_for
from tests.plugins.integration.admission.inbox_broker import Producer
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


def test_published_answered_collected(stack: RunningStack, server: PagedServer) -> None:
    with Producer(stack.settings.amqp_url) as producer:
        producer.ask(
            {"schema": 1, "source": "example_merge", "params": {"ids": "11,12"}}, "good", message_id="m1"
        )
        producer.ask({"schema": 1, "source": "example_merg"}, "unknown", message_id="m2")
        producer.ask(b"not JSON at all", "malformed", message_id="m3")
        answers: dict[str | None, dict[str, object]] = {}

        def all_answered() -> bool:
            answers.update(producer.answers())
            return len(answers) == 3

        wait_for("the inbox's replies", all_answered, 90)
    assert "did you mean" in str(answers["unknown"])
    assert "error" in answers["malformed"]
    ended = stack.task_ended(int(str(answers["good"]["task_id"])))
    assert (ended["status"], ended["submitted_via"], ended["result"]["rows_landed"]) == (
        "COMPLETED",
        "amqp",
        2,
    )
    # The sweep brings it there within a minute; by hand at once.
    assert stack.command("collect_ops.cli", "sweep").returncode == 0
    letter = wait_for(
        "what could not be read, where people see it",
        lambda: stack.rows("SELECT * FROM collect.dead_letter WHERE body = %s", b"not JSON at all"),
        100,
    )[0]
    assert "JSON" in letter["error_message"]
