"""Random lives of tasks on real services: what people, processes and faults do to them, in any order.

After every step the tasks must make sense together; in the end faults stop and time passes, and then everything that
was admitted must have ended, with each row landed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collect_ops.admission.model import Admission, Submission
from collect_ops.broker.connection import BrokerUnavailable
from collect_ops.broker.consumer import Consumer
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery.dead_drain import run_once as drain_dead
from collect_ops.delivery.dead_letters import DeadLetters
from collect_ops.delivery.dead_model import selection_of
from collect_ops.delivery.intervene import cancel
from collect_ops.delivery.priorities import adjust
from collect_ops.delivery.redrive import drive
from collect_ops.delivery.sweep import sweep
from collect_ops.lanes.runs import RunState, RunsUnavailable
from collect_ops.storage import Connection, connect
from collect_ops.tasks.lifecycle import FINAL, TaskStatus
from tests.factories import list_source
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World
from tests.servers.paged import Failure, PagedServer

MOST_IDS = 30
LIVE = tuple(status for status in TaskStatus if status not in FINAL)
#: What passes at once, in seconds: hardly anything, a repair's patience, a hung run, a message's life, a dedup window.
JUMPS_S = (5, 40, 1000, 8000, 90_000)

id_lists = st.lists(st.integers(0, MOST_IDS - 1), min_size=1, max_size=4, unique=True)


class Lives(RuleBasedStateMachine):
    """Collect tasks and everything that happens to them.

    Args:
        world: On real services.
        server: Where the sources' rows are.
        purge: Empties every queue of the broker.
        flush: Empties Redis.
    """

    steps = 0
    seen: ClassVar[Counter[str]] = Counter()

    def __init__(
        self, world: World, server: PagedServer, purge: Callable[[], None], flush: Callable[[], None]
    ) -> None:
        super().__init__()
        self._world = world
        self._server = server
        self._purge = purge
        self._flush = flush
        self._db: Connection = connect(world.backends.postgres_dsn, application_name="test lives")
        self._asked: dict[int, set[int]] = {}
        self._forced: set[int] = set()
        self._sent: list[Submission] = []
        self._todo: list[str] = []  # runs that were started and that nobody has run yet

    @initialize()
    def empty(self) -> None:
        self._db.execute(
            "TRUNCATE collect.task, collect.dead_letter, collect.redrive, collect.shard_group CASCADE"
        )
        self._db.execute("DROP TABLE IF EXISTS landing.merging, landing.limited")
        target = {"disposition": "append", "columns": {"id": {"type": "bigint"}, "name": {"type": "text"}}}
        self._world.add(
            list_source("merging", max_values=12, target={"table": "merging", **target}),
            list_source("limited", target={"table": "limited", **target}, max_active_tasks=2).model_copy(
                update={"merge": None}
            ),
        )
        self._purge()
        self._flush()
        self._server.mend()
        self._world.runs.started.clear()
        self._world.runs.states.clear()
        self.submit("merging", [[1, 2], [2, 3], [4]], None, force=False, broker=True)
        self.submit("limited", [[1], [2], [3]], None, force=False, broker=True)

    def teardown(self) -> None:
        try:
            if self._asked:
                self._end_well()
        finally:
            self._db.close()

    # What people do.

    @rule(
        source=st.sampled_from(["merging", "merging", "limited"]),
        lists=st.lists(id_lists, min_size=1, max_size=4),
        priority=st.sampled_from([None, 1, 9]),
        force=st.sampled_from([False, False, False, True]),
        broker=st.sampled_from([True, True, True, False]),
    )
    def submit(
        self, source: str, lists: list[list[int]], priority: int | None, force: bool, broker: bool
    ) -> None:
        Lives.steps += 1
        batch = [
            self._world.submission(source, params=_params(ids), priority=priority, force=force)
            for ids in lists
        ]
        with _Broken(Publisher, "publish", _nothing_confirmed, unless=broker):
            answers = self._world.service().admit_batch(batch)
        self._sent += batch
        for ids, answer in zip(lists, answers, strict=True):
            assert isinstance(answer, Admission), answer
            if answer.duplicate_of is None:
                assert answer.task_id not in self._asked
                self._asked[answer.task_id] = set(ids)
                self._forced |= {answer.task_id} if force else set()
            else:
                assert not force
                assert self._asked[answer.task_id] == set(ids)

    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        """The same request gets the same answer, whatever has become of its task."""
        if self._sent:
            Lives.steps += 1
            sent = data.draw(st.sampled_from(self._sent))
            before = len(self._rows("SELECT id FROM collect.task"))
            (answer,) = self._world.service().admit_batch([sent])
            assert isinstance(answer, Admission)
            assert answer.known
            assert len(self._rows("SELECT id FROM collect.task")) == before

    @rule(data=st.data(), priority=st.integers(0, 10))
    def adjust(self, data: st.DataObject, priority: int) -> None:
        if ids := self._some(data):
            adjust(ids, priority, self._world.backends, self._world.rules, actor="test", reason="other")

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if ids := self._some(data):
            cancel(ids, self._world.backends, self._world.rules, actor="test", reason="no more")
            for row in self._rows("SELECT status, withdrawn_at FROM collect.task WHERE id = ANY(%s)", ids):
                assert row["status"] in FINAL or row["withdrawn_at"] is not None

    @rule()
    def redrive(self) -> None:
        Lives.steps += 1
        drain_dead(self._world.backends, self._world.rules)
        self._redrive()

    # What processes do.

    @rule(lane=st.sampled_from(["urgent", "normal", "bulk"]), acks=st.sampled_from([True, True, True, False]))
    def claim(self, lane: str, acks: bool) -> None:
        """`acks`: else the claim dies between its commit and its acks, before it has started a run."""
        Lives.steps += 1
        if acks:
            self._claim(lane)
            return
        with (
            _Broken(Consumer, "ack", _broker_gone, unless=False),
            _Broken(type(self._world.runs), "start", _airflow_gone, unless=False),
            suppress(BrokerUnavailable),
        ):
            self._world.claim(lane)

    @rule(data=st.data(), fate=st.sampled_from(["well", "well", "well", "refused", "broken"]))
    def run(self, data: st.DataObject, fate: str) -> None:
        """A run from its first to its last task; the source answers, refuses for good, or is broken for a while."""
        run_id = self._next_run(data)
        if run_id is None:
            return
        if fate != "well":
            self._server.fail_where(lambda _: True, Failure(status=404 if fate == "refused" else 503))
        try:
            self._world.run(run_id)
        finally:
            self._server.mend()

    @rule(data=st.data(), planned=st.booleans())
    def die(self, data: st.DataObject, planned: bool) -> None:
        """A run's process dies, before or after it has planned."""
        run_id = self._next_run(data)
        if run_id is None:
            return
        if planned:
            self._world.plan(run_id)
        self._world.runs.states[run_id] = RunState.ENDED

    @rule()
    def sweep(self) -> None:
        Lives.steps += 1
        self._sweep()

    # What happens to all of them.

    @rule()
    def flush_redis(self) -> None:
        Lives.steps += 1
        self._flush()

    @rule()
    def lose_messages(self) -> None:
        Lives.steps += 1
        self._purge()

    @rule(seconds=st.sampled_from(JUMPS_S))
    def jump(self, seconds: int) -> None:
        Lives.steps += 1
        self._jump(seconds)

    # What must hold after every step.

    @invariant()
    def merged_tasks_wait_for_live_work(self) -> None:
        rows = self._rows(
            "SELECT m.id, m.params AS own, s.status, s.params FROM collect.task AS m "
            "LEFT JOIN collect.task AS s ON s.id = m.merged_into WHERE m.status = 'MERGED'"
        )
        for row in rows:
            assert row["status"] in LIVE, row
            assert row["status"] != TaskStatus.MERGED, row
            assert _ids(row["own"]) <= _ids(row["params"]), row

    @invariant()
    def equals_are_not_live_twice(self) -> None:
        rows = self._rows("SELECT id, dedup_key FROM collect.task WHERE status = ANY(%s)", list(LIVE))
        counted = Counter(bytes(row["dedup_key"]) for row in rows if row["id"] not in self._forced)
        assert all(count == 1 for count in counted.values()), rows

    @invariant()
    def keys_point_to_tasks(self) -> None:
        assert (
            self._rows("SELECT task_id FROM collect.dedup WHERE task_id NOT IN (SELECT id FROM collect.task)")
            == []
        )

    @invariant()
    def every_task_is_where_its_log_left_it(self) -> None:
        rows = self._rows(
            "SELECT t.id, t.status, t.finished_at IS NOT NULL AS finished, "
            "(SELECT to_status FROM collect.task_log WHERE task_id = t.id ORDER BY id DESC LIMIT 1) AS told "
            "FROM collect.task AS t ORDER BY id"
        )
        assert [row["id"] for row in rows] == sorted(self._asked)
        for row in rows:
            assert row["status"] == row["told"], row
            assert row["finished"] == (row["status"] in FINAL), row

    # In the end.

    def _end_well(self) -> None:
        """Faults have stopped: time passes, and everything ends."""
        self._server.mend()
        for _ in range(60):
            live = self._rows("SELECT id, status FROM collect.task WHERE status = ANY(%s)", list(LIVE))
            if not live:
                break
            self._jump(8000)
            self._sweep()
            for lane in self._world.rules.lanes:
                self._claim(lane)
            while self._todo:
                self._world.run(self._todo.pop())
        else:
            raise AssertionError(f"these never end: {live}")
        self._jump(8000)
        self._sweep()
        Lives.seen.update(
            f"{row['from_status']} -> {row['to_status']}"
            for row in self._rows("SELECT from_status, to_status FROM collect.task_log")
        )
        self._each_row_has_landed_once()
        self._nothing_is_left_behind()

    def _each_row_has_landed_once(self) -> None:
        for table in ("merging", "limited"):
            if not self._rows("SELECT to_regclass(%s) AS there", f"landing.{table}")[0]["there"]:
                continue
            rows = self._rows(f"SELECT _task_id, id, count(*) AS n FROM landing.{table} GROUP BY 1, 2")
            assert all(row["n"] == 1 for row in rows), rows
            landed: dict[int, set[int]] = {}
            for row in rows:
                landed.setdefault(row["_task_id"], set()).add(row["id"])
            tasks = self._rows("SELECT * FROM collect.task WHERE source = %s", table)
            for task in tasks:
                if task["status"] != TaskStatus.COMPLETED:
                    continue
                if task["merged_into"] is None:
                    assert landed.get(task["id"]) == _ids(task["params"]), task
                else:
                    assert self._asked[task["id"]] <= landed[task["result"]["collected_by"]], task
                    assert task["result"]["rows_landed"] == len(self._asked[task["id"]]), task

    def _nothing_is_left_behind(self) -> None:
        assert self._rows("SELECT 1 FROM collect.shard_group WHERE status = 'OPEN'") == []
        assert self._rows("SELECT 1 FROM collect.task WHERE confirmed_generation < generation") == []
        assert self._rows("SELECT 1 FROM collect.task WHERE groups_reserved > 0") == []
        until(self._lanes_are_empty, "what is left in the lanes is stale, and is dropped")

    def _lanes_are_empty(self) -> bool:
        """Claims drop what is stale; a retry's old message may still come back from the ladder meanwhile."""
        for lane in self._world.rules.lanes:
            assert self._world.claim(lane).claimed == 0
        with Consumer(self._world.backends.amqp_url) as consumer:
            return not any(consumer.depth(self._world.rules.queue(lane)) for lane in self._world.rules.lanes)

    def _next_run(self, data: st.DataObject) -> str | None:
        if not self._todo:
            for lane in self._world.rules.lanes:
                self._claim(lane)
        if not self._todo:
            return None
        Lives.steps += 1
        run_id = data.draw(st.sampled_from(self._todo))
        self._todo.remove(run_id)
        return run_id

    def _claim(self, lane: str) -> None:
        self._todo += [run.run_id for run in self._world.claim(lane).runs]

    def _sweep(self) -> None:
        before = set(self._world.runs.started)
        sweep(self._world.backends, self._world.rules, self._world.runs, actor="test sweep")
        self._todo += sorted(set(self._world.runs.started) - before)

    def _redrive(self) -> None:
        letters = DeadLetters(self._world.backends, self._world.rules, sources=self._world.find)
        rows = self._rows("SELECT id FROM collect.dead_letter WHERE state = 'OPEN' AND task_id IS NOT NULL")
        if rows:
            chosen = selection_of({"ids": [row["id"] for row in rows]})
            begun = letters.begin_redrive(chosen, actor="test", reason="again")
            drive(begun.id, self._world.backends, self._world.rules, actor="test")

    def _jump(self, seconds: int) -> None:
        """Let time pass, by setting back what the past has written."""
        for table, columns in _TIMES.items():
            changes = ", ".join(f"{column} = {column} - make_interval(secs => %(s)s)" for column in columns)
            self._db.execute(f"UPDATE {table} SET {changes}", {"s": seconds})  # type: ignore[arg-type]

    def _some(self, data: st.DataObject) -> list[int]:
        if not self._asked:
            return []
        Lives.steps += 1
        return data.draw(st.lists(st.sampled_from(sorted(self._asked)), min_size=1, max_size=3, unique=True))

    def _rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        return self._db.execute(statement, values).fetchall()  # type: ignore[arg-type]


_TIMES = {
    "collect.task": (
        "created_at", "queued_at", "due_at", "claimed_at", "started_at", "progress_at", "finished_at",
    ),
    "collect.shard": ("started_at", "progress_at", "finished_at"),
    "collect.shard_group": ("opened_at", "started_at", "closed_at"),
    "collect.dedup": ("expires_at",),
    "collect.redrive": ("stepped_at",),
}  # fmt: skip


class _Broken:
    """A call of ours that fails for the length of a block: a fault where no real one could be timed so well."""

    def __init__(self, owner: type, name: str, instead: Callable[..., Any], *, unless: bool) -> None:
        self._patch = None if unless else patch.object(owner, name, instead)

    def __enter__(self) -> None:
        if self._patch is not None:
            self._patch.start()

    def __exit__(self, *_: object) -> None:
        if self._patch is not None:
            self._patch.stop()


def _nothing_confirmed(_publisher: Publisher, messages: Any) -> Any:
    from collect_ops.broker.publisher import Published

    return Published(confirmed=frozenset(), unroutable=frozenset(), failure="the broker is away")


def _broker_gone(_consumer: Consumer, _tags: Any) -> None:
    raise BrokerUnavailable(ConnectionResetError())


def _airflow_gone(*_: object) -> None:
    raise RunsUnavailable("Airflow is away")


def _params(ids: list[int]) -> dict[str, Any]:
    return {"ids": ",".join(map(str, ids))}


def _ids(params: dict[str, Any]) -> set[int]:
    return {int(one) for one in params["ids"].split(",")}
