"""The backlog: every minute a sample, and what the rules of include/rules/backlog.yaml do about it.

Apart from the sweep: a slow REST API must not keep repairs waiting.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.backlog import EvaluateBacklogOperator

with DAG(
    dag_id="collect_backlog",
    schedule=timedelta(minutes=1),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(minutes=5),
    tags=["collect-ops", "backlog"],
    doc_md="Depth, oldest age, rates and time to drain of each lane and source. XCom of `evaluate` has them, and what "
    "the rules did; `collect-ops backlog` shows them.",
):
    EvaluateBacklogOperator(
        task_id="evaluate",
        pool=lane_rules().control.pool,
        priority_weight=50_000,
        weight_rule="absolute",
        retries=0,
    )
