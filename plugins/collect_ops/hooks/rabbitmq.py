"""RabbitMQ through an Airflow connection."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from airflow.sdk import BaseHook, Connection

from collect_ops.broker.connection import connect_blocking
from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.broker.topology import Topology, close_connection, declare
from collect_ops.get_provider_info import UI_FIELD_BEHAVIOUR
from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient

DEFAULT_CONN_ID = "collect_rabbitmq"
_TLS_OPTIONS = {"ca_file": "ca_certs", "cert_file": "certfile", "key_file": "keyfile"}


class MessagesUnroutable(CollectOpsError, Permanent):
    """No queue took some of the messages; the broker has the others."""

    def __init__(self, messages: Sequence[OutgoingMessage], unroutable: frozenset[int]) -> None:
        self.unroutable = unroutable
        first = messages[min(unroutable)]
        super().__init__(
            f"no queue took {len(unroutable)} of {len(messages)} messages, the first with exchange "
            f"{first.exchange!r} and routing key {first.routing_key!r}: a queue must be bound for them"
        )


class MessagesNotConfirmed(CollectOpsError, Transient):
    """The broker did not confirm some of the messages; it may have them all the same."""

    def __init__(self, wanted: int, confirmed: int, reason: str | None) -> None:
        self.confirmed = confirmed
        super().__init__(
            f"RabbitMQ confirmed {confirmed} of {wanted} messages: {reason or 'no reason given'}"
        )


class RabbitMQHook(BaseHook):
    """Publishes to, consumes from and looks at RabbitMQ.

    The connection (type `rabbitmq`) names host, port, login and password, and the virtual host as its schema.
    Its extra may hold `vhost` (instead of the schema), `management_url` (`http://host:15672`), `management_login`
    and `management_password` for it, `tls` (true or false) and, with it, `ca_file`, `cert_file` and `key_file`.

    Example::

        hook = RabbitMQHook()
        hook.publish([OutgoingMessage(exchange="", routing_key="inbox", body=b"{}")])
        with hook.consumer() as consumer:
            taken = consumer.take("inbox", 100)
            consumer.ack(each.tag for each in taken)

    Args:
        rabbitmq_conn_id: Airflow connection.
    """

    conn_name_attr = "rabbitmq_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "rabbitmq"
    hook_name = "RabbitMQ"

    def __init__(self, rabbitmq_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rabbitmq_conn_id = rabbitmq_conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """What the connection form shows."""
        return UI_FIELD_BEHAVIOUR

    def amqp_url(self) -> str:
        """Address with credentials and virtual host, as the broker package takes it.

        Raises:
            AirflowNotFoundException: The connection is not defined.
        """
        return amqp_url_of(self.get_connection(self.rabbitmq_conn_id))

    async def aamqp_url(self) -> str:
        """The same in the triggerer, where connections are read asynchronously."""
        return amqp_url_of(await self.aget_connection(self.rabbitmq_conn_id))

    def management_url(self) -> str | None:
        """Address of the management API with credentials; None when the connection names none."""
        return management_url_of(self.get_connection(self.rabbitmq_conn_id))

    def get_conn(self) -> Any:
        """An open `pika.BlockingConnection`; the caller closes it.

        Raises:
            BrokerUnavailable: RabbitMQ did not accept it.
        """
        return connect_blocking(self.amqp_url())

    def consumer(self) -> Consumer:
        """A channel to take, ack and give back messages on, for use in a `with`; what is not acked goes back.

        Raises:
            BrokerUnavailable: RabbitMQ did not accept the connection.
        """
        return Consumer(self.amqp_url())

    def publish(self, messages: Sequence[OutgoingMessage]) -> int:
        """Publish messages, persistent and confirmed; at least once each.

        Returns:
            How many, all of them confirmed by the broker and in a queue.

        Raises:
            MessagesUnroutable: No queue took some of them.
            MessagesNotConfirmed: The broker was away, has no such exchange, or refused some of them.
        """
        with Publisher(self.amqp_url()) as publisher:
            published = publisher.publish(messages)
        if published.unroutable:
            raise MessagesUnroutable(messages, published.unroutable)
        if len(published.confirmed) < len(messages):
            raise MessagesNotConfirmed(len(messages), len(published.confirmed), published.failure)
        return len(messages)

    def depth(self, queue: str) -> int:
        """Messages that are ready in a queue.

        Raises:
            QueueMissing: There is no such queue.
            BrokerUnavailable: RabbitMQ did not accept the connection.
        """
        with self.consumer() as consumer:
            return consumer.depth(queue)

    def declare(self, topology: Topology) -> None:
        """Declare exchanges, queues and bindings; what is there in the same form stays as it is.

        Raises:
            TopologyMismatch: Something exists in another form.
            TopologyRefused: The user may not declare it.
            BrokerUnavailable: RabbitMQ did not accept the connection.
        """
        declare(self.amqp_url(), topology)

    def test_connection(self) -> tuple[bool, str]:
        """Whether RabbitMQ accepts the connection, and a sentence for the connection form."""
        try:
            close_connection(self.get_conn())
        except (CollectOpsError, ValueError) as error:
            return False, str(error)
        return True, "RabbitMQ accepted the connection"


def amqp_url_of(connection: Connection) -> str:
    """The `amqp(s)://` address of an Airflow connection."""
    extra = connection.extra_dejson
    tls = bool(extra.get("tls"))
    host = connection.host or "127.0.0.1"
    vhost = connection.schema or extra.get("vhost") or "/"
    port = connection.port or (5671 if tls else 5672)
    place = f"{_credentials(connection)}{_bracketed(host)}:{port}/{quote(vhost, safe='')}"
    address = f"{'amqps' if tls else 'amqp'}://{place}"
    return f"{address}?{urlencode({'ssl_options': repr(_tls_options(extra, host))})}" if tls else address


def management_url_of(connection: Connection) -> str | None:
    """The management API's address of an Airflow connection, with credentials.

    Its own, else those of the extra (`management_login`, `management_password`), else the connection's.
    """
    extra = connection.extra_dejson
    url = extra.get("management_url")
    if not url:
        return None
    scheme, _, rest = str(url).partition("://")
    if "@" in rest:
        return str(url)
    own = extra.get("management_login")
    login = _login(own, extra.get("management_password")) if own else _credentials(connection)
    return f"{scheme}://{login}{rest}"


def _tls_options(extra: dict[str, Any], host: str) -> dict[str, str]:
    # pika checks the host's name only when it is told it.
    files = {option: str(extra[name]) for name, option in _TLS_OPTIONS.items() if extra.get(name)}
    return {"server_hostname": host, "ca_certs": _system_ca_file(), **files}


def _credentials(connection: Connection) -> str:
    if not connection.login and not connection.password:
        return ""
    return _login(connection.login, connection.password)


def _login(user: str | None, password: str | None) -> str:
    return f"{quote(user or '', safe='')}:{quote(password or '', safe='')}@"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _system_ca_file() -> str:
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.openssl_cafile
