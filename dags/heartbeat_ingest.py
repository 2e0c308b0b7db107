"""Heartbeats of nodes: taken in from the queue, into the registry and the machine log (docs/operations.md).

Woken by the queue's watcher; every minute without it, so that a node is found LOST whose heartbeats are missing.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, AssetWatcher, DeltaTriggerTimetable

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.nodes import IngestHeartbeatsOperator
from collect_ops.triggers.heartbeats import HeartbeatTrigger

HEARTBEATS = Asset(
    name="collect.heartbeats",
    uri="collect://heartbeats",
    watchers=[AssetWatcher(name="queue_heartbeats", trigger=HeartbeatTrigger())],
)

with DAG(
    dag_id="heartbeat_ingest",
    schedule=AssetOrTimeSchedule(timetable=DeltaTriggerTimetable(timedelta(minutes=1)), assets=[HEARTBEATS]),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(minutes=3),
    tags=["collect-ops", "nodes"],
    doc_md="Takes in the nodes' heartbeats and works out which nodes live. `collect-ops nodes` shows them.",
):
    IngestHeartbeatsOperator(
        task_id="ingest",
        pool=lane_rules().control.pool,
        priority_weight=100_000,
        weight_rule="absolute",
        retries=0,
    )
