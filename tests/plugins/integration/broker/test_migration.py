"""The topology migrated on a real broker: under load, killed at every step, and nothing lost."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pika
import pytest

from collect_ops.broker import migration
from collect_ops.broker.connection import BrokerUnavailable
from collect_ops.broker.consumer import Consumer, QueueMissing
from collect_ops.broker.management import Management
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.migration import (
    LOCK,
    SUFFIX,
    ManagementMissing,
    MigrationRunning,
    MigrationStuck,
    Progress,
    State,
    Step,
    check,
    migrate,
)
from collect_ops.broker.publisher import Publisher
from collect_ops.broker.topology import (
    RETRY_DELAY_HEADER,
    Binding,
    Exchange,
    Queue,
    Topology,
    TopologyRefused,
    declare,
    open_channel,
)
from collect_ops.lanes.rules import lane_rules
from tests.plugins.integration.broker.link import wait_until
from tests.plugins.integration.broker_api import call_broker_api

LANE, KEY, TASKS = "collect.lane.bulk", "lane.bulk", "collect.tasks"
WANTED = lane_rules().topology()
#: As it was before somebody changed the lanes' TTL.
OLD = replace(
    WANTED,
    queues=tuple(
        replace(queue, arguments={**queue.arguments, "x-message-ttl": 3_600_000})
        if queue.name == LANE
        else queue
        for queue in WANTED.queues
    ),
)
API = os.environ.get("COLLECT_RABBITMQ_API_URL")
NONE_HELD = dict.fromkeys([*(queue.name for queue in WANTED.queues), "q"], 0)
QUEUE_STEPS = [step for step in Step if step is not Step.WAIT]


@pytest.fixture(autouse=True)
def without_the_wait_for_old_figures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Only the tests of consumers that hold messages need the management API's figures to be fresh."""
    if "unacked" not in request.node.name:
        monkeypatch.setattr(migration, "_FRESH_S", 0.1)
        monkeypatch.setattr(Management, "depths", lambda _: NONE_HELD)


def message(number: int, *, exchange: str = TASKS, key: str = KEY) -> OutgoingMessage:
    return OutgoingMessage(
        exchange=exchange,
        routing_key=key,
        body=str(number).encode(),
        priority=number % 4,
        headers={"n": number},
    )


def publish(amqp_url: str, numbers: range) -> None:
    with Publisher(amqp_url) as publisher:
        published = publisher.publish([message(number) for number in numbers])
        assert len(published.confirmed) == len(numbers)


def everything_in(amqp_url: str, queue: str) -> list[int]:
    found: list[int] = []
    with Consumer(amqp_url) as consumer:
        while block := consumer.take(queue, 1000):
            consumer.ack([each.tag for each in block])
            found += [int(each.body) for each in block]
    return found


def states(amqp_url: str) -> dict[str, State]:
    return {each.name: each.state for each in check(amqp_url, WANTED) if each.state is not State.AS_WANTED}


def exists(amqp_url: str, queue: str) -> bool:
    with Consumer(amqp_url) as consumer:
        try:
            consumer.depth(queue)
        except QueueMissing:
            return False
    return True


def test_check_tells_what_is_there(amqp_url: str) -> None:
    assert {each.state for each in check(amqp_url, WANTED)} == {State.MISSING}
    declare(amqp_url, OLD)
    publish(amqp_url, range(3))
    [found] = [each for each in check(amqp_url, WANTED) if each.state is not State.AS_WANTED]
    assert (found.kind, found.name, found.state, found.messages) == ("queue", LANE, State.DIFFERENT, 3)
    assert "inequivalent arg 'x-message-ttl'" in found.detail
    assert states(amqp_url) == {LANE: State.DIFFERENT}, "and it has changed nothing"


def test_messages_and_foreign_bindings_are_kept(amqp_url: str) -> None:
    declare(amqp_url, OLD)
    connection, channel = open_channel(amqp_url)
    channel.exchange_declare("theirs", "topic", durable=True)
    channel.queue_bind(LANE, "theirs", "a.#", arguments={"x": 1})
    connection.close()
    publish(amqp_url, range(2500))
    with Publisher(amqp_url) as publisher:
        assert publisher.publish([message(2500, exchange="theirs", key="a.b")]).confirmed == {0}
    assert migrate(amqp_url, API, WANTED) == [LANE]
    assert states(amqp_url) == {}
    with Publisher(amqp_url) as publisher:
        assert publisher.publish([message(2501, exchange="theirs", key="a.b"), message(2502)]).confirmed == {
            0,
            1,
        }
    assert not exists(amqp_url, LANE + SUFFIX)
    with Consumer(amqp_url) as consumer:
        first, *_ = consumer.take(LANE, 10)
    assert (first.priority, first.headers["n"] % 4) == (3, 3), "priorities and headers are kept"
    assert sorted(everything_in(amqp_url, LANE)) == list(range(2503))
    assert migrate(amqp_url, API, WANTED) == [], "there is nothing left to do"


def test_properties_are_kept_and_another_users_id_becomes_the_app_id(amqp_url: str, vhost: str) -> None:
    declare(amqp_url, OLD)
    call_broker_api("PUT", f"users/{vhost}", password="theirs", tags="")
    call_broker_api("PUT", f"permissions/{vhost}/{vhost}", configure="", write=".*", read="")
    try:
        given = pika.BasicProperties(
            user_id=vhost, message_id="m1", correlation_id="c1", reply_to="answers", timestamp=1_700_000_000,
            content_type="application/json", content_encoding="gzip", type="t", delivery_mode=2, priority=2,
            headers={"x-death": [{"count": 3, "queue": "q"}], "deep": {"a": [1, "b", None]}},
        )  # fmt: skip
        parameters = pika.URLParameters(amqp_url)
        parameters.credentials = pika.PlainCredentials(vhost, "theirs")
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(TASKS, KEY, b"body", given)
        connection.close()
        migrate(amqp_url, API, WANTED)
        with Consumer(amqp_url) as consumer:
            [taken] = consumer.take(LANE, 1)
            consumer.ack([taken.tag])
    finally:
        call_broker_api("DELETE", f"users/{vhost}")
    kept, lost = vars(taken.properties), {"user_id": None, "app_id": vhost}
    assert kept == {**vars(given), **lost}


@pytest.mark.parametrize("step", QUEUE_STEPS)
def test_one_that_ends_at_any_step_is_gone_on_with(amqp_url: str, step: Step) -> None:
    declare(amqp_url, OLD)
    publish(amqp_url, range(1200))

    def end_there(progress: Progress) -> None:
        # In the middle of a move: one block has gone over, the next has not.
        if progress.step is step and (progress.moved > 0 or "move" not in step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(amqp_url, API, WANTED, tell=end_there)
    publish(amqp_url, range(1200, 1300))
    assert migrate(amqp_url, API, WANTED) == [LANE]
    assert states(amqp_url) == {}
    found = Counter(everything_in(amqp_url, LANE))
    assert set(found) == set(range(1300)), "nothing is lost"
    twice = {number for number, count in found.items() if count > 1}
    assert twice <= set(range(1200, 1300)), (
        "only what was published between a bind and an unbind is there twice"
    )


def test_nothing_is_lost_under_a_stream_of_publishes(amqp_url: str) -> None:
    declare(amqp_url, OLD)
    publish(amqp_url, range(5000))
    over = threading.Event()
    confirmed: set[int] = set(range(5000))
    refused: list[object] = []

    def produce() -> None:
        number = 5000
        with Publisher(amqp_url) as publisher:
            while not over.is_set():
                published = publisher.publish([message(number + index) for index in range(20)])
                confirmed.update(number + index for index in published.confirmed)
                if len(published.confirmed) < 20:
                    refused.append(published)
                number += 20

    claimed: list[int] = []

    def claim() -> None:
        while not over.is_set():
            try:
                with Consumer(amqp_url) as consumer:
                    block = consumer.take(LANE, 50)
                    consumer.ack([each.tag for each in block])
                    claimed.extend(int(each.body) for each in block)
            except (QueueMissing, BrokerUnavailable):  # for the moment in which it is made anew
                pass
            time.sleep(0.02)

    threads = [threading.Thread(target=produce), threading.Thread(target=claim)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.3)
        assert migrate(amqp_url, API, WANTED) == [LANE]
    finally:
        time.sleep(0.3)
        over.set()
        for thread in threads:
            thread.join()
    assert refused == [], "a queue has no gap for publishers"
    assert len(confirmed) > 5100
    assert set(claimed) | set(everything_in(amqp_url, LANE)) == confirmed
    assert states(amqp_url) == {}


KILLED = """
import os, signal, sys
from collect_ops.broker import migration
from tests.plugins.integration.broker.test_migration import NONE_HELD, WANTED
migration._FRESH_S = 0.1
migration.Management.depths = lambda _: NONE_HELD
def tell(progress):
    print(progress.step, progress.moved, flush=True)
    if progress.step == sys.argv[2] and progress.moved:
        os.kill(os.getpid(), signal.SIGKILL)
migration.migrate(sys.argv[1], os.environ["COLLECT_RABBITMQ_API_URL"], WANTED, tell=tell)
"""


@pytest.mark.parametrize("step", [Step.MOVE_ASIDE, Step.MOVE_BACK])
def test_a_killed_one_leaves_no_lock(amqp_url: str, step: Step) -> None:
    declare(amqp_url, OLD)
    publish(amqp_url, range(1800))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, amqp_url, step],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr

    def unlocked() -> bool:
        try:
            return migrate(amqp_url, API, WANTED) == [LANE]
        except MigrationRunning:
            return False  # the broker has not noticed yet

    wait_until(unlocked)
    assert sorted(everything_in(amqp_url, LANE)) == list(range(1800))


def test_there_is_one_at_a_time(amqp_url: str) -> None:
    connection, channel = open_channel(amqp_url)
    channel.queue_declare(LOCK, exclusive=True)
    try:
        with pytest.raises(MigrationRunning, match="another migration"):
            migrate(amqp_url, API, WANTED)
    finally:
        connection.close()
    assert migrate(amqp_url, API, WANTED) == []
    assert states(amqp_url) == {}


def test_what_a_consumer_holds_unacked_is_waited_for(amqp_url: str) -> None:
    declare(amqp_url, OLD)
    publish(amqp_url, range(30))
    with Consumer(amqp_url) as consumer:
        held = consumer.take(LANE, 10)
        assert len(held) == 10
        with pytest.raises(MigrationStuck, match="consumers hold messages of it after 3 s"):
            migrate(amqp_url, API, WANTED, wait_s=3)
        # Given back meanwhile, as when its process dies: moved like the rest.
    assert migrate(amqp_url, API, WANTED) == [LANE]
    assert sorted(everything_in(amqp_url, LANE)) == list(range(30))


@pytest.mark.parametrize("leaves_after_s", [0.3, None])
def test_a_claim_that_looks_into_it_at_the_end_is_waited_for(
    amqp_url: str, leaves_after_s: float | None
) -> None:
    declare(amqp_url, OLD)
    publish(amqp_url, range(30))
    looking = pika.BlockingConnection(pika.URLParameters(amqp_url))

    def look(progress: Progress) -> None:
        if progress.step is Step.DELETE_OLD and not looked:
            looked.append(progress.name)
            looking.channel().basic_consume(LANE, lambda *_: None)
            if leaves_after_s:
                threading.Timer(leaves_after_s, looking.close).start()

    looked: list[str] = []
    if leaves_after_s:
        assert migrate(amqp_url, API, WANTED, tell=look) == [LANE]
    else:
        with pytest.raises(MigrationStuck, match="after 1 s"):
            migrate(amqp_url, API, WANTED, tell=look, wait_s=1)
        looking.close()
        assert migrate(amqp_url, API, WANTED) == [LANE]
    assert looked == [LANE]
    assert sorted(everything_in(amqp_url, LANE)) == list(range(30))


@pytest.mark.parametrize("api", [None, "http://nobody:nothing@127.0.0.1:9"])
def test_without_the_management_api_nothing_is_changed(amqp_url: str, api: str | None) -> None:
    declare(amqp_url, OLD)
    with pytest.raises(ManagementMissing, match="COLLECT_RABBITMQ_API_URL"):
        migrate(amqp_url, api, WANTED)
    assert states(amqp_url) == {LANE: State.DIFFERENT}


def test_a_form_that_the_broker_does_not_take_changes_nothing(amqp_url: str) -> None:
    declare(amqp_url, OLD)
    publish(amqp_url, range(5))
    wrong = Topology(
        exchanges=(), queues=(Queue(name=LANE, arguments={"x-queue-type": "no-such"}),), bindings=()
    )
    with pytest.raises(TopologyRefused, match="x-queue-type"):
        migrate(amqp_url, API, wrong)
    assert states(amqp_url) == {LANE: State.DIFFERENT}
    assert sorted(everything_in(amqp_url, LANE)) == list(range(5))


def test_from_quorum_to_classic(amqp_url: str) -> None:
    quorum = Queue(name="q", arguments={"x-queue-type": "quorum"})
    classic = Queue(name="q", arguments={"x-queue-type": "classic"})
    made = Topology(
        exchanges=(Exchange(name="e", type="fanout"),),
        queues=(quorum,),
        bindings=(Binding(exchange="e", queue="q"),),
    )
    declare(amqp_url, made)
    with Publisher(amqp_url) as publisher:
        publisher.publish([message(number, exchange="e") for number in range(700)])
    assert migrate(amqp_url, API, replace(made, queues=(classic,))) == ["q"]
    with Publisher(amqp_url) as publisher:
        publisher.publish([message(700, exchange="e")])
    assert sorted(everything_in(amqp_url, "q")) == list(range(701))
    assert migrate(amqp_url, API, made) == ["q"], "and back"


@pytest.fixture
def other_exchange(amqp_url: str) -> None:
    """The tasks' exchange of another type, with a queue of somebody else's at it."""
    exchanges = tuple(
        replace(each, type="topic") if each.name == TASKS else each for each in WANTED.exchanges
    )
    declare(amqp_url, replace(WANTED, exchanges=exchanges))
    connection, channel = open_channel(amqp_url)
    channel.queue_declare("theirs", durable=True)
    channel.queue_bind("theirs", TASKS, "lane.urgent")
    connection.close()


@pytest.mark.parametrize(
    "step", [None, Step.STAND_IN, Step.DIVERT, Step.DELETE_OLD, Step.DECLARE, Step.BIND, Step.DELETE_STAND_IN]
)
@pytest.mark.usefixtures("other_exchange")
def test_an_exchange_is_made_anew_with_its_bindings(amqp_url: str, step: Step | None) -> None:
    assert states(amqp_url) == {TASKS: State.DIFFERENT}

    def end_there(progress: Progress) -> None:
        if progress.step is step:
            raise KeyboardInterrupt

    if step is not None:
        with pytest.raises(KeyboardInterrupt):
            migrate(amqp_url, API, WANTED, tell=end_there)
    assert migrate(amqp_url, API, WANTED) == [TASKS]
    assert states(amqp_url) == {}
    with Publisher(amqp_url) as publisher:
        assert publisher.publish([message(1, key="lane.urgent"), message(2)]).confirmed == {0, 1}
    assert everything_in(amqp_url, "theirs") == [1]
    assert everything_in(amqp_url, "collect.lane.urgent") == [1]
    assert everything_in(amqp_url, LANE) == [2]
    connection, channel = open_channel(amqp_url)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        channel.exchange_declare(TASKS + SUFFIX, passive=True)
    connection.close()


def test_a_waiting_retry_comes_back_to_its_lane(amqp_url: str) -> None:
    """A rung's messages expire under the routing key that they came with."""
    rules, rung = lane_rules(), "collect.retry.4s"
    other = tuple(
        replace(queue, arguments={**queue.arguments, "x-max-length": 10_000}) if queue.name == rung else queue
        for queue in WANTED.queues
    )
    declare(amqp_url, replace(WANTED, queues=other))
    retries = [
        OutgoingMessage(
            exchange=rules.broker.retry_exchange,
            routing_key=KEY,
            body=str(number).encode(),
            headers={RETRY_DELAY_HEADER: 4},
        )
        for number in range(300)
    ]
    with Publisher(amqp_url) as publisher:
        assert len(publisher.publish(retries).confirmed) == 300
    assert migrate(amqp_url, API, WANTED) == [rung]
    with Consumer(amqp_url) as consumer:
        assert consumer.depth(rung) == 300
        wait_until(lambda: consumer.depth(LANE) == 300)
        assert {each.routing_key for each in consumer.take(LANE, 300)} == {KEY}


class Moment(int):
    """An AMQP timestamp as other languages send it: before 1970, or in milliseconds. pika sends none of these."""


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = pika.data.encode_value

    def encode_moments(pieces: list[bytes], value: object) -> int:
        if not isinstance(value, Moment):
            return int(encode(pieces, value))
        pieces.append(b"T" + struct.pack(">q", value))
        return 9

    monkeypatch.setattr(pika.data, "encode_value", encode_moments)


def raw(amqp_url: str, exchange: str, key: str, properties: pika.BasicProperties) -> None:
    connection, channel = open_channel(amqp_url)
    channel.confirm_delivery()
    channel.basic_publish(exchange, key, b"body", properties)
    connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"CC": ["collect.inbox", "collect.dead", "collect.inbox.migrating"]},
        {"at": Moment(-62_135_596_800)},
        {"at": Moment(-86_400), "n": -5, "big": 2**62},
        {"at": Moment(1_700_000_000_000)},
    ],
)
@pytest.mark.usefixtures("moments")
def test_whatever_headers_a_producer_sets_it_is_moved_once(amqp_url: str, headers: dict[str, object]) -> None:
    inbox = lane_rules().broker.inbox
    other = tuple(
        replace(queue, arguments={**queue.arguments, "x-max-length": 10_000})
        if queue.name == inbox
        else queue
        for queue in WANTED.queues
    )
    declare(amqp_url, replace(WANTED, queues=other))
    raw(amqp_url, inbox, "orders.new", pika.BasicProperties(headers=headers, app_id="shop"))
    assert migrate(amqp_url, API, WANTED) == [inbox]
    with Consumer(amqp_url) as consumer:
        [found] = consumer.take(inbox, 10)
        assert consumer.depth("collect.dead") == 0
    assert (found.body, found.routing_key, found.app_id) == (b"body", "orders.new", "shop")
    assert set(found.headers) == set(headers)


def test_exchanges_bound_to_each_other_stay_so(amqp_url: str) -> None:
    exchanges = tuple(
        replace(each, type="topic") if each.name == TASKS else each for each in WANTED.exchanges
    )
    declare(amqp_url, replace(WANTED, exchanges=exchanges))
    connection, channel = open_channel(amqp_url)
    channel.exchange_declare("company.events", "topic", durable=True)
    channel.exchange_declare("audit", "fanout", durable=True)
    channel.queue_declare("audited", durable=True)
    channel.queue_bind("audited", "audit")
    channel.exchange_bind(TASKS, "company.events", "lane.#")
    channel.exchange_bind("audit", TASKS, KEY)
    connection.close()
    with pytest.raises(KeyboardInterrupt):
        migrate(amqp_url, API, WANTED, tell=_ends_at(Step.BIND))
    assert migrate(amqp_url, API, WANTED) == [TASKS]
    with Publisher(amqp_url) as publisher:
        assert publisher.publish([message(1, exchange="company.events")]).confirmed == {0}
    assert (everything_in(amqp_url, LANE), everything_in(amqp_url, "audited")) == ([1], [1])


def _ends_at(step: Step) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        if progress.step is step:
            raise KeyboardInterrupt

    return tell


def test_nobody_is_waited_for_where_nobody_holds_anything(amqp_url: str) -> None:
    declare(amqp_url, OLD)
    publish(amqp_url, range(3))
    assert migrate(amqp_url, API, WANTED, wait_s=0) == [LANE]
