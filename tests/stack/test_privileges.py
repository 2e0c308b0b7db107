"""What each identity may not do, asked of the real servers; and a node that is shut out."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import cache
from urllib.parse import quote

import httpx
import pika
import psutil
import psycopg
import pytest
import redis
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker
from psycopg import errors

from collect_ops.broker.management import Management
from collect_ops.broker.topology import declare
from collect_ops.lanes.rules import lane_rules
from stack import access, credentials, env_files, join, privileges
from stack.layout import CHECKOUT, Layout
from stack.settings import HOST, Stack, load
from tests.kept_python import KEPT
from tests.stack.command import run_stack

pytestmark = pytest.mark.timeout(300)

SERVICES = "postgres,redis,rabbitmq"
#: What a stack of release 0.1.0 had in its file.
OLD_SECRETS = (
    "POSTGRES_SUPERUSER_PASSWORD", "POSTGRES_AIRFLOW_PASSWORD", "POSTGRES_COLLECT_PASSWORD", "REDIS_PASSWORD",
    "RABBITMQ_PASSWORD", "RABBITMQ_ERLANG_COOKIE", "AIRFLOW_JWT_SECRET", "AIRFLOW_API_SECRET_KEY",
    "AIRFLOW_FERNET_KEY", "AIRFLOW_ADMIN_PASSWORD", "AIRFLOW_VIEWER_PASSWORD", "AIRFLOW_SERVICE_PASSWORD",
)  # fmt: skip
LANE = "collect.lane.normal"


def own_address() -> str:
    """An address of this machine that stands for another machine's way in."""
    return next(
        each.address
        for name, addresses in psutil.net_if_addrs().items()
        for each in addresses
        if each.family is socket.AF_INET and name != "lo"
    )


def up(layout: Layout) -> None:
    done = run_stack(layout.home, "up", "--only", SERVICES, NODES="1", NODE_NETWORK="0", LISTEN=own_address())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def old_secrets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, dict[str, str]]:
    layout = Layout(home=tmp_path_factory.mktemp("privileges") / "stack")
    layout.create()
    secrets = {name: value for name, value in credentials.generate().items() if name in OLD_SECRETS}
    assert len(secrets) == len(OLD_SECRETS)
    text = "".join(f"{name}={value}\n" for name, value in secrets.items())
    credentials.write_private(layout.secrets_file, text)
    return layout, secrets


@pytest.fixture(scope="module")
def layout(old_secrets: tuple[Layout, dict[str, str]]) -> Iterator[Layout]:
    layout, _ = old_secrets
    up(layout)
    privileges.grant_results(load(layout))
    privileges.make_nodes(load(layout))
    yield layout
    done = run_stack(layout.home, "clean", "--yes")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def stack(layout: Layout) -> Stack:
    return load(layout)


Places = Callable[[Stack], dict[str, str]]


def control(stack: Stack) -> dict[str, str]:
    return stack.control_places()


def person(stack: Stack) -> dict[str, str]:
    """As psql logs in, not as `collect-ops` does."""
    login = {"POSTGRES_COLLECT_USER": access.PERSON}
    return {
        **stack.person_places(),
        **login,
        "POSTGRES_COLLECT_PASSWORD": stack.secrets["POSTGRES_PERSON_PASSWORD"],
    }


def command(stack: Stack) -> dict[str, str]:
    """As `collect-ops` logs in for a person."""
    return stack.person_places()


def node(stack: Stack, node_id: str = "node-1") -> dict[str, str]:
    return stack.node_places(node_id, HOST)


def owner(stack: Stack) -> dict[str, str]:
    return stack.places


IDENTITIES = {"control": control, "person": person, "command": command, "node": node}
each_identity = pytest.mark.parametrize("places", IDENTITIES.values(), ids=IDENTITIES)


def database(places: dict[str, str], name: str = "collect_ops", host: str = HOST) -> psycopg.Connection:
    kind = "COLLECT" if name == "collect_ops" else "AIRFLOW"
    return psycopg.connect(
        host=host, port=places["POSTGRES_PORT"], dbname=name, autocommit=True, connect_timeout=5,
        user=places[f"POSTGRES_{kind}_USER"], password=places[f"POSTGRES_{kind}_PASSWORD"],
    )  # fmt: skip


Session = Callable[[Places], psycopg.Connection]


@pytest.fixture(scope="module")
def session(layout: Layout) -> Iterator[Session]:
    """Connections to collect_ops that are kept, one for each identity: of statements that are refused nothing stays."""
    with ExitStack() as opened:
        stack = load(layout)

        @cache
        def of(places: Places) -> psycopg.Connection:
            return opened.enter_context(closing(database(places(stack))))

        yield of


# PostgreSQL


def log_until_now(stack: Stack) -> str:
    """PostgreSQL's log, with all that came before this call: up to a login that it refuses."""
    nobody = f"nobody_{uuid.uuid4().hex}"
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(host=HOST, port=stack.ports.postgres, dbname="collect_ops", user=nobody, password="x")
    deadline = time.monotonic() + 20
    while nobody not in (log := (stack.layout.logs / "postgres.log").read_text()):
        assert time.monotonic() < deadline, "the log does not come to it"
        time.sleep(0.05)
    return log


@each_identity
def test_a_value_that_does_not_fit_is_not_in_postgresqls_log(
    session: Session, stack: Stack, places: Places
) -> None:
    value = f"echoed-{uuid.uuid4().hex}"
    connection = session(places)
    with pytest.raises(errors.InvalidTextRepresentation, match=value):
        connection.execute("SELECT %s::text::bigint", (value,))
    with pytest.raises(errors.InvalidTextRepresentation, match=value):
        connection.execute(f"SELECT '{value}'::text::bigint".encode())  # nor is the statement
    assert connection.execute("SHOW log_min_messages").fetchone() == ("fatal",)
    assert value not in log_until_now(stack)


def test_no_statement_of_airflows_is_in_postgresqls_log(stack: Stack) -> None:
    value = f"echoed-{uuid.uuid4().hex}"
    with database(owner(stack), "airflow") as connection, pytest.raises(errors.UndefinedTable):
        connection.execute(f"SELECT '{value}' FROM no_such_table".encode())
    log = log_until_now(stack)
    assert "no_such_table" in log
    assert value not in log


DDL = (
    "CREATE TABLE collect.extra (n int)",
    "ALTER TABLE collect.task ADD COLUMN extra int",
    "DROP TABLE collect.task_log",
    "TRUNCATE collect.task_log",
    "CREATE INDEX ON collect.task (path)",
    "ALTER TABLE collect.task DISABLE TRIGGER task_moved",
    "CREATE OR REPLACE FUNCTION collect.log_moves() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "ALTER SCHEMA collect RENAME TO other",
    "CREATE SCHEMA other",
    "CREATE TABLE public.other (n int)",
    "CREATE ROLE other",
    "CREATE DATABASE other",
    "SET ROLE collect_ops",
    "SET session_replication_role = replica",
    "COPY collect.task TO PROGRAM 'cat'",
    "ALTER SYSTEM SET port = 1",
    "DROP EVENT TRIGGER give_to_landing",
    "DROP EVENT TRIGGER no_code_in_landing",
    "ALTER EVENT TRIGGER no_code_in_landing DISABLE",
    "INSERT INTO collect.legal_move VALUES ('DEAD', 'COMPLETED')",
    "DELETE FROM public.schema_migration",
)
NODE_DML = (
    "DELETE FROM collect.task_log",
    "UPDATE collect.task_log SET actor = 'somebody else'",
    "INSERT INTO collect.task_log OVERRIDING SYSTEM VALUE SELECT * FROM collect.task_log",
    "DELETE FROM collect.submission",
    # Would delete its log and its submissions with it.
    "DELETE FROM collect.task",
    "DELETE FROM collect.dead_letter",
    "UPDATE collect.source_version SET definition = '{}'",
)
PERSON_DML = (
    "INSERT INTO collect.dedup VALUES ('', 1, now())",
    "UPDATE collect.task SET status = 'COMPLETED'",
    "DELETE FROM collect.shard",
    "UPDATE collect.host SET failures = 0",
)


@pytest.mark.parametrize("statement", DDL)
@each_identity
def test_nobody_who_runs_changes_the_schema(session: Session, places: Places, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        session(places).execute(statement.encode())


@pytest.mark.parametrize("statement", [one for one in NODE_DML if not one.startswith("INSERT")])
def test_what_happened_is_not_a_persons_to_rewrite_with_what_make_env_gives(
    session: Session, statement: str
) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        session(command).execute(statement.encode())


@pytest.mark.parametrize("statement", NODE_DML)
@pytest.mark.parametrize("places", [node, person], ids=["node", "person"])
def test_what_happened_is_not_a_nodes_to_rewrite(session: Session, places: Places, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        session(places).execute(statement.encode())


@pytest.mark.parametrize("statement", PERSON_DML)
def test_a_person_reads(session: Session, statement: str) -> None:
    connection = session(person)
    connection.execute("SELECT count(*) FROM collect.task_progress")
    connection.execute("UPDATE collect.host SET held_until = now() WHERE connection = 'nobody'")
    connection.execute("UPDATE collect.endpoint SET held_until = now() WHERE connection = 'nobody'")
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.encode())


TASK = """
WITH version AS (
    INSERT INTO collect.source_version (hash, source, definition) VALUES (decode(md5(%(who)s), 'hex'), 's', '{}')
    RETURNING hash
)
INSERT INTO collect.task (
    source, source_version, dedup_key, priority, lane, status, moved_by, submitted_by, submitted_via, max_retries
) SELECT 's', hash, hash, 5, 'normal', 'QUEUED', %(who)s, 'x', 'x', 3 FROM version RETURNING id
"""


@pytest.mark.parametrize("places", [control, node], ids=["control", "node"])
def test_moves_are_logged_whoever_makes_them(stack: Stack, places: Places) -> None:
    who = f"{places(stack)['POSTGRES_COLLECT_USER']} at work"
    with database(places(stack)) as connection:
        (task,) = connection.execute(TASK, {"who": who}).fetchone() or (0,)
        connection.execute("UPDATE collect.task SET status = 'CLAIMED' WHERE id = %s", [task])
        log = connection.execute(
            "SELECT from_status, to_status, actor FROM collect.task_log WHERE task_id = %s ORDER BY id",
            [task],
        ).fetchall()
        assert log == [(None, "QUEUED", who), ("QUEUED", "CLAIMED", who)]
        with pytest.raises(errors.CheckViolation):
            connection.execute("UPDATE collect.task SET status = 'COMPLETED' WHERE id = %s", [task])


def owner_of(connection: psycopg.Connection, table: str) -> str:
    row = connection.execute(
        "SELECT relowner::regrole::text FROM pg_class WHERE oid = %s::regclass", [table]
    ).fetchone()
    assert row is not None
    return str(row[0])


LANDS = {"control": control, "node": node, "person": person, "owner": owner}


@pytest.mark.parametrize("maker", LANDS.values(), ids=LANDS)
@pytest.mark.parametrize("schema", ["landing", "landing_aside"])
def test_a_collected_table_is_everybodys_who_lands(stack: Stack, maker: Places, schema: str) -> None:
    """Also of one that processes of an older release make, as the owner, beside new ones."""
    table = f"{schema}.shared"
    with database(maker(stack)) as connection:
        connection.execute(f"CREATE TABLE {table} (n int, _task_id bigint, _shard int)".encode())
        connection.execute(
            f"CREATE INDEX IF NOT EXISTS shared_task_shard ON {table} (_task_id, _shard)".encode()
        )
        assert owner_of(connection, table) == "collect_landing"
    for who in LANDS.values():
        with database(who(stack)) as connection:
            connection.execute(f"INSERT INTO {table} VALUES (1, 2, 3)".encode())
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS shared_task_shard ON {table} (_task_id, _shard)".encode()
            )
            connection.execute(f"ALTER TABLE {table} ADD COLUMN more text".encode())
            connection.execute(f"ALTER TABLE {table} DROP COLUMN more".encode())
            connection.execute(
                f"CREATE OR REPLACE TRIGGER forget_pages AFTER DELETE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION collect.forget_pages()".encode()
            )
            connection.execute(f"DELETE FROM {table}".encode())
            connection.execute("CREATE TEMPORARY TABLE staging (n int)")
    with database(node(stack)) as connection:
        connection.execute(f"DROP TABLE {table}".encode())


@pytest.mark.parametrize("function", ["log_new_tasks", "log_moves", "count_dead_letters"])
@pytest.mark.parametrize("places", IDENTITIES.values(), ids=IDENTITIES)
def test_what_writes_the_log_is_hung_on_no_other_table(stack: Stack, places: Places, function: str) -> None:
    """It writes as its owner what the new rows of a table say, and a table in `landing` is anybody's who lands."""
    with database(places(stack)) as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE forged (id bigint, status text, attempt int, generation int, priority int, "
            "reason text, moved_by text)"
        )
        connection.execute("CREATE TABLE IF NOT EXISTS landing.forged (LIKE forged)")
        for table in ("landing.forged", "forged"):
            statement = (
                f"CREATE TRIGGER forge AFTER INSERT ON {table} REFERENCING NEW TABLE AS new_rows "
                f"FOR EACH STATEMENT EXECUTE FUNCTION collect.{function}()"
            )
            with pytest.raises(errors.InsufficientPrivilege, match="function"):
                connection.execute(statement.encode())
        connection.execute("DROP TABLE landing.forged")


CODE = (
    "CREATE FUNCTION {schema}.code() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "CREATE PROCEDURE {schema}.code() LANGUAGE sql AS 'DELETE FROM collect.task_log'",
    "CREATE TRIGGER code BEFORE UPDATE ON {schema}.of_all EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE code AS ON INSERT TO {schema}.of_all DO ALSO DELETE FROM collect.task_log",
    "CREATE POLICY code ON {schema}.of_all USING (true)",
    "CREATE AGGREGATE {schema}.code(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE OPERATOR {schema}.=== (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int)",
)


@pytest.mark.parametrize("statement", CODE)
@pytest.mark.parametrize("schema", ["landing", "landing_aside", "pg_temp"])
@each_identity
def test_who_lands_leaves_no_code_that_others_run(
    session: Session, places: Places, schema: str, statement: str
) -> None:
    """Control settles a task by writing to its table: what a node hung on that would run as control."""
    connection = session(places)
    connection.execute(f"CREATE TABLE {schema}.of_all (n int)".encode())
    try:
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement.format(schema=schema).encode())
    finally:
        connection.execute(f"DROP TABLE {schema}.of_all".encode())


def test_the_owner_may_leave_code(stack: Stack) -> None:
    """A trigger of one's own on a collected table: made as whoever makes the schema, and it goes on."""
    with database(owner(stack)) as connection:
        connection.execute("CREATE TABLE landing.watched (n int)")
        connection.execute(
            "CREATE FUNCTION landing.twice() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN NEW.n := 2 * NEW.n; RETURN NEW; END'"
        )
        connection.execute(
            "CREATE TRIGGER twice BEFORE INSERT ON landing.watched FOR EACH ROW EXECUTE FUNCTION landing.twice()"
        )
    with database(node(stack)) as connection:
        landed = connection.execute("INSERT INTO landing.watched VALUES (2) RETURNING n").fetchone()
        assert landed == (4,)
        connection.execute("DROP TABLE landing.watched")
    with database(owner(stack)) as connection:
        connection.execute("DROP FUNCTION landing.twice()")


def test_tables_from_before_are_reassigned_while_somebody_lands(layout: Layout, stack: Stack) -> None:
    with privileges.postgres.connect(stack, "collect_ops") as admin:
        admin.execute("ALTER EVENT TRIGGER give_to_landing DISABLE")
        with database(owner(stack)) as before:
            before.execute("CREATE TABLE landing.before (n int)")
            before.execute("CREATE TABLE landing_aside.before__7 (n int)")
            assert owner_of(admin, "landing.before") == "collect_ops"
    with database(owner(stack)) as landing:
        landing.autocommit = False
        landing.execute("INSERT INTO landing.before VALUES (1)")
        code = (
            "from stack import privileges, settings; from stack.layout import Layout; "
            "privileges.grant(settings.load(Layout.from_environment()))"
        )
        environment = {**os.environ, "STACK_HOME": str(layout.home)}
        grant = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, env=environment)
        with pytest.raises(subprocess.TimeoutExpired):
            grant.wait(2.5)  # it waits, and locks nobody out
        landing.execute("INSERT INTO landing.before VALUES (2)")
        landing.commit()
        assert grant.wait(30) == 0
    up(layout)
    with database(node(stack)) as connection:
        assert (
            owner_of(connection, "landing.before")
            == owner_of(connection, "landing_aside.before__7")
            == ("collect_landing")
        )
        connection.execute("INSERT INTO landing.before SELECT 3")
        connection.execute("DROP TABLE landing.before, landing_aside.before__7")


def test_the_two_databases_are_closed_to_each_others_owners(stack: Stack) -> None:
    places = stack.places
    swapped = {
        **places,
        "POSTGRES_COLLECT_USER": "airflow",
        "POSTGRES_COLLECT_PASSWORD": places["POSTGRES_AIRFLOW_PASSWORD"],
    }
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        database(swapped)
    for who in (owner, control, person, command):
        login = {
            key.replace("COLLECT", "AIRFLOW"): value
            for key, value in who(stack).items()
            if "POSTGRES_COLLECT" in key
        }
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            database({**places, **login}, "airflow")


def test_of_airflows_database_a_node_writes_celerys_results_and_no_pickle(stack: Stack) -> None:
    with database(stack.places, "airflow") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS dag_run_like (n int)")
    with database(node(stack), "airflow") as connection:
        for statement in (
            "SELECT * FROM dag_run_like",
            "CREATE TABLE other (n int)",
            "DROP TABLE celery_taskmeta",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        connection.execute(
            "INSERT INTO celery_taskmeta (id, task_id, status, result) "
            "VALUES (nextval('task_id_sequence'), 't', 'SUCCESS', %s)", [b"\x80\x05cposix\nsystem\n."],
        )  # fmt: skip
        kept = connection.execute("SELECT status, result FROM celery_taskmeta WHERE task_id = 't'").fetchone()
        assert kept == ("SUCCESS", None)


def test_from_another_machine_nodes_get_in_and_nobody_else(stack: Stack) -> None:
    for name in ("collect_ops", "airflow"):
        database(node(stack), name, own_address()).close()
        for who in (owner, control, person, command):
            with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
                database(who(stack), name, own_address()).close()


# RabbitMQ


def amqp(places: dict[str, str], vhost: str = "collect") -> pika.BlockingConnection:
    login = ":".join(quote(places[f"RABBITMQ_{key}"], safe="") for key in ("USER", "PASSWORD"))
    return pika.BlockingConnection(
        pika.URLParameters(f"amqp://{login}@{HOST}:{places['RABBITMQ_PORT']}/{vhost}")
    )


def refused(places: dict[str, str], act: Callable[[BlockingChannel], object], vhost: str = "collect") -> bool:
    """Whether RabbitMQ answers that access is refused."""
    with closing(amqp(places, vhost)) as connection:
        try:
            act(connection.channel())
        except ChannelClosedByBroker as error:
            assert error.reply_code == 403, error
            return True
    return False


ACTS: dict[str, Callable[[BlockingChannel], object]] = {
    "delete a lane's queue": lambda channel: channel.queue_delete(LANE),
    "delete the dead letters' queue": lambda channel: channel.queue_delete("collect.dead"),
    "declare a queue": lambda channel: channel.queue_declare("other"),
    "delete an exchange": lambda channel: channel.exchange_delete("collect.tasks"),
    "declare an exchange": lambda channel: channel.exchange_declare("other"),
    "purge a lane's queue": lambda channel: channel.queue_purge(LANE),
    "take from a lane's queue": lambda channel: channel.basic_get(LANE),
    "take dead letters": lambda channel: channel.basic_get("collect.dead"),
}
CONFIGURING = [act for act in ACTS if act.startswith(("delete", "declare"))]


@pytest.mark.parametrize("act", CONFIGURING)
def test_who_publishes_and_consumes_declares_and_deletes_nothing(stack: Stack, act: str) -> None:
    assert refused(person(stack), ACTS[act])


@pytest.mark.parametrize("act", ACTS)
def test_a_node_takes_no_message_of_ours_either(stack: Stack, act: str) -> None:
    assert refused(node(stack), ACTS[act])


def test_control_declares_what_was_lost_and_nothing_else(stack: Stack) -> None:
    places = control(stack)
    assert refused(places, ACTS["declare a queue"])
    with closing(amqp(owner(stack))) as connection:
        connection.channel().queue_declare("theirs", durable=True)
        connection.channel().queue_delete("collect.dead")
    assert refused(places, lambda channel: channel.queue_delete("theirs"))
    declare(env_files.addresses(places)["COLLECT_AMQP_URL"], lane_rules().topology())
    assert not refused(places, lambda channel: channel.queue_declare("collect.dead", passive=True))


@each_identity
def test_everybody_publishes_heartbeats_tasks_and_replies(stack: Stack, places: Places) -> None:
    with closing(amqp(places(stack))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("collect.tasks", lane_rules().routing_key("normal"), b"{}")
        channel.basic_publish("collect.heartbeats", "", b"{}")
        channel.basic_publish("", LANE, b"{}")
        assert channel.queue_declare(LANE, passive=True).method.message_count > 0
    with closing(amqp(owner(stack))) as connection:
        for queue in (LANE, "collect.heartbeats"):
            connection.channel().queue_purge(queue)


def test_a_dags_own_queues_are_anybodys(stack: Stack) -> None:
    """What is no queue of collect-ops is published to and consumed from, by nodes too."""
    with closing(amqp(owner(stack))) as connection:
        connection.channel().queue_declare("collect.of_mine", durable=True)
        connection.channel().exchange_declare("orders", durable=True)
        connection.channel().queue_bind("collect.of_mine", "orders", "x")
    for who in IDENTITIES.values():
        with closing(amqp(who(stack))) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("orders", "x", b"{}", mandatory=True)
            assert channel.basic_get("collect.of_mine", auto_ack=True)[0] is not None


def test_a_nodes_queues_are_its_own(stack: Stack) -> None:
    other = privileges.admit(stack, "n9")
    mine, theirs = node(other), node(other, "n9")
    for places, queue in ((mine, "node.node-1"), (theirs, "node.n9"), (mine, "default")):
        assert not refused(
            places, lambda channel, queue=queue: channel.queue_declare(queue, durable=True), "celery"
        )  # type: ignore[misc]
        assert not refused(places, lambda channel, queue=queue: channel.basic_get(queue), "celery")  # type: ignore[misc]
    for act in (
        lambda channel: channel.basic_get("node.n9"),
        lambda channel: channel.queue_purge("node.n9"),
        lambda channel: channel.queue_delete("node.n9"),
        lambda channel: channel.queue_declare("control", durable=True),
        lambda channel: (
            channel.basic_publish("collect.nodes", "task.node.n9", b"{}")
            or channel.queue_declare("default", passive=True)
        ),
    ):
        assert refused(mine, act, "celery")


def test_who_asks_the_management_api_may_only_look(stack: Stack) -> None:
    places = control(stack)
    url = env_files.addresses(places)["COLLECT_RABBITMQ_API_URL"]
    with closing(amqp(owner(stack), "celery")) as connection:
        connection.channel().queue_declare("default", durable=True)
    deadline = time.monotonic() + 15  # a new queue has figures some seconds later
    for vhost, queue in (("collect", LANE), ("celery", "default")):
        while queue not in (Management(url, vhost).depths() or {}):
            assert time.monotonic() < deadline, vhost
            time.sleep(0.2)
    assert Management(url, "collect").bindings()
    login = (places["RABBITMQ_MONITOR_USER"], places["RABBITMQ_MONITOR_PASSWORD"])
    api = f"http://{HOST}:{places['RABBITMQ_MANAGEMENT_PORT']}/api"
    for method, path in (("DELETE", f"queues/collect/{LANE}"), ("PUT", "vhosts/other"), ("GET", "users")):
        assert httpx.request(method, f"{api}/{path}", auth=login, trust_env=False).status_code in (
            401,
            403,
        ), path
    monitor = {**places, "RABBITMQ_USER": login[0], "RABBITMQ_PASSWORD": login[1]}
    assert refused(monitor, ACTS["take from a lane's queue"])
    for who in IDENTITIES.values():
        own = (who(stack)["RABBITMQ_USER"], who(stack)["RABBITMQ_PASSWORD"])
        assert httpx.get(f"{api}/overview", auth=own, trust_env=False).status_code == 401


# Redis


def redis_of(places: dict[str, str]) -> redis.Redis:
    return redis.Redis.from_url(env_files.addresses(places)["COLLECT_REDIS_URL"])


@pytest.mark.parametrize(
    "command",
    ["FLUSHALL", "FLUSHDB", "CONFIG GET requirepass", "KEYS *", "ACL LIST", "SHUTDOWN NOSAVE", "CLIENT LIST",
     "REPLICAOF 127.0.0.1 1", "CLIENT KILL TYPE normal", "GET other:key", "SET other:key 1", "MONITOR"],
)  # fmt: skip
@each_identity
def test_redis_answers_no(stack: Stack, places: Places, command: str) -> None:
    with redis_of(places(stack)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


def test_keys_of_ours_are_used_and_a_nodes_sign_of_life_is_its_own(stack: Stack) -> None:
    with redis_of(control(stack)) as client:
        client.set("collect:nodes:witness", 1, ex=1)
        client.info("server")
    with redis_of(node(stack)) as client:
        client.set("collect:lease:1:2", "x", px=100)
        client.eval("return redis.call('GET', KEYS[1])", 1, "collect:limit:{h}:state")
        client.set("collect:node:node-1", "x", px=100)
        for key in ("collect:node:n9", "collect:nodes:witness"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.set(key, "x")


# Withdrawing


def test_a_withdrawn_node_is_shut_out_and_its_sessions_end(layout: Layout, stack: Stack) -> None:
    places = node(privileges.admit(stack, "n2"), "n2")
    with ExitStack() as opened:
        sessions = [
            opened.enter_context(closing(database(places, name))) for name in ("collect_ops", "airflow")
        ]
        others = [opened.enter_context(closing(database(who(stack)))) for who in (node, control)]
        link = amqp(places)
        client = opened.enter_context(redis_of(places))
        client.set("collect:node:n2", "alive")

        done = run_stack(layout.home, "withdraw", "n2")
        assert done.returncode == 0, done.stderr
        for session in sessions:
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")
        with pytest.raises(AMQPError):
            link.sleep(5)
        assert link.is_closed
        with pytest.raises(redis.exceptions.RedisError):
            client.set("collect:node:n2", "alive")
        for session in others:
            session.execute("SELECT 1")

    def shut_out(places: dict[str, str]) -> None:
        for name in ("collect_ops", "airflow"):
            with pytest.raises(psycopg.OperationalError, match="authentication failed"):
                database(places, name)
        for vhost in ("collect", "celery"):
            with pytest.raises(AMQPError):
                amqp(places, vhost)
        with pytest.raises(redis.exceptions.AuthenticationError):
            redis_of(places).ping()

    shut_out(places)
    with redis_of(control(stack)) as others_client:
        assert others_client.get("collect:node:n2") is None
    # Neither an `up` nor a second withdrawal brings it back; new credentials are others.
    up(layout)
    shut_out(places)
    assert run_stack(layout.home, "withdraw", "n2").returncode == 0
    again = privileges.admit(load(layout), "n2")
    with closing(database(node(again, "n2"))) as connection, closing(amqp(node(again, "n2"))):
        connection.execute("SELECT 1")
    shut_out(places)


def test_who_was_never_let_in_cannot_be_withdrawn(layout: Layout) -> None:
    done = run_stack(layout.home, "withdraw", "nobody")
    assert done.returncode == 1
    assert "'nobody'" in done.stderr
    assert "node-1" in done.stderr


# What is given out

PERSONS = {
    "POSTGRES_PERSON_PASSWORD", "POSTGRES_CLI_PASSWORD", "REDIS_PERSON_PASSWORD", "RABBITMQ_PERSON_PASSWORD",
    "RABBITMQ_MONITOR_PASSWORD", "AIRFLOW_PERSON_PASSWORD",
}  # fmt: skip


def named(text: str, secrets: dict[str, str]) -> set[str]:
    return {name for name, value in secrets.items() if value in text}


def test_make_env_gives_out_what_a_person_needs(layout: Layout, stack: Stack) -> None:
    secrets = dict(stack.secrets)
    exported = run_stack(layout.home, "env").stdout
    assert named(exported, secrets) == PERSONS
    everything = run_stack(layout.home, "env", "--all").stdout
    owners = {
        "POSTGRES_SUPERUSER_PASSWORD",
        "POSTGRES_COLLECT_PASSWORD",
        "RABBITMQ_PASSWORD",
        "AIRFLOW_FERNET_KEY",
        "AIRFLOW_ADMIN_PASSWORD",
    }
    assert named(everything, secrets) >= owners
    keys = [line.partition("=")[0] for line in exported.splitlines()]
    assert not [key for key in keys if key.startswith("export AIRFLOW_CONN_")]


Run = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def as_a_person(layout: Layout) -> Run:
    """Runs a command with what `make env` gives, and nothing else."""
    words = [
        word for one in run_stack(layout.home, "env").stdout.splitlines() for word in shlex.split(one)[1:]
    ]
    own = {
        key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "COLLECT", "PG"))
    }
    environment = {**own, **dict(word.split("=", 1) for word in words)}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        name, *arguments = shlex.split(line)
        if name == "collect-ops":
            return KEPT.run("collect_ops.cli", *arguments, environment=environment)
        return subprocess.run(
            [name, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize(
    "line",
    [
        "psql -c 'TABLE collect.task_progress'",
        "collect-ops backlog",
        "collect-ops nodes",
        "collect-ops status {task}",
        "collect-ops why {task}",
        "collect-ops priority {task} --to 7",
        "collect-ops cancel {task}",
        "collect-ops dead list",
        "collect-ops dead groups",
        "collect-ops dead redrive --source s",
        "collect-ops dead discard --source s --reason tested",
        "collect-ops dead status",
        "collect-ops bad-rows {task}",
        "collect-ops retention --dry-run",
        "collect-ops source migrate flights --dry-run",
        "collect-ops sweep",
    ],
)
def test_psql_and_the_command_work_with_what_make_env_gives(
    as_a_person: Run, stack: Stack, line: str
) -> None:
    with database(owner(stack)) as connection:
        (task,) = connection.execute(TASK, {"who": line}).fetchone() or (0,)
    done = as_a_person(line.format(task=task))
    said = done.stdout + done.stderr
    assert "permission denied" not in said
    # No Airflow runs here, and the sweep says so.
    assert done.returncode == 0 or (line == "collect-ops sweep" and "REST API" in said), said


def test_ended_tasks_are_deleted_by_control_and_not_by_a_person(as_a_person: Run) -> None:
    done = as_a_person("collect-ops retention")
    assert done.returncode == 1
    assert "collect_cli may not delete" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_join_file_holds_one_nodes_credentials(stack: Stack) -> None:
    text = join.text(privileges.admit(stack, "n3"), "n3", "192.0.2.9")
    assert named(text, dict(stack.secrets)) == {"AIRFLOW_API_SECRET_KEY"}
    assert "COLLECT_NODE_ID=n3\n" in text


def test_a_stack_of_the_last_release_goes_on_with_its_secrets(
    old_secrets: tuple[Layout, dict[str, str]], stack: Stack
) -> None:
    _, before = old_secrets
    assert {name: stack.secrets[name] for name in before} == before
    assert set(stack.secrets) == set(credentials.generate())
    # What its processes have goes on: everything the owners could do.
    with database(owner(stack)) as connection, closing(amqp(owner(stack))) as link:
        connection.execute("CREATE TABLE collect.later (n int)")
        connection.execute("DROP TABLE collect.later")
        link.channel().queue_declare("later", exclusive=True)
    redis.Redis(host=HOST, port=stack.ports.redis, password=stack.secrets["REDIS_PASSWORD"]).config_get(
        "save"
    )


@pytest.mark.parametrize("node_id", ["n2", "a" * 63, "host.example-1_x"])
def test_names_of_nodes_fit_and_differ(node_id: str) -> None:
    names = {access.node_user(each) for each in (node_id, node_id[:-1] + "z", node_id + "y")}
    assert len(names) == 3
    assert all(len(name) <= 63 for name in names)
    secrets = credentials.generate()
    passwords = {access.node_password(secrets, node_id, number) for number in range(3)}
    assert len(passwords | {access.node_password(credentials.generate(), node_id, 0)}) == 4
