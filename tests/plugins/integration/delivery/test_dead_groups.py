"""The groups' counts are those of the letters, whatever becomes of them and however many do it at once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from collect_ops.storage import Connection, connect, query
from tests.plugins.integration.world import World

STATES = ("OPEN", "REDRIVEN", "SETTLED", "FAILED", "DISCARDED")


def insert(db: Connection, count: int) -> None:
    db.execute(
        "INSERT INTO collect.dead_letter (message_key, error_message, retry_count, source, failed_at) "
        "SELECT decode(md5(random()::text || n), 'hex'), 'e' || n, 0, nullif('s' || n %% 3, 's0'), "
        "now() - random() * interval '1 day' FROM generate_series(1, %s) AS n",
        (count,),
    )


def read(db: Connection) -> None:
    db.execute(
        "UPDATE collect.dead_letter SET fingerprint = 'group-' || id % 4, pattern = 'e' WHERE fingerprint IS NULL"
    )


def move(db: Connection, chance: float, state: str) -> None:
    db.execute("UPDATE collect.dead_letter SET state = %s WHERE random() < %s", (state, chance))


def delete(db: Connection, chance: float) -> None:
    db.execute("DELETE FROM collect.dead_letter WHERE random() < %s", (chance,))


def sum_up(db: Connection) -> None:
    db.execute(query("delivery/sum_up_dead_groups"))


def told(db: Connection) -> dict[str, Any]:
    rows = db.execute(query("delivery/select_dead_groups"), {"limit": 50}).fetchall()
    return {row["fingerprint"]: {**row, "sources": set(row["sources"])} for row in rows}


def counted(db: Connection) -> dict[str, Any]:
    ids = [
        row["id"]
        for row in db.execute(
            "SELECT id FROM collect.dead_letter WHERE state = 'OPEN' AND fingerprint IS NOT NULL"
        )
    ]
    rows = db.execute(query("delivery/group_dead_letters"), {"ids": ids, "limit": 50}).fetchall()
    return {row["fingerprint"]: {**row, "sources": set(row["sources"])} for row in rows}


def test_counts_follow_every_change(world: World, db: Connection) -> None:
    chance = random.Random(7)
    for _ in range(40):
        match chance.randrange(6):
            case 0 | 1:
                insert(db, chance.randrange(1, 20))
            case 2:
                read(db)
            case 3:
                move(db, chance.random(), chance.choice(STATES))
            case 4:
                delete(db, chance.random() / 3)
            case 5:
                sum_up(db)
        assert told(db) == counted(db)


def test_counts_hold_when_many_change_at_once(world: World, db: Connection) -> None:
    insert(db, 200)
    read(db)

    def work(number: int) -> None:
        with connect(world.backends.postgres_dsn) as connection:
            for turn in range(8):
                insert(connection, 3)
                connection.execute(
                    "UPDATE collect.dead_letter SET state = %s WHERE id %% 4 = %s", (STATES[turn % 5], number)
                )
                sum_up(connection)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    read(db)
    sum_up(db)
    assert told(db) == counted(db)
    rows = db.execute("SELECT count(*) AS n FROM collect.dead_group_change").fetchone()
    assert rows is not None
    assert rows["n"] <= 4 * 3, "one row a group and source"
