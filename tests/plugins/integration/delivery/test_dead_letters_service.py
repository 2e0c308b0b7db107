"""Looking at dead letters, editing and discarding them."""

from __future__ import annotations

from typing import Any

import pytest

from collect_ops.admission.policy import dedup_key
from collect_ops.delivery.dead_model import NoSuchLetter, NotOpen, RequestHasLanded, edit_of, selection_of
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.request import render
from collect_ops.storage import connect
from tests.plugins.integration.delivery.letters import (
    ACTOR,
    dead_tasks,
    drained,
    letters_of,
    published,
    run_all,
    sent_again,
    service,
    state_of,
)
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def edit(world: World, letter: int, **fields: Any) -> Any:
    return service(world).edit(letter, edit_of(fields), actor=ACTOR, reason="mend it")


def test_search_finds_by_everything_and_pages(world: World) -> None:
    ids = dead_tasks(world, 7)
    letters = letters_of(world, ids)
    look = service(world).search
    assert [row["id"] for row in look(selection_of({}), limit=3)] == letters[::-1][:3]
    assert [row["id"] for row in look(selection_of({}), limit=9, before=letters[4])] == letters[:4][::-1]
    for selected, count in (
        ({"source": "things"}, 7), ({"source": "others"}, 0), ({"task_id": ids[2]}, 1), ({"ids": letters[:2]}, 2),
        ({"text": "ANSWERED 503"}, 7), ({"text": "%"}, 0), ({"state": "OPEN"}, 7), ({"state": "DISCARDED"}, 0),
        ({"since": "2020-01-01T00:00:00Z"}, 7), ({"until": "2020-01-01T00:00:00Z"}, 0),
        ({"since": "2020-01-01T00:00:00Z", "task_id": ids[0], "text": "503"}, 1),
    ):  # fmt: skip
        assert len(look(selection_of(selected))) == count, selected


def test_a_letter_tells_everything_without_secrets(world: World) -> None:
    (task_id,) = dead_tasks(
        world, 1, message="https://me:hush@api.example.org/x?token=hush&n={n}: answered 503"
    )
    published(world)
    drained(world)
    (letter,) = letters_of(world, [task_id])
    shown = service(world).show(letter)
    assert "hush" not in str(shown)
    assert shown["task"]["params"] == {"day": "day 0"}
    assert shown["message"]["body"]["json"]["task_id"] == task_id
    assert [move["to_status"] for move in shown["log"]] == ["QUEUED", "CLAIMED", "DEAD"]
    assert [row["stage"] for row in shown["trace"]] == ["admit", "publish"]
    assert "hush" not in str(service(world).search(selection_of({})))
    assert "hush" not in str(service(world).groups(selection_of({})))
    with pytest.raises(NoSuchLetter):
        service(world).show(10**9)


def test_discarding_needs_a_reason_and_can_be_undone(world: World) -> None:
    ids = dead_tasks(world, 3)
    letters = letters_of(world, ids)
    with pytest.raises(ValidationFailed, match="must say why"):
        service(world).discard(selection_of({"ids": letters}), actor=ACTOR, reason="")
    done = service(world).discard(selection_of({"ids": letters[:2]}), actor=ACTOR, reason="gone for good")
    assert (done.moved, done.left) == (tuple(letters[:2]), {})
    again = service(world).discard(selection_of({"ids": letters}), actor=ACTOR, reason="all of them")
    assert (again.moved, again.left[letters[0]]) == ((letters[2],), f"is DISCARDED, task {ids[0]} is DEAD")
    row = service(world).show(letters[0])["letter"]
    assert (row["state"], row["state_by"], row["state_reason"]) == ("DISCARDED", ACTOR, "gone for good")
    assert world.task(ids[0])["status"] == "DEAD"
    assert sent_again(world, ids=[letters[0]]).skipped == 1
    service(world).take_back(selection_of({"ids": [letters[0]]}), actor=ACTOR, reason="still wanted")
    assert sent_again(world, ids=[letters[0]]).done == 1


def test_an_edited_request_runs_as_it_is_now(world: World) -> None:
    with PagedServer(rows=120) as server:
        world.serve_from(server.base_url)
        (task_id,) = dead_tasks(world, 1, days=["wrong"])
        (letter,) = letters_of(world, [task_id])
        done = edit(world, letter, params={"day": "right"}, priority=9)
        assert done.request_changed
        assert (done.before, done.after) == (
            {"params": {"day": "wrong"}, "priority": 5}, {"params": {"day": "right"}, "priority": 9},
        )  # fmt: skip
        assert (world.task(task_id)["status"], world.task(task_id)["lane"]) == ("DEAD", "urgent")
        expected = dedup_key(source(), render(source(), {"day": "right"}), {})
        assert bytes(world.task(task_id)["dedup_key"]) == expected
        assert sent_again(world, ids=[letter]).done == 1
        run_all(world, "urgent")
        assert world.task(task_id)["status"] == "COMPLETED"
        assert {request.query.get("day") for request in server.requests} == {"right"}
    (noted,) = service(world).show(letter)["letter"]["edits"]
    assert (noted["by"], noted["reason"], noted["after"]["priority"]) == (ACTOR, "mend it", 9)
    assert world.submit(params={"day": "right"}).duplicate_of == task_id
    log = world.rows("SELECT reason FROM collect.task_log WHERE task_id = %s ORDER BY id", task_id)
    assert "edited: mend it" in [row["reason"] for row in log]


def test_an_edit_is_validated_like_a_submission(world: World) -> None:
    (task_id,) = dead_tasks(world, 1)
    (letter,) = letters_of(world, [task_id])
    with pytest.raises(ValidationFailed) as refused:
        edit(world, letter, params={"dya": "x"}, priority=11)
    assert "did you mean" in str(refused.value) or "0 to 10" in str(refused.value)
    with pytest.raises(ValidationFailed, match="is not a parameter"):
        edit(world, letter, params={"dya": "x"})
    with pytest.raises(ValidationFailed, match="path"):
        edit(world, letter, path="/../etc")
    with pytest.raises(ValidationFailed, match="NUL"):
        edit(world, letter, params={"day": "x\x00"})
    with pytest.raises(ValidationFailed, match="of a task one may change"):
        edit(world, letter, body="x")
    with pytest.raises(ValidationFailed, match="of a task one may change"):
        edit(world, letter)
    with pytest.raises(ValidationFailed, match="parms"):
        edit(world, letter, parms={})
    assert world.task(task_id)["generation"] == 1


def test_an_edited_duplicate_is_refused_when_it_is_sent(world: World) -> None:
    (task_id,) = dead_tasks(world, 1, days=["a"])
    holder = world.submit(params={"day": "b"}).task_id
    (letter,) = letters_of(world, [task_id])
    edit(world, letter, params={"day": "b"})
    assert sent_again(world, ids=[letter]).skipped == 1
    assert world.task(holder)["status"] == "QUEUED"


def test_rows_of_two_requests_are_never_mixed(world: World) -> None:
    (task_id,) = dead_tasks(world, 1)
    (letter,) = letters_of(world, [task_id])
    with connect(world.backends.postgres_dsn) as db:
        db.execute("UPDATE collect.task SET shards_total = 2, total_rows = 200 WHERE id = %s", (task_id,))
        db.execute(
            "INSERT INTO collect.shard (task_id, shard_no, span_offset, span_size, status, pages, rows_landed) "
            "VALUES (%(id)s, 0, 0, 100, 'FAILED', 1, 50), (%(id)s, 1, 100, 100, 'FAILED', 0, 0)",
            {"id": task_id},
        )
    with pytest.raises(RequestHasLanded, match=f"task {task_id} has landed 50 rows"):
        edit(world, letter, params={"day": "another"})
    assert not edit(world, letter, priority=8).request_changed, "a priority changes no request"
    with connect(world.backends.postgres_dsn) as db:
        db.execute("UPDATE collect.shard SET pages = 0, rows_landed = 0 WHERE task_id = %s", (task_id,))
    assert edit(world, letter, params={"day": "another"}).request_changed
    task = world.task(task_id)
    assert (task["shards_total"], task["total_rows"]) == (None, None)
    assert world.rows("SELECT 1 FROM collect.shard WHERE task_id = %s", task_id) == []


def test_a_mended_declaration_is_taken_over_on_demand(world: World) -> None:
    with PagedServer(rows=60) as server:
        world.serve_from(server.base_url)
        world.add(source(request={**source().request.model_dump(mode="json"), "path": "/nothing-here"}))
        (task_id,) = dead_tasks(world, 1)
        (letter,) = letters_of(world, [task_id])
        world.add(source())
        sent_again(world, ids=[letter])
        run_all(world)
        assert world.task(task_id)["status"] == "DEAD", "it runs as it was admitted"
        (letter,) = letters_of(world, [task_id])
        assert "declaration" in edit(world, letter, redeclare=True).after
        sent_again(world, ids=[letter])
        run_all(world)
        assert world.task(task_id)["status"] == "COMPLETED"


def test_equal_edits_of_scheduled_tasks_stay_different(world: World) -> None:
    """Their data intervals, which only their keys tell, still count."""
    ids = dead_tasks(world, 1, days=["a"], identity={"interval": "1"})
    ids += dead_tasks(world, 1, days=["a"], identity={"interval": "2"})
    for letter in letters_of(world, ids):
        edit(world, letter, params={"day": "b"})
    assert world.task(ids[0])["dedup_key"] != world.task(ids[1])["dedup_key"]
    assert sent_again(world, source="things").done == 2


def test_what_is_not_open_is_not_edited(world: World) -> None:
    ids = dead_tasks(world, 2)
    letters = letters_of(world, ids)
    sent_again(world, ids=[letters[0]])
    service(world).discard(selection_of({"ids": [letters[1]]}), actor=ACTOR, reason="no")
    for letter, word in zip(letters, ("REDRIVEN", "DISCARDED"), strict=True):
        with pytest.raises(NotOpen, match=word):
            edit(world, letter, priority=3)
    with pytest.raises(NoSuchLetter):
        edit(world, 10**9, priority=3)
    assert state_of(world, letters[0]) == "REDRIVEN"


def test_what_others_asked_for_is_not_edited_away(world: World) -> None:
    survivor, member = dead_tasks(world, 2)
    with connect(world.backends.postgres_dsn) as db:
        db.execute(
            "UPDATE collect.task SET merged_task_ids = ARRAY[%s::bigint] WHERE id = %s", (member, survivor)
        )
    letter = letters_of(world, [survivor])[0]
    with pytest.raises(NotOpen, match="collects for tasks"):
        edit(world, letter, params={"day": "z"})
    assert edit(world, letter, priority=8).after == {"priority": 8}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fingerprint": "xyz"}, "fingerprint"),
        ({"ids": ["a"]}, "ids.0"),
        ({"ids": [0]}, "ids.0"),
        ({"since": "yesterday"}, "since"),
        ({"state": "GONE"}, "state"),
        ({"text": "a\x00"}, "NUL"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_selection_that_means_nothing_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationFailed, match=words):
        selection_of(given)
