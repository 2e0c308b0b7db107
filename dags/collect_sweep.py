"""The sweep: every minute, catches what wake-ups, publishers and processes lost; at once when a shard group is lost."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, AssetWatcher, DeltaTriggerTimetable

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.lane import SweepOperator
from collect_ops.triggers.recovery import RecoveryTrigger

SILENT_GROUPS = Asset(
    name="collect.silent_groups",
    uri="collect://silent_groups",
    watchers=[AssetWatcher(name="silent_groups", trigger=RecoveryTrigger())],
)

with DAG(
    dag_id="collect_sweep",
    schedule=AssetOrTimeSchedule(
        timetable=DeltaTriggerTimetable(timedelta(minutes=1)), assets=[SILENT_GROUPS]
    ),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(minutes=5),
    tags=["collect-ops", "repair"],
    doc_md="Publishes what the broker has not confirmed, places shard groups anew whose node was lost, repairs what "
    "crashes left over, wakes lanes with messages.",
):
    SweepOperator(
        task_id="sweep",
        pool=lane_rules().control.pool,
        priority_weight=100_000,
        weight_rule="absolute",
        retries=0,
    )
