"""The peer that stays inside Airflow: 68 mapped tasks, each fetches 5,000 rows and inserts them with PostgresHook.

What the documentation says is fast: dynamic task mapping with the list known in advance (no task that makes it),
`insert_rows` with `executemany` (the driver is psycopg 3, which pipelines it) and one commit a page. It inserts
into an empty table with the same key, so it does less than an upsert, and computes no hash.

The benchmark copies this file into the DAG folder for as long as it runs.
"""

from __future__ import annotations

from airflow.providers.http.hooks.http import HttpHook
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk import dag, task

ROWS = 336_776
PAGE_ROWS = 5_000
PATH = "/nycflights13/flights_page.json?_shape=objects"


@dag(dag_id="bench_stock_flights", schedule=None, max_active_tasks=64, tags=["benchmark"])
def stock_flights() -> None:
    """68 mapped tasks, and nothing else."""

    @task
    def land(offset: int) -> None:
        answer = HttpHook("GET", http_conn_id="bench_flights").run(
            f"{PATH}&offset={offset}&limit={PAGE_ROWS}"
        )
        rows = answer.json()["rows"]
        PostgresHook("collect_postgres").insert_rows(  # type: ignore[no-untyped-call]
            "bench_stock",
            (tuple(row.values()) for row in rows),
            target_fields=list(rows[0]),
            commit_every=PAGE_ROWS,
            executemany=True,
        )

    land.expand(offset=list(range(0, ROWS, PAGE_ROWS)))


stock_flights()
