"""Which of the project's own DAGs are paused: then tasks wait, and nothing else says so."""

from __future__ import annotations

import psycopg

from stack.settings import HOST, Stack

# By name and place: a user's own DAGs are none of ours, and a source is paused because somebody does not want its
# schedule, which stops no task.
_SELECT = """
SELECT dag_id FROM dag
WHERE
    is_paused AND NOT is_stale AND starts_with(fileloc, %s)
    AND (
        starts_with(dag_id, 'lane_') OR starts_with(dag_id, 'collect_') OR dag_id = ANY(%s)
    )
ORDER BY dag_id
"""

#: The project's DAGs beside those of lanes (`lane_NAME`, `collect_NAME`) and sources.
OTHERS = (
    "collect_backlog", "collect_inbox", "collect_priority", "collect_submit", "collect_sweep",
    "dead_letters", "heartbeat_ingest", "retention",
)  # fmt: skip


def paused_dags(stack: Stack) -> list[str]:
    """Their ids; none while Airflow's database is away or not migrated, which the table of services tells."""
    places = stack.places
    values = [f"{stack.layout.checkout / 'dags'}/", list(OTHERS)]
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


def sentences(paused: list[str]) -> list[str]:
    """What that means, a line a kind."""
    lanes = [name.removeprefix("lane_") for name in paused if name.startswith("lane_")]
    runs = [name for name in paused if name.startswith("collect_") and name not in OTHERS]
    others = [name for name in paused if not name.startswith("lane_") and name not in runs]
    lines = []
    if lanes:
        dags = ", ".join(f"lane_{name}" for name in lanes)
        lines.append(f"paused: {dags}: tasks of {_lanes(lanes)} wait")
    if runs:
        collecting = _lanes([name.removeprefix("collect_") for name in runs])
        lines.append(f"paused: {', '.join(runs)}: what is claimed in {collecting} does not begin")
    if others:
        lines.append(f"paused: {', '.join(others)}: their work is not done")
    if lines:
        lines.append("resume them in Airflow's UI; `make demo` resumes what a task needs")
    return lines


def _lanes(names: list[str]) -> str:
    return f"lane{'s' if len(names) > 1 else ''} {', '.join(names)}"
