"""The backlog: a sample a minute, and what the rules of include/rules/backlog.yaml do about it.

Woken while something waits or a rule acts; every two minutes without it, so that an empty backlog is sampled as well.

Apart from the sweep: a slow REST API must not keep repairs waiting.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, AssetWatcher, DeltaTriggerTimetable

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.backlog import EvaluateBacklogOperator
from collect_ops.operators.machinery import machinery
from collect_ops.triggers.backlog import BacklogTrigger

BACKLOG = Asset(
    name="collect.backlog",
    uri="collect://backlog",
    watchers=[AssetWatcher(name="backlog", trigger=BacklogTrigger())],
)

with DAG(
    dag_id="collect_backlog",
    schedule=AssetOrTimeSchedule(timetable=DeltaTriggerTimetable(timedelta(minutes=2)), assets=[BACKLOG]),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    dagrun_timeout=timedelta(minutes=5),
    **machinery("Machinery: backlog", "Samples what waits, and does what the backlog's rules say", "backlog"),
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
