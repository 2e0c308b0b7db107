"""`dead_letters`: what the form gives reaches the service as it was given, and actions do what they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from psycopg.conninfo import conninfo_to_dict

from collect_ops.coordination.wakeups import Wakeups
from collect_ops.operators.dead_letters import DeadLettersOperator
from tests.plugins.integration.conftest import (  # noqa: F401 - fixtures
    backends,
    clean_vhost,
    collect_amqp_url,
    databases,
    postgres_dsn,
    redis_url,
    rules,
    session_vhost,
    template_database,
    world,
)
from tests.plugins.integration.delivery.letters import dead_tasks, letters_of, state_of
from tests.plugins.integration.world import World, source

Act = Callable[..., Any]


def rendered(dags: Mapping[str, DAG], **conf: Any) -> DeadLettersOperator:
    """The task of the DAG with a form's values, as Airflow renders it."""
    dag = dags["dead_letters"]
    params = {**{name: dag.params[name] for name in dag.params}, **conf}
    task = dag.get_task("act").prepare_for_execution()
    assert isinstance(task, DeadLettersOperator)
    task.render_template_fields({"params": params})  # type: ignore[typeddict-item]
    return task


@pytest.fixture
def act(world: World, dags: Mapping[str, DAG], monkeypatch: pytest.MonkeyPatch) -> Act:  # noqa: F811
    """Runs the DAG's task on this test's services."""
    world.add(source())
    for name, connection in connections(world).items():
        monkeypatch.setenv(f"AIRFLOW_CONN_COLLECT_{name}", json.dumps(connection))
    # Woken already: nothing is started on the Airflow that is not there.
    for lane in world.rules.lanes:
        Wakeups(world.backends.redis_url).begin(lane)

    def run(**conf: Any) -> Any:
        ti = SimpleNamespace(dag_id="dead_letters", run_id="r1", task_id="act", xcom_push=lambda *_: None)
        context = {"ti": ti, "dag_run": SimpleNamespace(conf=conf)}
        return rendered(dags, **conf).execute(context)  # type: ignore[arg-type]

    return run


def connections(world: World) -> dict[str, dict[str, Any]]:  # noqa: F811
    dsn = conninfo_to_dict(world.backends.postgres_dsn)
    amqp, redis = urlsplit(world.backends.amqp_url), urlsplit(world.backends.redis_url)
    return {
        "POSTGRES": {
            "conn_type": "postgres", "host": dsn["host"], "port": int(dsn["port"]), "login": dsn.get("user"),
            "password": dsn.get("password"), "schema": dsn["dbname"],
        },
        "RABBITMQ": {
            "conn_type": "rabbitmq", "host": amqp.hostname, "port": amqp.port, "login": unquote(amqp.username or ""),
            "password": unquote(amqp.password or ""), "schema": amqp.path.removeprefix("/"),
        },
        "REDIS": {
            "conn_type": "redis", "host": redis.hostname, "port": redis.port, "login": redis.username,
            "password": redis.password, "extra": json.dumps({"db": int(redis.path.removeprefix("/"))}),
        },
    }  # fmt: skip


def test_what_reads_like_a_number_stays_a_text(dags: Mapping[str, DAG]) -> None:
    task = rendered(dags, fingerprint="1234567890123e45", text="503", reason="17", ids=[3], rate_per_s=2.5)
    selection = task._selected()
    assert (selection.fingerprint, selection.text, selection.ids) == ("1234567890123e45", "503", (3,))
    assert (str(task.reason), float(str(task.rate_per_s))) == ("17", 2.5)
    assert rendered(dags)._selected().empty


def test_from_finding_to_undoing(world: World, act: Act) -> None:  # noqa: F811
    ids = dead_tasks(world, 3)
    letters = letters_of(world, ids)
    (group,) = act(action="groups")
    assert group["letters"] == 3
    assert len(act(action="list", fingerprint=group["fingerprint"])) == 3
    done = act(
        action="redrive", ids=letters[:1], edit={"params": {"day": "right"}}, reason="a typo", rate_per_s=50
    )
    assert (done["done"], done["skipped_letters"]) == (1, [])
    assert world.task(ids[0])["params"] == {"day": "right"}
    assert world.task(ids[0])["moved_by"] == "airflow:dead_letters/r1/act"
    assert act(action="take_back", redrive_id=done["id"], reason="too early")["moved"] == letters[:1]
    assert act(action="discard", fingerprint=group["fingerprint"], reason="gone")["moved"] == letters
    assert state_of(world, letters[2]) == "DISCARDED"
    assert act(action="status")[0]["taken_back"] == 1
    assert act(action="cancel", redrive_id=done["id"])["finished_at"]
    assert act(action="show", ids=letters[:1])["task"]["task_id"] == ids[0]


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"action": "redrive", "reason": "all"}, "nothing given would mean all"),
        ({"action": "discard", "source": "things"}, "must say why"),
        ({"action": "show"}, "must name one dead letter"),
        ({"action": "cancel"}, "must name the redrive"),
        ({"action": "burn"}, "is not an action"),
        ({"action": "list", "fingerprnt": "x"}, "did you mean 'fingerprint'"),
    ],
)
def test_what_cannot_be_done_fails_at_once_and_says_why(act: Act, conf: dict[str, Any], words: str) -> None:
    with pytest.raises(AirflowFailException, match=words):
        act(**conf)
