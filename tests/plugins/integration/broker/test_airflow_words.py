"""Hook, operators, sensor and trigger for RabbitMQ, on a real broker through an Airflow connection."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
from airflow.sdk.exceptions import AirflowSensorTimeout, TaskDeferred

from collect_ops.broker.connection import BrokerUnavailable
from collect_ops.broker.consumer import Consumer, QueueMissing
from collect_ops.broker.message import MalformedMessage, OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.broker.topology import Queue, Topology, declare
from collect_ops.hooks.rabbitmq import MessagesNotConfirmed, MessagesUnroutable, RabbitMQHook
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.rabbitmq import RabbitMQConsumeOperator, RabbitMQPublishOperator
from collect_ops.sensors.rabbitmq import RabbitMQQueueSensor
from collect_ops.triggers.rabbitmq import RabbitMQQueueTrigger
from tests.plugins.integration.broker.link import Link, airflow_connection, wait_until


class Ti:
    """What an operator sees of its task instance."""

    dag_id, run_id, task_id, map_index = "d", "r", "t", -1

    def __init__(self) -> None:
        self.xcoms: dict[str, object] = {}

    def xcom_push(self, key: str, value: object) -> None:
        self.xcoms[key] = value


def context(ti: Ti | None = None) -> Any:
    return {"ti": ti or Ti()}


def put(amqp_url: str, queue: str, *bodies: bytes) -> None:
    with Publisher(amqp_url) as publisher:
        messages = [OutgoingMessage(exchange="", routing_key=queue, body=body) for body in bodies]
        assert len(publisher.publish(messages).confirmed) == len(bodies)


def depth(amqp_url: str, queue: str) -> int:
    with Consumer(amqp_url) as consumer:
        return consumer.depth(queue)


def events_of(trigger: RabbitMQQueueTrigger) -> Any:
    """The trigger's events, in a form that can be closed."""
    return aclosing(cast("AsyncGenerator[Any]", trigger.run()))


async def next_of(events: AsyncIterator[Any]) -> dict[str, Any]:
    event = await asyncio.wait_for(anext(events), 20)
    return cast("dict[str, Any]", event.payload)


class TestHook:
    def test_it_publishes_looks_takes_and_acks(self, connection_id: str, queue: str) -> None:
        hook = RabbitMQHook(connection_id)
        assert hook.publish([OutgoingMessage(exchange="", routing_key=queue, body=b"1")] * 3) == 3
        assert hook.depth(queue) == 3
        with hook.consumer() as consumer:
            consumer.ack(each.tag for each in consumer.take(queue, 2))
        assert hook.depth(queue) == 1

    def test_it_declares(self, connection_id: str) -> None:
        hook = RabbitMQHook(connection_id)
        hook.declare(lane_rules().topology())
        assert hook.depth(lane_rules().queue("bulk")) == 0

    def test_unroutable_messages_are_an_error_that_says_where_to(
        self, connection_id: str, queue: str
    ) -> None:
        messages = [OutgoingMessage(exchange="", routing_key=key, body=b"1") for key in (queue, "nowhere")]
        with pytest.raises(MessagesUnroutable, match=r"1 of 2 messages.*routing key 'nowhere'"):
            RabbitMQHook(connection_id).publish(messages)

    def test_a_missing_exchange_is_an_error_that_names_it(self, connection_id: str) -> None:
        with pytest.raises(MessagesNotConfirmed, match="no exchange 'nowhere'"):
            RabbitMQHook(connection_id).publish(
                [OutgoingMessage(exchange="nowhere", routing_key="k", body=b"1")]
            )

    def test_the_connection_test_says_yes_and_why_not(
        self, connection_id: str, amqp_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert RabbitMQHook(connection_id).test_connection() == (True, "RabbitMQ accepted the connection")
        airflow_connection(monkeypatch, amqp_url.replace("collect_ops:", "somebody:"))
        works, why = RabbitMQHook(connection_id).test_connection()
        assert not works
        assert "ACCESS_REFUSED" in why

    def test_it_speaks_tls_and_checks_the_certificate(
        self,
        make_link: Callable[..., Link],
        amqp_url: str,
        queue: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(certificate, key)
        link = make_link(server)
        connection = airflow_connection(monkeypatch, link.url(amqp_url), tls=True, ca_file=str(certificate))
        assert RabbitMQHook(connection).depth(queue) == 0
        assert (
            RabbitMQHook(connection).publish([OutgoingMessage(exchange="", routing_key=queue, body=b"1")])
            == 1
        )
        airflow_connection(monkeypatch, link.url(amqp_url), tls=True)
        works, why = RabbitMQHook(connection).test_connection()
        assert not works
        assert "CERTIFICATE_VERIFY_FAILED" in why


class TestPublishOperator:
    def operator(self, connection_id: str, **arguments: Any) -> RabbitMQPublishOperator:
        given = {"exchange": "", "routing_key": "inbox", "messages": {"a": 1}, **arguments}
        return RabbitMQPublishOperator(task_id="publish", rabbitmq_conn_id=connection_id, **given)

    @pytest.mark.parametrize(
        ("messages", "bodies"),
        [
            ('[{"a": 1}, "b"]', [b'{"a":1}', b'"b"']),
            ('{"a": 1}', [b'{"a":1}']),
            ([{"a": 1}, 2], [b'{"a":1}', b"2"]),
            ({"a": "1.json"}, [b'{"a":"1.json"}']),
            ("[]", []),
        ],
    )
    def test_what_is_given_is_published_as_json(
        self, connection_id: str, amqp_url: str, queue: str, messages: object, bodies: list[bytes]
    ) -> None:
        operator = self.operator(connection_id, messages=messages, priority="7", headers={"by": "x"})
        assert operator.execute(context()) == len(bodies)
        with Consumer(amqp_url) as consumer:
            taken = consumer.take(queue, 10)
        assert [each.body for each in taken] == bodies
        assert {(each.priority, each.headers["by"]) for each in taken} <= {(7, "x")}

    def test_its_templates_are_rendered(self, connection_id: str, amqp_url: str, queue: str) -> None:
        operator = self.operator(
            connection_id, routing_key="{{ where }}", messages='{"at": "{{ when }}"}', priority="{{ 2 + 3 }}"
        )
        values: Any = {**context(), "where": queue, "when": "noon"}
        operator.render_template_fields(values)
        operator.execute(values)
        with Consumer(amqp_url) as consumer:
            [taken] = consumer.take(queue, 1)
        assert (taken.body, taken.priority) == (b'{"at":"noon"}', 5)

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"messages": "{not json"}, "messages: must be JSON"),
            ({"messages": [object()]}, "messages: must be JSON"),
            ({"priority": 256}, "priority: must be a whole number from 0 to 255"),
            ({"priority": "high"}, r"priority: must be a whole number .*'high'"),
        ],
    )
    def test_faults_are_named(self, connection_id: str, queue: str, wrong: dict[str, Any], told: str) -> None:
        with pytest.raises(ValidationFailed, match=told):
            self.operator(connection_id, **wrong).execute(context())

    def test_a_message_that_no_queue_takes_fails_the_task(self, connection_id: str) -> None:
        with pytest.raises(MessagesUnroutable):
            self.operator(connection_id, routing_key="nowhere").execute(context())


class TestConsumeOperator:
    def operator(self, connection_id: str, **arguments: Any) -> RabbitMQConsumeOperator:
        return RabbitMQConsumeOperator(
            task_id="consume", queue_name="inbox", rabbitmq_conn_id=connection_id, **arguments
        )

    def test_messages_are_acked_after_the_handler_returned(
        self, connection_id: str, amqp_url: str, queue: str
    ) -> None:
        put(amqp_url, queue, b'{"n": 1}', b'{"n": 2}', b'{"n": 3}')
        ready_meanwhile: list[int] = []

        def add(bodies: list[Any]) -> int:
            ready_meanwhile.append(depth(amqp_url, queue))
            return sum(body["n"] for body in bodies)

        assert self.operator(connection_id, max_messages="2", handler=add).execute(context()) == 3
        assert ready_meanwhile == [1]
        assert depth(amqp_url, queue) == 1

    def test_messages_go_back_when_the_handler_raises(
        self, connection_id: str, amqp_url: str, queue: str
    ) -> None:
        put(amqp_url, queue, b"1", b"2")

        def fail(bodies: list[Any]) -> None:
            raise LookupError(bodies)

        with pytest.raises(LookupError):
            self.operator(connection_id, handler=fail).execute(context())
        wait_until(lambda: depth(amqp_url, queue) == 2)

    def test_without_a_handler_the_result_is_stored_before_the_ack(
        self, connection_id: str, amqp_url: str, queue: str
    ) -> None:
        put(amqp_url, queue, b'{"n":1}', b"2")
        seen: list[tuple[object, int]] = []

        class Watching(Ti):
            def xcom_push(self, key: str, value: object) -> None:
                seen.append((value, depth(amqp_url, queue)))

        assert self.operator(connection_id).execute(context(Watching())) == [{"n": 1}, 2]
        assert seen == [([{"n": 1}, 2], 0)]
        assert depth(amqp_url, queue) == 0

    def test_messages_go_back_when_the_result_cannot_be_stored(
        self, connection_id: str, amqp_url: str, queue: str
    ) -> None:
        put(amqp_url, queue, b"1")

        class Broken(Ti):
            def xcom_push(self, key: str, value: object) -> None:
                raise ConnectionError("API server is away")

        with pytest.raises(ConnectionError):
            self.operator(connection_id).execute(context(Broken()))
        wait_until(lambda: depth(amqp_url, queue) == 1)

    def test_an_empty_queue_is_a_success_and_calls_nobody(self, connection_id: str, queue: str) -> None:
        calls: list[object] = []
        assert self.operator(connection_id, handler=calls.append).execute(context()) is None
        assert self.operator(connection_id).execute(context()) == []
        assert calls == []

    def test_a_malformed_body_fails_and_gives_all_back(
        self, connection_id: str, amqp_url: str, queue: str
    ) -> None:
        put(amqp_url, queue, b"1", b"{oops")
        with pytest.raises(MalformedMessage, match=r"\{oops.*is not JSON"):
            self.operator(connection_id).execute(context())
        wait_until(lambda: depth(amqp_url, queue) == 2)

    def test_a_malformed_body_can_be_refused_instead(
        self, connection_id: str, amqp_url: str, queue: str
    ) -> None:
        put(amqp_url, queue, b"1", b"{oops", b"3")
        assert self.operator(connection_id, reject_malformed=True).execute(context()) == [1, 3]
        wait_until(lambda: depth(amqp_url, "rejected") == 1)
        assert depth(amqp_url, queue) == 0

    @pytest.mark.parametrize("wrong", [0, 10_001, "many"])
    def test_a_wrong_limit_is_named(self, connection_id: str, wrong: object) -> None:
        with pytest.raises(ValidationFailed, match="max_messages: must be a whole number from 1 to 10000"):
            self.operator(connection_id, max_messages=wrong).execute(context())

    def test_a_missing_queue_is_named(self, connection_id: str) -> None:
        with pytest.raises(QueueMissing, match="inbox"):
            self.operator(connection_id).execute(context())


class TestSensor:
    def sensor(self, connection_id: str, **arguments: Any) -> RabbitMQQueueSensor:
        given = {"queue_name": "inbox", "poke_interval": 0.1, "timeout": 30, **arguments}
        return RabbitMQQueueSensor(task_id="wait", rabbitmq_conn_id=connection_id, **given)

    def test_enough_messages_need_no_deferring(self, connection_id: str, amqp_url: str, queue: str) -> None:
        put(amqp_url, queue, b"1", b"2")
        assert self.sensor(connection_id, min_messages=2).execute(context()) == 2

    def test_it_defers_to_a_trigger_that_ends_the_wait(
        self, connection_id: str, amqp_url: str, queue: str
    ) -> None:
        sensor = self.sensor(connection_id, min_messages="2")
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute(context())
        trigger = deferred.value.trigger
        assert isinstance(trigger, RabbitMQQueueTrigger)
        assert deferred.value.timeout is not None
        assert deferred.value.timeout.total_seconds() == 30
        put(amqp_url, queue, b"1", b"2")

        async def first_event() -> dict[str, Any]:
            async with events_of(trigger) as events:
                return await next_of(events)

        event = asyncio.run(first_event())
        assert getattr(sensor, deferred.value.method_name)(context(), event=event) == 2

    def test_told_so_it_waits_in_the_task(self, connection_id: str, amqp_url: str, queue: str) -> None:
        put(amqp_url, queue, b"1")
        assert self.sensor(connection_id, deferrable=False).execute(context()) == 1
        with pytest.raises(AirflowSensorTimeout):
            self.sensor(connection_id, deferrable=False, min_messages=2, timeout=0.3).execute(context())

    def test_a_missing_queue_fails_at_once_or_is_waited_for(self, connection_id: str) -> None:
        with pytest.raises(QueueMissing):
            self.sensor(connection_id).execute(context())
        with pytest.raises(TaskDeferred) as deferred:
            self.sensor(connection_id, missing_ok=True).execute(context())
        assert deferred.value.trigger.serialize()[1]["missing_ok"] is True

    def test_a_broker_that_is_away_fails_at_once(
        self, make_link: Callable[..., Link], amqp_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = make_link()
        link.close()
        with pytest.raises(BrokerUnavailable):
            self.sensor(airflow_connection(monkeypatch, link.url(amqp_url))).execute(context())


class TestTrigger:
    async def test_it_fires_for_more_and_again_after_an_empty_queue(
        self, connection_id: str, amqp_url: str, queue: str
    ) -> None:
        trigger = RabbitMQQueueTrigger(queue_name=queue, poll_interval_s=0.05, rabbitmq_conn_id=connection_id)
        async with events_of(trigger) as events:
            await asyncio.to_thread(put, amqp_url, queue, b"1")
            assert await next_of(events) == {"queue": queue, "messages": 1}
            waiting = asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait([waiting], timeout=0.5)
            assert not done, "one message is one event"
            await asyncio.to_thread(put, amqp_url, queue, b"2")
            assert (await asyncio.wait_for(waiting, 20)).payload == {"queue": queue, "messages": 2}

    async def test_it_reminds(self, connection_id: str, amqp_url: str, queue: str) -> None:
        trigger = RabbitMQQueueTrigger(
            queue_name=queue, poll_interval_s=0.05, remind_s=0.2, rabbitmq_conn_id=connection_id
        )
        await asyncio.to_thread(put, amqp_url, queue, b"1")
        async with events_of(trigger) as events:
            assert [await next_of(events) for _ in range(3)] == [{"queue": queue, "messages": 1}] * 3

    async def test_it_waits_through_an_outage(
        self,
        make_link: Callable[..., Link],
        amqp_url: str,
        queue: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        link = make_link()
        connection = airflow_connection(monkeypatch, link.url(amqp_url))
        trigger = RabbitMQQueueTrigger(queue_name=queue, poll_interval_s=0.05, rabbitmq_conn_id=connection)
        async with events_of(trigger) as events:
            await asyncio.to_thread(put, amqp_url, queue, b"1")
            await next_of(events)
            link.cut()
            await asyncio.to_thread(put, amqp_url, queue, b"2")
            assert (await next_of(events))["messages"] == 2

    async def test_a_missing_queue_ends_it_unless_it_may_come_later(
        self, connection_id: str, amqp_url: str
    ) -> None:
        strict = RabbitMQQueueTrigger(queue_name="inbox", rabbitmq_conn_id=connection_id)
        async with events_of(strict) as events:
            with pytest.raises(QueueMissing):
                await next_of(events)
        patient = RabbitMQQueueTrigger(
            queue_name="inbox", poll_interval_s=0.05, missing_ok=True, rabbitmq_conn_id=connection_id
        )
        async with events_of(patient) as events:
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.wait([waiting], timeout=0.3)
            await asyncio.to_thread(_declare_and_put, amqp_url)
            assert (await asyncio.wait_for(waiting, 20)).payload["messages"] == 1

    async def test_it_leaves_no_connection_behind(
        self, make_link: Callable[..., Link], amqp_url: str, queue: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = make_link()
        connection = airflow_connection(monkeypatch, link.url(amqp_url))
        await asyncio.to_thread(put, amqp_url, queue, b"1")
        async with events_of(RabbitMQQueueTrigger(queue_name=queue, rabbitmq_conn_id=connection)) as events:
            await next_of(events)
            assert link.open_connections == 1
        await asyncio.to_thread(wait_until, lambda: link.open_connections == 0)

    def test_it_survives_serialization(self, connection_id: str) -> None:
        trigger = RabbitMQQueueTrigger(
            queue_name="q", min_messages=3, poll_interval_s=2, missing_ok=True, rabbitmq_conn_id=connection_id
        )
        path, arguments = trigger.serialize()
        assert path == f"{RabbitMQQueueTrigger.__module__}.{RabbitMQQueueTrigger.__qualname__}"
        assert RabbitMQQueueTrigger(**json.loads(json.dumps(arguments))).serialize() == (path, arguments)


def _declare_and_put(amqp_url: str) -> None:
    declare(amqp_url, Topology(exchanges=(), queues=(Queue(name="inbox"),), bindings=()))
    put(amqp_url, "inbox", b"1")
