"""What Airflow reads about us, and the addresses it gives us."""

from __future__ import annotations

import importlib
import json
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema  # type: ignore[import-untyped]
import pytest
from airflow.sdk import DAG, Asset, AssetWatcher, Connection
from airflow.serialization.serialized_objects import DagSerialization
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.get_provider_info import get_provider_info
from collect_ops.hooks.rabbitmq import RabbitMQHook, amqp_url_of, management_url_of
from collect_ops.operators.rabbitmq import RabbitMQConsumeOperator, RabbitMQPublishOperator
from collect_ops.sensors.rabbitmq import RabbitMQQueueSensor
from collect_ops.triggers.rabbitmq import RabbitMQQueueTrigger, Watch


def connection(**fields: Any) -> Connection:
    extra = json.dumps(fields.pop("extra", {}))
    return Connection(conn_id="c", conn_type="rabbitmq", extra=extra, **fields)


def test_the_provider_is_described_as_airflow_wants_it() -> None:
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_everything_it_names_is_there() -> None:
    info = get_provider_info()
    module, _, name = info["connection-types"][0]["hook-class-name"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is RabbitMQHook
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for each in info[kind]:
            for python_module in each["python-modules"]:
                importlib.import_module(python_module)
    assert info["connection-types"][0]["ui-field-behaviour"] == RabbitMQHook.get_ui_field_behaviour()


def test_airflow_finds_it_under_its_distribution() -> None:
    [point] = {point for point in entry_points(group="apache_airflow_provider") if point.dist is not None
               and point.dist.name == get_provider_info()["package-name"]}  # fmt: skip
    assert point.load() is get_provider_info


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({}, "amqp://127.0.0.1:5672/%2F"),
        ({"host": "mq", "port": 1, "schema": "v"}, "amqp://mq:1/v"),
        ({"host": "mq", "extra": {"vhost": "a/b"}}, "amqp://mq:5672/a%2Fb"),
        ({"host": "::1", "login": "u", "password": "p@:/"}, "amqp://u:p%40%3A%2F@[::1]:5672/%2F"),
    ],
)
def test_the_address_is_built_from_the_connection(fields: dict[str, Any], address: str) -> None:
    assert amqp_url_of(connection(**fields)) == address


def test_a_tls_address_names_whom_to_trust_and_the_host_to_check() -> None:
    address = urlsplit(amqp_url_of(connection(host="mq", extra={"tls": True, "ca_file": "/ca.pem"})))
    assert (address.scheme, address.port) == ("amqps", 5671)
    [options] = parse_qs(address.query)["ssl_options"]
    assert "'server_hostname': 'mq'" in options
    assert "'ca_certs': '/ca.pem'" in options


def test_the_management_address_carries_the_credentials() -> None:
    extra = {"management_url": "http://mq:15672"}
    assert management_url_of(connection(login="u", password="p", extra=extra)) == "http://u:p@mq:15672"
    own = {**extra, "management_login": "m", "management_password": "p@ss"}
    assert management_url_of(connection(login="u", password="p", extra=own)) == "http://m:p%40ss@mq:15672"
    assert management_url_of(connection(extra={"management_url": "http://a:b@mq:1"})) == "http://a:b@mq:1"
    assert management_url_of(connection()) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 10)), max_size=40), st.integers(1, 3))
def test_no_message_waits_longer_than_a_reminder(looks: list[tuple[int, float]], enough: int) -> None:
    watch, now, told_at, told = Watch(min_messages=enough, remind_s=5.0), 100.0, 0.0, 0
    for depth, passed in looks:
        now += passed
        fired = watch.fires(depth, now)
        if depth < enough:
            assert not fired
            told = 0
        elif depth > told or now - told_at >= 5.0:
            assert fired
            told, told_at = depth, now
        else:
            assert not fired


def test_a_dag_of_our_words_survives_serialization() -> None:
    watcher = AssetWatcher(name="inbox", trigger=RabbitMQQueueTrigger(queue_name="inbox"))
    with DAG("words", schedule=[Asset("inbox", watchers=[watcher])]) as dag:
        RabbitMQQueueSensor(task_id="wait", queue_name="inbox", queue="node.a")
        RabbitMQConsumeOperator(task_id="consume", queue_name="inbox", handler=print)
        RabbitMQPublishOperator(task_id="publish", exchange="", routing_key="k", messages=[{"a": "{{ ds }}"}])
    read = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    assert {task.task_id: task.queue for task in read.tasks} == {
        "wait": "node.a",
        "consume": "default",
        "publish": "default",
    }
