"""Which of the project's own DAGs are paused, and what stands still because of it: nothing else says so."""

from __future__ import annotations

import psycopg

from stack.settings import HOST, Stack

# By name and place: a user's own DAGs are none of ours, whatever they are called, and a source is paused because
# somebody does not want its schedule, which stops no task.
_SELECT = """
SELECT dag_id FROM dag
WHERE
    is_paused AND NOT is_stale
    AND (fileloc = %(lanes)s OR dag_id = ANY(%(others)s) AND starts_with(fileloc, %(dags)s))
ORDER BY dag_id
"""

#: What stands still while a DAG is paused: all DAGs but those of lanes (`lane_NAME`, `collect_NAME`) and of sources.
OTHERS = {
    "collect_backlog": "the backlog is not sampled, and its rules do nothing",
    "collect_inbox": "what producers publish over AMQP is not admitted",
    "collect_priority": "priorities and cancellations from its form or over REST wait",
    "collect_submit": "submissions from its form or over REST wait",
    "collect_sweep": "lost messages, tasks that hang and overdue retries are not found, waiting tasks do not age, "
    "and asset events of tables may stay behind",
    "dead_letters": "what is asked for in its form or over REST waits",
    "heartbeat_ingest": "heartbeats are not taken in: no node is found lost or new, and placement goes by old figures",
    "landing_tables": "landing tables cannot be materialized by hand; their asset events come all the same",
    "retention": "nothing old is deleted",
}


def paused_dags(stack: Stack) -> list[str]:
    """Their ids; none while Airflow's database is away or not migrated, which the table of services tells."""
    places = stack.places
    dags = stack.layout.checkout / "dags"
    values = {"lanes": str(dags / "lanes.py"), "others": list(OTHERS), "dags": f"{dags}/"}
    try:
        with psycopg.connect(
            host=HOST,
            port=stack.ports.postgres,
            user=places["POSTGRES_AIRFLOW_USER"],
            password=places["POSTGRES_AIRFLOW_PASSWORD"],
            dbname=places["POSTGRES_AIRFLOW_DB"],
            connect_timeout=3,
        ) as connection:
            return [row[0] for row in connection.execute(_SELECT, values)]
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return []


def standstill(dag_id: str) -> str:
    """What stands still while one of the project's DAGs is paused."""
    if dag_id in OTHERS:
        return OTHERS[dag_id]
    if dag_id.startswith("lane_"):
        return f"tasks of lane {dag_id.removeprefix('lane_')} wait"
    lane = dag_id.removeprefix("collect_")
    return f"what is claimed in lane {lane} does not begin, and what has begun does not settle"


def sentences(paused: list[str]) -> list[str]:
    """A line a DAG."""
    lines = [f"paused: {dag_id}: {standstill(dag_id)}" for dag_id in paused]
    if lines:
        lines.append("resume them in Airflow's UI; `make demo` resumes what a task needs")
    return lines
