"""The sweep: catches what wake-ups, publishers and processes lost, as soon as a look finds it due.

Every two minutes without it, which catches what the looks cannot see.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, AssetWatcher, DeltaTriggerTimetable

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.lane import SweepOperator
from collect_ops.operators.machinery import machinery
from collect_ops.triggers.dead_letters import DeadLetterTrigger
from collect_ops.triggers.recovery import RecoveryTrigger

DUE = Asset(
    name="collect.due",
    uri="collect://due",
    watchers=[
        AssetWatcher(name="due", trigger=RecoveryTrigger()),
        AssetWatcher(name="queue_dead", trigger=DeadLetterTrigger()),
    ],
)

with DAG(
    dag_id="collect_sweep",
    schedule=AssetOrTimeSchedule(timetable=DeltaTriggerTimetable(timedelta(minutes=2)), assets=[DUE]),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    dagrun_timeout=timedelta(minutes=5),
    **machinery("Machinery: sweep", "Publishes, repairs and reports what others left undone", "repair"),
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
