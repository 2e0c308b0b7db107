"""Dead letters for tests: tasks that died of a fault which their source's server had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collect_ops.admission.model import Admission
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import outbox, redrive
from collect_ops.delivery.dead_drain import Drained, run_once
from collect_ops.delivery.dead_letters import DeadLetters
from collect_ops.delivery.dead_model import RedriveProgress, selection_of
from collect_ops.storage import Jsonb, connect
from tests.plugins.integration.world import World

ACTOR = "someone"


def service(world: World) -> DeadLetters:
    """The service over a world's sources."""
    return DeadLetters(world.backends, world.rules, sources=world.find)


def dead_tasks(
    world: World, count: int, *, message: str = "{url}?day={n}: answered 503", **fields: Any
) -> list[int]:
    """Tasks that were claimed and died, by the moves that settling makes; `{n}` in the message differs."""
    days = fields.pop("days", [f"day {n}" for n in range(count)])
    submissions = [world.submission(params={"day": day}, **fields) for day in days]
    ids = [each.task_id for each in world.service().admit_batch(submissions) if isinstance(each, Admission)]
    assert len(set(ids)) == count
    kill(world, ids, message)
    return ids


def kill(world: World, ids: Sequence[int], message: str) -> None:
    """QUEUED tasks are claimed and end DEAD, each with a dead letter."""
    reasons = [
        message.replace("{n}", str(n)).replace("{url}", "https://api.example.org/v1/things") for n in ids
    ]
    values = {
        "ids": list(ids),
        "reasons": reasons,
        "error": Jsonb({"class": "ServerFailed", "message": "503"}),
    }
    with connect(world.backends.postgres_dsn) as db, db.transaction():
        db.execute(
            "UPDATE collect.task SET status = 'CLAIMED', attempt = attempt + 1, moved_by = 'test', "
            "confirmed_generation = generation WHERE id = ANY(%(ids)s)",
            values,
        )
        db.execute(
            "UPDATE collect.task AS t SET status = 'DEAD', reason = r.reason, error = %(error)s, retry_count = 3, "
            "finished_at = now() FROM unnest(%(ids)s::bigint[], %(reasons)s::text[]) AS r (id, reason) "
            "WHERE t.id = r.id",
            values,
        )
        db.execute(
            "INSERT INTO collect.dead_letter (task_id, generation, error_message, retry_count) "
            "SELECT id, generation, reason, retry_count FROM collect.task WHERE id = ANY(%(ids)s) ORDER BY id",
            values,
        )


def letters_of(world: World, ids: Sequence[int]) -> list[int]:
    """The newest dead letter of each of some tasks."""
    rows = world.rows(
        "SELECT max(id) AS id FROM collect.dead_letter WHERE task_id = ANY(%s) GROUP BY task_id", ids
    )
    return sorted(row["id"] for row in rows)


def sent_again(world: World, *, rate_per_s: float | None = None, **selected: Any) -> RedriveProgress:
    """A redrive, from begin to end."""
    begun = service(world).begin_redrive(
        selection_of(selected), actor=ACTOR, reason="mended", rate_per_s=rate_per_s
    )
    return redrive.drive(begun.id, world.backends, world.rules, actor=ACTOR, time_limit_s=60)


def published(world: World) -> int:
    """Bring dead letters to the queue; returns how many."""
    with connect(world.backends.postgres_dsn) as db, Publisher(world.backends.amqp_url) as publisher:
        return outbox.run_once(db, publisher, world.rules).dead_letters


def drained(world: World) -> Drained:
    """Drain the queue."""
    return run_once(world.backends, world.rules)


def run_all(world: World, lane: str = "normal") -> None:
    """Claim and run until the lane is empty."""
    while world.claim_and_run(lane):
        pass


def state_of(world: World, letter_id: int) -> str:
    """Where a dead letter stands."""
    return str(world.rows("SELECT state FROM collect.dead_letter WHERE id = %s", letter_id)[0]["state"])
