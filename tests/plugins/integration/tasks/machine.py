"""A model of collect tasks beside the real statements: what the statements do must be what the model says.

Every rule makes one move by the statement (or use case) that the system makes it with, with present or outdated
generations, attempts and tokens; then each task's row, its log and its shards are compared with the model.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from collect_ops.delivery.intervene import cancel
from collect_ops.delivery.priorities import adjust
from collect_ops.execution.policy import Attempt, ShardSums, hopeless, settle_outcome
from collect_ops.execution.settle import settle
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.priority import priority_of, priority_rules
from collect_ops.lanes.rules import LaneRules
from collect_ops.sources.stored import FORMAT
from collect_ops.storage import Jsonb, connect, errors, query
from collect_ops.tasks.lifecycle import FINAL, MOVES, UNDER_WAY, TaskStatus
from tests.factories import source

S = TaskStatus
SHARDS = 2
WAITING = frozenset({S.QUEUED, S.RETRYING})
ERROR = {"message": "no", "transient": True}


@dataclass
class ModelShard:
    """A shard; `permanent`: it has failed for good; `run_id`: of the run that it was dealt to."""

    status: str = "PENDING"
    run_id: str | None = None
    token: int = 0
    permanent: bool = False


@dataclass
class ModelTask:
    """A task, as it should be."""

    id: int
    max_retries: int
    status: TaskStatus = S.QUEUED
    priority: int = 5
    base_priority: int = 5
    pinned: bool = False
    generation: int = 1
    attempt: int = 0
    retry_count: int = 0
    lost_count: int = 0
    run_id: str | None = None
    plan_error: dict[str, Any] | None = None
    shards: list[ModelShard] = field(default_factory=list)
    dead_letters: int = 0
    story: list[tuple[str | None, str, int, int]] = field(default_factory=list)

    def move(self, to: TaskStatus, *, again: bool = False) -> None:
        """Move, by a new generation if `again`."""
        before = self.status
        self.generation += again
        self.status = to
        self.story.append((before, to, self.generation, self.attempt))

    def fence(self, *, again: bool) -> None:
        """Nobody who holds an unfinished shard may land any more."""
        for shard in self.shards:
            if shard.status != "DONE":
                shard.token += 1
                shard.status = "PENDING" if again else shard.status


@dataclass(frozen=True)
class Token:
    """A fencing token that was given out."""

    task_id: int
    shard_no: int
    number: int


class TaskMachine(RuleBasedStateMachine):
    """Collect tasks under random moves.

    Args:
        backends: PostgreSQL is used; RabbitMQ is left out, since what is published is the outbox's matter.
        rules: Lane rules.
    """

    def __init__(self, backends: Backends, rules: LaneRules) -> None:
        super().__init__()
        self._backends = replace(backends, amqp_url="amqp://guest:guest@127.0.0.1:1/none")
        self._lane_rules = rules
        self._connection = connect(backends.postgres_dsn, application_name="test machine")
        self._connection.execute("SET synchronous_commit = off")
        self._tasks: dict[int, ModelTask] = {}
        self._tokens: list[Token] = []

    def teardown(self) -> None:
        self._connection.close()

    def _run(self, name: str, **values: Any) -> list[dict[str, Any]]:
        cursor = self._connection.execute(query(name), values)
        return cursor.fetchall() if cursor.description else []

    def _draw(
        self, data: st.DataObject, statuses: Collection[TaskStatus] = frozenset(TaskStatus)
    ) -> ModelTask:
        """A task in one of the given statuses if there is one, else any."""
        fitting = [task for task in self._tasks.values() if task.status in statuses]
        return data.draw(st.sampled_from(fitting or list(self._tasks.values())), label="task")

    @initialize(retries=st.lists(st.integers(0, 2), min_size=1, max_size=3))
    def submit(self, retries: list[int]) -> None:
        self._connection.execute("DELETE FROM collect.task")  # for a few rows cheaper than TRUNCATE
        ids = [row["id"] for row in self._run("admission/take_task_ids", count=len(retries))]
        definition = source().model_dump(mode="json")
        version = {
            "hash": "01", "source": "things", "format": 1, "definition": definition, "declared": definition,
        }  # fmt: skip
        tasks = [
            {
                "id": task_id,
                "source": "things",
                "source_version": "01",
                "params": {},
                "dedup_key": f"{number:02x}",
                "priority": 5,
                "base_priority": 5,
                "emergency": False,
                "lane": "normal",
                "max_retries": max_retries,
                "submitted_by": "test",
                "submitted_via": "test",
            }
            for number, (task_id, max_retries) in enumerate(zip(ids, retries, strict=True))
        ]
        self._run("admission/insert_tasks", versions=Jsonb([version]), tasks=Jsonb(tasks))
        for task_id, max_retries in zip(ids, retries, strict=True):
            task = ModelTask(id=task_id, max_retries=max_retries)
            task.story.append((None, S.QUEUED, 1, 0))
            self._tasks[task_id] = task

    @rule(data=st.data(), steps=st.integers(1, 8))
    def advance(self, data: st.DataObject, steps: int) -> None:
        """A task goes on, as it does when nothing interferes."""
        task = self._draw(data, frozenset(TaskStatus) - FINAL)
        for _ in range(steps):
            self._advance(data, task)

    def _advance(self, data: st.DataObject, task: ModelTask) -> None:
        unfinished = [
            number for number, shard in enumerate(task.shards) if shard.status in ("PENDING", "RUNNING")
        ]
        match task.status:
            case S.QUEUED | S.RETRYING:
                self._claim(task, generation=task.generation)
            case S.HELD:
                self._release()
            case S.CLAIMED if data.draw(st.integers(0, 4)) == 4:
                self._settle(task, attempt=task.attempt, run_over=True)  # its run died before its first act
            case S.CLAIMED:
                self._dispatch(task, attempt=task.attempt)
                self._plan(task, failing=data.draw(st.sampled_from([None, None, None, True, False])))
            case S.DISPATCHED if task.plan_error is None:
                self._start(task, attempt=task.attempt)
            case S.RUNNING if unfinished:
                token = self._take(task, unfinished[0], attempt=task.attempt)
                ends = ["done", "done", "page", "failed", "failed", "hopeless"]
                self._work(token, data.draw(st.sampled_from(ends)))
            case S.DISPATCHED | S.RUNNING:
                self._settle(task, attempt=task.attempt, run_over=True)

    @rule(data=st.data(), run_over=st.booleans())
    def settle_early(self, data: st.DataObject, run_over: bool) -> None:
        """The run ended, or a shard group asks whether its task is finished."""
        task = self._draw(data, UNDER_WAY)
        self._settle(task, attempt=task.attempt, run_over=run_over)

    @rule(
        data=st.data(), act=st.sampled_from(["claim", "hold", "dispatch", "start", "take", "settle", "work"])
    )
    def come_late(self, data: st.DataObject, act: str) -> None:
        """A message, run, shard group or repair of the past (or of nothing) moves nothing."""
        task = self._draw(data)
        generation = task.generation + data.draw(st.sampled_from([-1, 1]))
        attempt = task.attempt - 1
        if act == "claim":
            self._claim(task, generation=generation)
        elif act == "hold":
            self._hold(task, generation=generation)
        elif act == "dispatch":
            self._dispatch(task, attempt=attempt)
        elif act == "start":
            self._start(task, attempt=attempt)
        elif act == "take":
            self._take(task, 0, attempt=attempt)
        elif act == "settle":
            self._settle(task, attempt=attempt, run_over=True)
        elif self._tokens:
            token = data.draw(st.sampled_from(self._tokens), label="token")
            self._work(token, data.draw(st.sampled_from(["done", "page", "failed", "hopeless"])))

    @rule(data=st.data(), act=st.sampled_from(["hold", "adjust", "republish", "illegal", "illegal", "take"]))
    def interfere(self, data: st.DataObject, act: str) -> None:
        """Limits, people and repairs change what waits or is under way."""
        if act == "hold":
            task = self._draw(data, WAITING)
            self._hold(task, generation=task.generation)
        elif act == "adjust":
            self._adjust(self._draw(data, WAITING | {S.HELD}), data.draw(st.integers(4, 7)))
        elif act == "republish":
            self._republish()
        elif act == "take":
            task = self._draw(data, {S.DISPATCHED, S.RUNNING})
            self._take(task, data.draw(st.integers(0, SHARDS - 1)), attempt=task.attempt)
        else:
            self._illegal(self._draw(data), data.draw(st.sampled_from(list(TaskStatus))))

    @rule(data=st.data(), sure=st.integers(0, 3))
    def cancel(self, data: st.DataObject, sure: int) -> None:
        task = self._draw(data, frozenset(TaskStatus) if sure else FINAL)
        done = cancel([task.id], self._backends, self._lane_rules, actor="test", reason="no more")
        assert done.moved == (() if task.status in FINAL else (task.id,))
        if done.moved:
            task.fence(again=False)
            task.move(S.CANCELLED)
            self._held_are_released()

    def _claim(self, task: ModelTask, *, generation: int) -> None:
        moved = self._run(
            "lanes/claim_tasks",
            task_ids=[task.id],
            generations=[generation],
            run_ids=[None],
            reserved=[1],
            nodes=["a,b"],
            dag_id="collect_normal",
            actor="test",
        )
        assert bool(moved) == (generation == task.generation and task.status in WAITING)
        if moved:
            task.attempt += 1
            task.run_id = f"things-{task.id}-attempt-{task.attempt}"
            task.plan_error = None
            task.move(S.CLAIMED)

    def _hold(self, task: ModelTask, *, generation: int) -> None:
        values = {"task_ids": [task.id], "generations": [generation], "reasons": ["test"], "actor": "test"}
        self._run("lanes/hold_tasks", **values, held_for=None)
        if generation == task.generation and task.status in WAITING:
            task.move(S.HELD)

    def _release(self) -> None:
        everything = {
            "source": None,
            "connection": None,
            "spared": None,
            "format": FORMAT,
            "patience_s": 21_600.0,
            "at_once": 100,
        }
        released = {row["id"] for row in self._run("lanes/release_held", **everything, actor="test")}
        assert released == {task.id for task in self._tasks.values() if task.status is S.HELD}
        self._held_are_released()

    def _held_are_released(self) -> None:
        for task in self._tasks.values():
            if task.status is S.HELD:
                task.move(S.QUEUED, again=True)

    def _dispatch(self, task: ModelTask, *, attempt: int) -> None:
        values = {"task_id": task.id, "attempt": attempt, "run_id": task.run_id, "actor": "test"}
        moved = self._run("execution/dispatch_task", **values)
        assert bool(moved) == (attempt == task.attempt and task.status is S.CLAIMED)
        if moved:
            task.move(S.DISPATCHED)

    def _plan(self, task: ModelTask, *, failing: bool | None) -> None:
        """`failing`: planning fails, transiently or for good."""
        if failing is not None:
            task.plan_error = {"message": "no", "transient": failing}
            values = {"task_id": task.id, "attempt": task.attempt, "error": Jsonb(task.plan_error)}
            self._run("execution/fail_planning", **values)
            return
        numbers = list(range(SHARDS))
        unset: list[None] = [None] * SHARDS
        own = {"params": unset, "labels": unset, "units": unset}
        spans = {"shard_nos": numbers, "offsets": numbers, "sizes": [1] * SHARDS}
        self._run("execution/insert_shards", task_id=task.id, **spans, **own)
        dealt = {"run_id": task.run_id, "shard_nos": numbers, "group_nos": [0] * SHARDS}
        self._run("execution/assign_shards", task_id=task.id, **dealt)
        self._run("execution/record_plan", task_id=task.id, shards_total=SHARDS, total_rows=None)
        task.shards = task.shards or [ModelShard() for _ in numbers]
        for shard in task.shards:
            if shard.status != "DONE":
                shard.status, shard.run_id = "PENDING", task.run_id

    def _start(self, task: ModelTask, *, attempt: int) -> None:
        self._run("execution/start_task", task_id=task.id, attempt=attempt, actor="test")
        if attempt == task.attempt and task.status is S.DISPATCHED:
            task.move(S.RUNNING)

    def _take(self, task: ModelTask, shard_no: int, *, attempt: int) -> Token:
        owner = {"run_id": task.run_id, "group_no": 0}
        taken = self._run(
            "execution/take_shard", task_id=task.id, attempt=attempt, shard_no=shard_no, **owner
        )
        live = attempt == task.attempt and task.status in (S.DISPATCHED, S.RUNNING) and bool(task.shards)
        mine = live and task.shards[shard_no].run_id == task.run_id
        assert bool(taken) == (mine and task.shards[shard_no].status != "DONE")
        token = Token(task.id, shard_no, 0)
        if taken:
            shard = task.shards[shard_no]
            shard.token, shard.status, shard.permanent = shard.token + 1, "RUNNING", False
            assert taken[0]["fencing_token"] == shard.token
            token = replace(token, number=shard.token)
        self._tokens.append(token)
        return token

    def _work(self, token: Token, end: str) -> None:
        """A holder lands a page, ends its shard or fails: only while its token is the newest."""
        task = self._tasks[token.task_id]
        shard = task.shards[token.shard_no] if task.shards else ModelShard()
        valid = token.number > 0 and shard.status == "RUNNING" and shard.token == token.number
        key = {"task_id": token.task_id, "shard_no": token.shard_no, "token": token.number}
        if end == "page":
            assert bool(self._run("execution/fence_shard", **key)) == valid
        elif end == "done":
            assert bool(self._run("execution/finish_shard", **key)) == valid
            shard.status = "DONE" if valid else shard.status
        else:
            error = Jsonb({"class": "No", "message": "no", "transient": end == "failed"})
            assert bool(self._run("execution/fail_shard", **key, error=error)) == valid
            if valid:
                shard.status, shard.permanent = "FAILED", end == "hopeless"

    def _settle(self, task: ModelTask, *, attempt: int, run_over: bool) -> None:
        expected = self._expected(task, run_over=run_over) if attempt == task.attempt else None
        settled = settle(task.id, attempt, self._backends, self._lane_rules, actor="test", run_over=run_over)
        assert (settled.status if settled else None) == expected
        if expected is None:
            return
        again = expected in WAITING
        task.fence(again=again)
        task.retry_count += expected is S.RETRYING
        if expected is S.RETRYING:
            task.priority = max(task.priority, self._retry_priority(task))
        task.lost_count += expected is S.QUEUED
        task.dead_letters += expected is S.DEAD
        task.move(expected, again=again)
        self._held_are_released()

    def _retry_priority(self, task: ModelTask) -> int:
        return priority_of(
            priority_rules(),
            task.base_priority,
            emergency=False,
            retry_count=task.retry_count,
            waited_s=0,
            pinned=task.pinned,
        )

    def _expected(self, task: ModelTask, *, run_over: bool) -> TaskStatus | None:
        """Where a settling takes a task, by the pure policy (which has tests of its own)."""
        if task.status not in UNDER_WAY:
            return None
        planned = bool(task.shards) and task.status is not S.CLAIMED
        failed = [shard for shard in task.shards if shard.status == "FAILED"]
        sums = ShardSums(
            shards=len(task.shards),
            done=sum(shard.status == "DONE" for shard in task.shards),
            failed=len(failed),
            permanent=sum(shard.permanent for shard in failed),
            permanent_kinds=int(any(shard.permanent for shard in failed)),
            by_page=True,
            rows_fetched=0,
            source_total=None,
            retry_after_s=None,
            first_failed=0 if failed else None,
            first_error=ERROR if failed else None,
        )
        ripe = sums.final or hopeless(sums, 0)
        if not run_over and not (planned and ripe and task.plan_error is None):
            return None
        attempt = Attempt(
            planned=planned,
            retry_count=task.retry_count,
            max_retries=task.max_retries,
            lost_count=task.lost_count,
            named_total=None,
            max_failed_shards=0,
            plan_error=task.plan_error,
        )
        return settle_outcome(attempt, sums, self._lane_rules.retry, base_s=0.2, chance=0.5).status

    def _adjust(self, task: ModelTask, priority: int) -> None:
        done = adjust([task.id], priority, self._backends, self._lane_rules, actor="test", reason="other")
        moves = task.status in WAITING | {S.HELD} and priority != task.priority
        assert done.moved == ((task.id,) if moves else ())
        if moves:
            task.priority = task.base_priority = priority
            task.pinned = True
            task.move(task.status, again=True)

    def _republish(self) -> None:
        """The lane's queue is empty, and a minute has passed."""
        self._connection.execute(
            "UPDATE collect.task SET queued_at = now() - interval '2 minutes', due_at = now() - interval '2 minutes' "
            "WHERE status IN ('QUEUED', 'RETRYING')"
        )
        values = {
            "lane": "normal",
            "ttl_s": 7200,
            "grace_s": 60,
            "queue_empty": True,
            "strict": True,
            "actor": "test",
        }
        found = {row["id"] for row in self._run("delivery/republish_overdue", **values)}
        assert found == {task.id for task in self._tasks.values() if task.status in WAITING}
        for task_id in found:
            self._tasks[task_id].move(self._tasks[task_id].status, again=True)

    def _illegal(self, task: ModelTask, wanted: TaskStatus) -> None:
        """A statement that makes a move the table does not have is refused, whoever sends it."""
        if wanted is task.status or wanted in MOVES[task.status]:
            return
        try:
            self._connection.execute("UPDATE collect.task SET status = %s WHERE id = %s", (wanted, task.id))
        except errors.CheckViolation as refused:
            assert f"{task.status} -> {wanted} is not a legal move" in str(refused)
        else:
            raise AssertionError(f"{task.status} -> {wanted} was not refused")

    @invariant()
    def rows_are_the_models(self) -> None:
        names = ("id", "status", "priority", "generation", "attempt", "retry_count", "lost_count", "run_id")
        rows = self._connection.execute(
            "SELECT *, finished_at IS NOT NULL AS finished FROM collect.task ORDER BY id"
        ).fetchall()
        assert [{name: row[name] for name in names} for row in rows] == [
            {name: getattr(task, name) for name in names} for task in self._tasks.values()
        ]
        for row in rows:
            assert row["confirmed_generation"] <= row["generation"]
            assert row["finished"] == (row["status"] in FINAL)
            assert row["groups_reserved"] == 0 or row["status"] in ("CLAIMED", "DISPATCHED")

    @invariant()
    def logs_tell_the_whole_story(self) -> None:
        rows = self._connection.execute(
            "SELECT task_id, from_status, to_status, generation, attempt FROM collect.task_log ORDER BY id"
        ).fetchall()
        told: dict[int, list[tuple[str | None, str, int, int]]] = {task_id: [] for task_id in self._tasks}
        for row in rows:
            entry = (row["from_status"], row["to_status"], row["generation"], row["attempt"])
            told[row["task_id"]].append(entry)
        assert told == {task.id: task.story for task in self._tasks.values()}

    @invariant()
    def shards_and_dead_letters_are_the_models(self) -> None:
        rows = self._connection.execute(
            "SELECT task_id, status, fencing_token FROM collect.shard ORDER BY task_id, shard_no"
        ).fetchall()
        assert [(row["task_id"], row["status"], row["fencing_token"]) for row in rows] == [
            (task.id, shard.status, shard.token) for task in self._tasks.values() for shard in task.shards
        ]
        letters = self._connection.execute("SELECT task_id FROM collect.dead_letter ORDER BY id").fetchall()
        assert sorted(row["task_id"] for row in letters) == sorted(
            task.id for task in self._tasks.values() for _ in range(task.dead_letters)
        )
