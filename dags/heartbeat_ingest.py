"""Heartbeats of nodes: taken in from the queue, into the registry and the machine log (docs/operations.md).

Woken when a node's state changes, when a node says something new, and while work waits to be placed; every two minutes
without it.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, AssetWatcher, DeltaTriggerTimetable

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.machinery import machinery
from collect_ops.operators.nodes import IngestHeartbeatsOperator
from collect_ops.triggers.heartbeats import HeartbeatTrigger

HEARTBEATS = Asset(
    name="collect.heartbeats",
    uri="collect://heartbeats",
    watchers=[AssetWatcher(name="queue_heartbeats", trigger=HeartbeatTrigger())],
)

with DAG(
    dag_id="heartbeat_ingest",
    schedule=AssetOrTimeSchedule(timetable=DeltaTriggerTimetable(timedelta(minutes=2)), assets=[HEARTBEATS]),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    dagrun_timeout=timedelta(minutes=3),
    **machinery("Machinery: heartbeats", "Takes in the nodes' heartbeats, and works out which live", "nodes"),
    doc_md="Takes in the nodes' heartbeats and works out which nodes live. `collect-ops nodes` shows them.",
):
    IngestHeartbeatsOperator(
        task_id="ingest",
        pool=lane_rules().control.pool,
        priority_weight=100_000,
        weight_rule="absolute",
        retries=0,
    )
