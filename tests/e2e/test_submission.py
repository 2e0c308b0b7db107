"""Submitting over Airflow's REST API: what is good is collected, what is not is refused in so many words."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.kills import point_connection, readings_are_exact
from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import PagedServer, basic

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


def unheard_of() -> str:
    """A value of `since` that no submission has had."""
    moment = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=random.SystemRandom().randrange(10**9))
    return moment.isoformat()


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({}, ["source", "is not one of", "flights"]),
        ({"source": "flihgts"}, ["source", "'flihgts' is not one of", "'flights'"]),
        ({"source": "flights", "priority": 11}, ["priority", "11 is greater than the maximum of 10"]),
        ({"source": "flights", "priority": "high"}, ["priority", "'high' is not of type", "'integer'"]),
        ({"source": "flights", "params": [1]}, ["params", "[1] is not of type", "'object'"]),
        ({"source": "flights", "force": "yes"}, ["force", "'yes' is not of type", "'boolean'"]),
        ({"source": "flights", "path": 7}, ["path", "7 is not of type", "'string'"]),
    ],
)
def test_conf_of_the_wrong_type_is_refused_at_once(
    stack: RunningStack, conf: Mapping[str, Any], words: list[str]
) -> None:
    answer = stack.trigger("collect_submit", conf)
    assert answer.status_code == 400, answer.text
    for word in words:
        assert word in answer.json()["detail"]


def test_an_unknown_dag_is_not_found(stack: RunningStack) -> None:
    answer = stack.trigger("collect_submitt", {"source": "flights"})
    assert (answer.status_code, "collect_submitt" in answer.text) == (404, True)


def test_a_viewer_may_not_submit(stack: RunningStack) -> None:
    body = {"logical_date": None, "conf": {"source": "example_offset"}}
    assert stack.rest("GET", "/dags/collect_submit", user="viewer").status_code == 200
    answer = stack.rest("POST", "/dags/collect_submit/dagRuns", body=body, user="viewer")
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"params": {"sinse": "2024-01-01"}}, ["params.sinse", "did you mean 'since'?"]),
        ({"params": {"since": "yesterday"}}, ["params.since", "yesterday"]),
        ({"proirity": 9}, ["conf.proirity", "did you mean 'priority'?"]),
        ({"path": "http://169.254.169.254/latest"}, ["path"]),
    ],
)
def test_what_only_the_source_can_judge_fails_the_run_once_with_the_reason(
    stack: RunningStack, conf: Mapping[str, Any], words: list[str]
) -> None:
    answer = stack.trigger("collect_submit", {"source": "example_offset", **conf})
    assert answer.status_code == 200, answer.text
    run_id = answer.json()["dag_run_id"]
    assert stack.run_ended("collect_submit", run_id)["state"] == "failed"
    (submit,) = stack.task_instances("collect_submit", run_id)
    assert submit["try_number"] == 1, "what can never be admitted must not be tried again"
    log = stack.log("collect_submit", run_id, "submit")
    for word in words:
        assert word in log


def test_a_task_is_collected_a_second_one_is_refused_and_force_collects_again(
    stack: RunningStack, server: PagedServer
) -> None:
    conf = {"source": "example_offset", "params": {"since": unheard_of()}}
    first = stack.submit(conf)
    assert first["duplicate_of"] is None
    ended = stack.task_ended(first["task_id"])
    assert ended["status"] == "COMPLETED"
    assert ended["result"]["rows_fetched"] == 2000
    assert readings_are_exact(stack, 2000)
    asked = len(server.requests)

    second = stack.submit(conf)
    assert second["duplicate_of"] == second["task_id"] == first["task_id"]
    assert second["message"].startswith(f"duplicate of task {first['task_id']}, now COMPLETED")
    assert second["declaration_changed"] is False
    assert len(server.requests) == asked

    third = stack.submit({**conf, "force": True})
    assert third["duplicate_of"] is None
    assert third["task_id"] > first["task_id"]
    assert stack.task_ended(third["task_id"])["status"] == "COMPLETED"
    assert readings_are_exact(stack, 2000)


def test_groups_are_named_after_their_rows_and_weigh_what_their_priority_says(
    stack: RunningStack, server: PagedServer
) -> None:
    submitted = stack.submit({"source": "example_offset", "priority": 9, "force": True})
    ended = stack.task_ended(submitted["task_id"])
    assert (ended["lane"], ended["dag_id"]) == ("urgent", "collect_urgent")
    assert stack.run_ended(ended["dag_id"], ended["run_id"])["state"] == "success"
    instances = stack.task_instances(ended["dag_id"], ended["run_id"])
    groups = [instance for instance in instances if instance["task_id"] == "collect"]
    assert {group["rendered_map_index"] for group in groups} == {
        "example_offset 0-999",
        "example_offset 1,000-1,999",
    }
    assert {(group["pool"], group["priority_weight"]) for group in groups} == {("collect_urgent", 10_000)}
    control = [instance for instance in instances if instance["task_id"] != "collect"]
    assert {instance["pool"] for instance in control} == {"collect_control"}
    assert min(instance["priority_weight"] for instance in control) > 10_000


def test_an_old_run_cleared_by_somebody_ends_skipped_and_changes_nothing(
    stack: RunningStack, server: PagedServer
) -> None:
    submitted = stack.submit({"source": "example_offset", "force": True})
    ended = stack.task_ended(submitted["task_id"])
    dag_id, run_id = ended["dag_id"], ended["run_id"]
    stack.run_ended(dag_id, run_id)
    asked = len(server.requests)
    body = {"dag_run_id": run_id, "dry_run": False, "only_failed": False, "reset_dag_runs": True}
    answer = stack.rest("POST", f"/dags/{dag_id}/clearTaskInstances", body=body)
    assert answer.status_code == 200, answer.text

    def planned_again() -> dict[str, Any] | None:
        (found,) = [each for each in stack.task_instances(dag_id, run_id) if each["task_id"] == "plan"]
        ended = found["state"] in ("success", "failed", "skipped")
        return found if found["try_number"] == 2 and ended else None

    plan = wait_for("the cleared run's plan", planned_again, 60)
    assert plan["state"] == "skipped"
    stack.run_ended(dag_id, run_id)
    log = stack.log(dag_id, run_id, "plan", try_number=2)
    assert f"task {ended['id']} attempt 1 is not CLAIMED any more: it is COMPLETED" in log
    after = stack.task(ended["id"])
    assert (after["status"], after["attempt"]) == ("COMPLETED", 1)
    assert len(server.requests) == asked
    assert readings_are_exact(stack, 2000)


def test_a_batch_is_told_first_then_merged_and_every_caller_gets_its_rows(
    stack: RunningStack, server: PagedServer
) -> None:
    batch = [{"ids": "1,2,3"}, {"ids": "3,4"}, {"ids": "1,2,3"}]
    count = "SELECT count(*) FROM collect.task WHERE source = 'example_merge'"
    before = stack.rows(count)
    told = stack.submit({"source": "example_merge", "batch": batch, "dry_run": True})["would"]
    assert [each["decision"] for each in told] == ["admitted", "merged", "duplicate"]
    assert told[1]["with_request"] == told[2]["with_request"] == told[0]["request_id"]
    assert stack.rows(count) == before
    answer = stack.submit({"source": "example_merge", "batch": batch})
    assert (answer["submitted"], answer["merged"], answer["duplicates"]) == (3, 1, 1)
    ended = [stack.task_ended(each["task_id"]) for each in answer["tasks"][:2]]
    assert [task["status"] for task in ended] == ["COMPLETED", "COMPLETED"]
    assert ended[0]["result"]["own_rows"] == 3
    assert ended[1]["result"] == {"collected_by": ended[0]["id"], "rows_landed": 2}
    assert len({request.query["ids"] for request in server.asked("/select")}) == 1


def test_a_batch_with_a_fault_is_refused_as_a_whole(stack: RunningStack) -> None:
    answer = stack.trigger(
        "collect_submit", {"source": "example_merge", "batch": [{"ids": "7"}, {"idds": "8"}]}
    )
    run_id = answer.json()["dag_run_id"]
    assert stack.run_ended("collect_submit", run_id)["state"] == "failed"
    assert "batch.1.params.idds" in stack.log("collect_submit", run_id, "submit")
    assert stack.rows("SELECT 1 FROM collect.task WHERE params ->> 'ids' = '7'") == []


def test_refused_credentials_end_in_a_dead_letter_that_says_so_and_nothing_else_is_harmed(
    stack: RunningStack, server: PagedServer
) -> None:
    server.required_headers = basic("reader", "the right password")
    point_connection(stack, "example_api", server.base_url, login="reader", password="a wrong one")
    submitted = stack.submit({"source": "example_page", "force": True})
    dead = stack.task_ended(submitted["task_id"])
    assert dead["status"] == "DEAD"
    assert "401" in dead["reason"]
    (letter,) = stack.rows("SELECT * FROM collect.dead_letter WHERE task_id = %s", dead["id"])
    # The sweep brings it to its queue within a minute, and from there to where it can be read; by hand at once.
    assert stack.command("collect_ops.cli", "sweep").returncode == 0
    drained = wait_for(
        "its message",
        lambda: stack.rows(
            "SELECT * FROM collect.dead_letter WHERE id = %s AND drained_at IS NOT NULL", letter["id"]
        ),
        60,
    )[0]
    assert drained["message_id"] == f"dead-{letter['id']}"
    assert drained["headers"]["retry-count"] == 0
    assert "401" in drained["headers"]["error-message"]

    server.required_headers = {}
    point_connection(stack, "example_api", server.base_url, login="reader", password="the right password")
    assert stack.command("collect_ops.cli", "dead", "redrive", str(letter["id"])).returncode == 0
    ended = wait_for(
        "the redriven task's end",
        lambda: stack.rows(
            "SELECT * FROM collect.task WHERE id = %s AND status IN ('COMPLETED', 'DEAD')", dead["id"]
        ),
        60,
    )[0]
    assert ended["status"] == "COMPLETED", ended["reason"]
    healthy = stack.submit({"source": "example_offset", "force": True})
    assert stack.task_ended(healthy["task_id"])["status"] == "COMPLETED"


def test_a_host_that_cannot_be_reached_is_tried_again_later_and_its_tasks_are_held(
    stack: RunningStack,
) -> None:
    """Neither is a failure yet: the runs that ended so are green."""
    point_connection(stack, "example_api", "http://127.0.0.1:9")  # nobody listens on discard here
    waiting = set_aside(stack, "RETRYING")
    assert waiting["retry_count"] == 1
    assert waiting["due_at"] is not None
    assert "127.0.0.1" in waiting["reason"]
    # Its requests were sent in vain, and so are those of the next task: their number opens the breaker while it runs.
    held = set_aside(stack, "HELD")
    assert (held["retry_count"], held["attempt"]) == (0, 1)
    letters = "SELECT FROM collect.run_note WHERE task_id = ANY(%s)"
    assert stack.rows(letters, [waiting["id"], held["id"]]) == []


def set_aside(stack: RunningStack, status: str) -> dict[str, Any]:
    """A task as it is when its first attempt has ended with this status; it is cancelled then."""
    task_id = stack.submit({"source": "example_single", "force": True})["task_id"]
    reached = "SELECT * FROM collect.task WHERE id = %s AND status = %s"
    (task,) = wait_for(f"a task that is {status}", lambda: stack.rows(reached, task_id, status), 60)
    # Its retry is due in ten seconds, and would meet the host as well.
    with stack.paused(f"lane_{task['lane']}"):
        done = stack.command("collect_ops.cli", "cancel", str(task_id), "--reason", "the test is over")
    assert done.returncode == 0, done.stderr
    assert stack.task(task_id)["status"] == "CANCELLED"
    assert stack.run_ended(task["dag_id"], task["run_id"])["state"] == "success"
    states = {each["task_id"]: each["state"] for each in stack.task_instances(task["dag_id"], task["run_id"])}
    assert (states["plan"], states["settle"]) == ("success", "success")
    return task


def test_a_submission_is_claimed_where_it_was_admitted(stack: RunningStack, server: PagedServer) -> None:
    """No run of the lane's DAG had to be started for it, unless that one is paused."""
    for _ in range(5):
        task = stack.task_ended(stack.submit({"source": "example_offset", "force": True})["task_id"])
        if claimer_of(stack, task["id"]).startswith("airflow:collect_submit/"):
            break  # unless a run of the lane, started for something else, comes first
    else:
        pytest.fail("five times the lane's own run has claimed")
    with stack.paused(f"lane_{task['lane']}"):
        task_id = stack.submit({"source": "example_offset", "force": True})["task_id"]
        assert stack.task(task_id)["status"] == "QUEUED"
    assert stack.task_ended(task_id)["status"] == "COMPLETED"
    assert claimer_of(stack, task_id).startswith(f"airflow:lane_{task['lane']}/")


def claimer_of(stack: RunningStack, task_id: int) -> str:
    """Who claimed a task first."""
    claims = "SELECT actor FROM collect.task_log WHERE task_id = %s AND to_status = 'CLAIMED' ORDER BY id"
    return str(stack.rows(claims, task_id)[0]["actor"])


def test_priorities_are_changed_over_rest(stack: RunningStack, server: PagedServer) -> None:
    with stack.paused("lane_bulk"):
        batch = [{"since": unheard_of()} for _ in range(3)]
        submitted = stack.submit({"source": "example_offset", "priority": 1, "batch": batch})
        ids = [each["task_id"] for each in submitted["tasks"]]
        first = act(stack, {"action": "promote", "ids": ids[:1], "reason": "it burns"})
        assert first["moved"] == 1
        assert stack.task(ids[0])["priority"] == 4
        done = act(
            stack, {"action": "cancel", "source": "example_offset", "status": ["QUEUED"], "lane": "bulk"}
        )
        assert set(done["tasks"]["moved"]) == set(ids[1:])
    ended = stack.task_ended(ids[0])
    assert (ended["status"], ended["lane"], ended["dag_id"]) == ("COMPLETED", "normal", "collect_normal")


def act(stack: RunningStack, conf: Mapping[str, Any]) -> dict[str, Any]:
    """What `collect_priority` answers."""
    answer = stack.trigger("collect_priority", conf)
    assert answer.status_code == 200, answer.text
    run_id = answer.json()["dag_run_id"]
    assert stack.run_ended("collect_priority", run_id)["state"] == "success", stack.log(
        "collect_priority", run_id, "act"
    )
    found: dict[str, Any] = stack.airflow.xcom("collect_priority", run_id, "act")
    return found


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"action": "adjust"}, "must say which tasks are meant"),
        ({"action": "adjust", "source": "flights"}, "priority: must be a whole number from 0 to 10"),
        ({"action": "cancel", "sorce": "flights"}, "did you mean 'source'?"),
    ],
)
def test_a_change_of_priority_that_says_nothing_is_refused(
    stack: RunningStack, conf: Mapping[str, Any], words: str
) -> None:
    run_id = stack.trigger("collect_priority", conf).json()["dag_run_id"]
    assert stack.run_ended("collect_priority", run_id)["state"] == "failed"
    assert words in stack.log("collect_priority", run_id, "act")
