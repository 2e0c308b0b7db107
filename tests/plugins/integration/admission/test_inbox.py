"""The AMQP inbox: admitted, answered and acked once; whatever is no submission is told, and stops nobody."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pika
import pytest

from collect_ops.admission import inbox
from collect_ops.admission.inbox import InboxRun, run_once, wake_inbox
from collect_ops.admission.service import AdmissionService
from collect_ops.broker.consumer import Consumer, QueueMissing
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.delivery.sweep import sweep
from collect_ops.kernel.errors import CollectOpsError, Transient
from collect_ops.sources.load import get_source
from collect_ops.sources.model import Source
from collect_ops.storage import Connection, DatabaseUnavailable
from tests.plugins.integration.admission.inbox_broker import DEAD, INBOX, Producer, depth, drain, reasons
from tests.plugins.integration.world import World, source


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


@pytest.fixture
def producer(world: World) -> Iterator[Producer]:
    with Producer(world.backends.amqp_url) as found:
        yield found


def run(world: World, **options: Any) -> InboxRun:
    return run_once(world.backends, world.rules, world.runs, sources=world.find, **options)


def things(day: str = "monday", **fields: Any) -> dict[str, Any]:
    return {"schema": 1, "source": "things", "params": {"day": day}, **fields}


def test_a_message_becomes_a_task_and_its_sender_hears_of_it(world: World, producer: Producer) -> None:
    fields = {"priority": 9, "deadline": "2030-01-01T00:00:00+01:00", "identity": {"interval": "2024"}}
    producer.ask(things(**fields), "c-1", app_id="crm", message_id="m-1")
    assert run(world) == InboxRun(admitted=1, replied=1)
    (answer,) = producer.answers().values()
    task = world.task(answer["task_id"])
    assert (task["status"], task["priority"], task["params"]) == ("QUEUED", 9, {"day": "monday"})
    assert (task["submitted_by"], task["submitted_via"]) == ("amqp:crm", "amqp")
    assert answer == {
        "schema": 1,
        "request_id": "amqp:crm:m-1",
        "task_id": task["id"],
        "status": "QUEUED",
        "duplicate_of": None,
        "merged_into": None,
        "declaration_changed": False,
        "message": f"task {task['id']} admitted, now QUEUED",
    }
    assert world.runs.woken == ["urgent"]
    assert depth(world.backends.amqp_url, INBOX) == 0


@pytest.mark.parametrize(
    "faulty",
    [
        "request: {params: {from-date: {type: string}}}",
        'description: "\\UFFFFFFFF"',
        "records: '" + "[" * 3000 + "'",
    ],
)
def test_a_message_that_names_a_faulty_declaration_is_refused_and_the_next_one_admitted(
    world: World, producer: Producer, tmp_path: Path, faulty: str
) -> None:
    (tmp_path / "faulty.yaml").write_text(f"name: faulty\nconnection: api\ntarget: {{table: t}}\n{faulty}\n")

    def find(name: str) -> Source:
        return get_source(name, tmp_path) if name == "faulty" else world.find(name)

    producer.ask({"schema": 1, "source": "faulty"}, "bad")
    producer.ask(things(), "good")
    done = run_once(world.backends, world.rules, world.runs, sources=find)
    assert (done.admitted, done.replied) == (1, 2)
    answers = producer.answers()
    assert answers["good"]["status"] == "QUEUED"
    assert answers["bad"]["faults"]


@pytest.mark.parametrize("key", ["", "a.b.c", "collect.lane.urgent"])
def test_any_routing_key_leads_to_the_inbox(world: World, producer: Producer, key: str) -> None:
    producer.publish(things(), key=key)
    assert run(world).admitted == 1


def test_equals_are_duplicates_and_the_same_request_gets_the_same_answer(
    world: World, producer: Producer
) -> None:
    producer.ask(things(request_id="r-1"), "first")
    producer.ask(things(request_id="r-1"), "again")
    producer.ask(things(request_id="r-2"), "equal")
    producer.ask(things(), "nameless")
    done = run(world)
    assert (done.admitted, done.repeated, done.duplicates) == (1, 1, 2)
    answers = producer.answers()
    assert answers["again"] == answers["first"]
    assert (
        answers["equal"]["duplicate_of"] == answers["nameless"]["duplicate_of"] == answers["first"]["task_id"]
    )
    assert "duplicate of task" in answers["equal"]["message"]


def test_what_came_again_after_a_crash_is_answered_the_same(
    world: World, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the commit and the ack."""
    for number in range(3):
        producer.ask(
            things(str(number), force=number == 2), str(number), app_id="crm", message_id=str(number)
        )
    with monkeypatch.context() as patch:
        patch.setattr(Consumer, "ack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(world)
    first = producer.answers()
    assert run(world) == InboxRun(repeated=3, replied=3)
    assert producer.answers() == first
    assert world.rows("SELECT count(*) AS n FROM collect.task") == [{"n": 3}]


def test_all_faults_are_told(world: World, producer: Producer) -> None:
    producer.ask(things(params={"dya": "x"}, identity={"n": 2**70}), "faulty")
    producer.ask({"schema": 1, "source": "thigns"}, "unknown")
    producer.ask({"schema": 1, "source": 7, "prio": 1, "priority": 11, "force": "yes"}, "malformed")
    done = run(world)
    assert (done.refused, done.malformed, done.replied, done.dead) == (2, 1, 3, 1)
    answers = producer.answers()
    faults = {name: {fault["field"] for fault in answer["faults"]} for name, answer in answers.items()}
    assert faults["faulty"] == {"params.dya", "identity"}
    assert faults["malformed"] == {"source", "prio", "priority", "force"}
    assert "did you mean 'things'" in answers["unknown"]["error"]
    assert all(answer["schema"] == 1 and "task_id" not in answer for answer in answers.values())


def test_what_nobody_hears_of_lies_in_the_dead_letter_queue(world: World, producer: Producer) -> None:
    producer.publish({"schema": 1, "source": "nowhere"}, app_id="crm", message_id="m", headers={"a": 1})
    producer.publish(things(priority=99), reply_to="no-such-queue")
    producer.publish(b"\xffnothing", key="k")
    done = run(world)
    assert (done.refused, done.malformed, done.unanswered, done.dead) == (1, 2, 1, 3)
    letters = drain(world.backends.amqp_url, DEAD)
    assert len({letter.message_id for letter in letters}) == 3
    by_body = {letter.body: letter for letter in letters}
    raw = by_body[b"\xffnothing"]
    assert raw.routing_key == INBOX
    assert raw.headers["original-routing-key"] == "k"
    assert "is not UTF-8" in str(raw.headers["error-message"])
    assert any("'nowhere' is not declared" in reason for reason in reasons(letters))


def test_a_dead_letter_that_is_written_twice_can_be_told(
    world: World, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer.publish(b"{", app_id="crm", message_id="m-1")
    with monkeypatch.context() as patch:
        patch.setattr(Consumer, "ack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(world)
    run(world)
    first, again = drain(world.backends.amqp_url, DEAD)
    assert first.message_id == again.message_id


def test_a_forced_message_needs_a_name(world: World, producer: Producer) -> None:
    producer.ask(things(force=True), "nameless")
    producer.ask(things(force=True, request_id="r"), "named")
    assert run(world).admitted == 1
    answers = producer.answers()
    assert "may be delivered twice" in answers["nameless"]["error"]
    assert answers["named"]["task_id"]


@pytest.mark.parametrize(
    "reply_to", ["nowhere", "amq.rabbitmq.reply-to.garbage", "amq.rabbitmq.reply-to.g1h2AAxyZXBseUAx.b"]
)
def test_an_odd_reply_address_harms_nobody(world: World, producer: Producer, reply_to: str) -> None:
    """RabbitMQ 3.10 closes the connection that publishes to the last one."""
    for number in range(8):
        odd = {"reply_to": reply_to} if number == 3 else {}
        producer.ask(things(str(number)), str(number), **odd)
    done = run(world)
    assert (done.admitted, done.dead, done.left) == (8, 0, 0)
    assert set(producer.answers()) == {"0", "1", "2", "4", "5", "6", "7"}
    assert depth(world.backends.amqp_url, INBOX) == 0


@pytest.mark.parametrize("queue", [INBOX, DEAD, "collect.lane.urgent"])
def test_no_reply_goes_into_our_own_queues(world: World, producer: Producer, queue: str) -> None:
    producer.publish(things(priority=1), reply_to=queue)
    done = run(world)
    assert (done.admitted, done.replied) == (1, 0)
    assert depth(world.backends.amqp_url, queue) == 0


def test_the_broker_s_own_reply_address_works(world: World, producer: Producer) -> None:
    got: list[bytes] = []
    producer.channel.basic_consume(
        "amq.rabbitmq.reply-to", lambda _channel, _method, _properties, body: got.append(body), auto_ack=True
    )
    producer.publish(things(), reply_to="amq.rabbitmq.reply-to", correlation_id="c")
    assert run(world).replied == 1
    producer.channel.connection.process_data_events(5)
    assert b"admitted" in got[0]


class RawProperties(pika.BasicProperties):
    """Properties with one header of any bytes."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__()
        self.encoded = b"\x01x" + encoded

    def encode(self) -> list[bytes]:
        return [struct.pack(">HI", self.FLAG_HEADERS, len(self.encoded)), self.encoded]


@pytest.mark.parametrize(
    "header",
    [
        b"T" + struct.pack(">Q", 1_700_000_000_000),
        b"T" + struct.pack(">q", -1),
        b"A" + struct.pack(">I", 9) + b"T" + struct.pack(">Q", 2**63),
        b"S\0\0\0\2\xff\xfe",
        b"D\xff\0\0\0\1",
    ],
)
def test_odd_headers_do_not_stop_the_inbox(world: World, producer: Producer, header: bytes) -> None:
    """pika 1.4 loses its connection at a timestamp in milliseconds."""
    producer.channel.basic_publish(INBOX, "k", b'{"schema": 1, "source": "things"}', RawProperties(header))
    producer.publish(things("behind"))
    assert run(world).admitted == 2


def test_names_that_are_no_text_are_shown_as_escapes(world: World, producer: Producer) -> None:
    producer.publish(things(), app_id=b"\xff", message_id="m")
    producer.publish(things("b"), app_id="a\0b", message_id="m")
    done = run(world)
    assert (done.admitted, done.refused, done.dead) == (1, 1, 1)
    assert world.rows("SELECT submitted_by FROM collect.task") == [{"submitted_by": "amqp:\\xff"}]


def test_one_that_breaks_admission_does_not_take_the_others_along(
    world: World, producer: Producer, db: Connection
) -> None:
    """PostgreSQL refuses one task in a way that nobody foresaw."""
    db.execute("ALTER TABLE collect.task ADD CONSTRAINT odd CHECK (params ->> 'day' <> '4')")
    for number in range(9):
        producer.ask(things(str(number)), str(number))
    done = run(world)
    assert (done.admitted, done.refused, done.dead, done.replied) == (8, 1, 1, 9)
    assert "CheckViolation" in producer.answers()["4"]["error"]
    (letter,) = drain(world.backends.amqp_url, DEAD)
    assert b'"4"' in letter.body


def test_a_database_that_is_away_costs_nothing(world: World, producer: Producer) -> None:
    producer.ask(things(), "c")
    away = replace(world.backends, postgres_dsn="host=127.0.0.1 port=1")
    with pytest.raises(DatabaseUnavailable):
        run_once(away, world.rules, world.runs, sources=world.find)
    assert depth(world.backends.amqp_url, INBOX) == 1
    assert not Wakeups(world.backends.redis_url).begin(inbox.WAKE_NAME), "not again at once"
    assert run(world) == InboxRun(admitted=1, replied=1)


class Slowed(CollectOpsError, Transient):
    """Not now."""


def test_what_is_refused_for_now_stays_and_stops_nobody(
    world: World, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit_batch = AdmissionService.admit_batch

    def slowed(service: AdmissionService, submissions: Any) -> Any:
        answers = admit_batch(service, [each for each in submissions if each.params["day"] != "slow"])
        found = iter(answers)
        return [Slowed() if each.params["day"] == "slow" else next(found) for each in submissions]

    monkeypatch.setattr(inbox, "BLOCK", 2)
    for number in range(5):
        producer.ask(things("slow", identity={"n": number}), f"slow {number}")
    producer.ask(things("quick"), "quick")
    with monkeypatch.context() as patch:
        patch.setattr(AdmissionService, "admit_batch", slowed)
        done = run(world)
    assert (done.admitted, done.left, done.more) == (1, 5, False)
    assert set(producer.answers()) == {"quick"}
    assert run(world).admitted == 5


def test_a_run_ends_within_its_time_and_says_that_there_is_more(
    world: World, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "BLOCK", 2)
    for number in range(5):
        producer.publish(things(str(number)))
    done = run(world, time_limit_s=0)
    assert (done.admitted, done.more) == (2, True)
    done = run(world)
    assert (done.admitted, done.more) == (3, False)


def test_a_block_holds_only_so_many_bytes(
    world: World, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "PREFETCH", 2)
    monkeypatch.setattr(inbox, "BLOCK_BYTES", 10_000)
    for _ in range(6):
        producer.publish(b" " * 9_000 + b"{")
    done = run(world, time_limit_s=0)
    assert (done.malformed, done.more) == (2, True)


def test_the_watchers_and_the_sweep_wake_it_once(world: World, producer: Producer) -> None:
    assert not wake_inbox(world.backends, world.rules, world.runs)
    producer.publish(things())
    assert sweep(world.backends, world.rules, world.runs, actor="test").inbox_woken
    assert [name for name in world.runs.started if name.startswith("wake.")]
    assert not wake_inbox(world.backends, world.rules, world.runs), "its wake-up is pending"
    run(world)
    producer.publish(things("tuesday"))
    assert wake_inbox(world.backends, world.rules, world.runs)


def test_an_inbox_that_is_not_declared_is_named(world: World, producer: Producer) -> None:
    producer.channel.queue_delete(INBOX)
    with pytest.raises(QueueMissing, match=r"collect\.inbox .*collect-ops topology"):
        run(world)
    assert not wake_inbox(world.backends, world.rules, world.runs)
