"""Lane DAGs (claim) and collect DAGs (plan, shard groups, settle), one pair a lane of include/rules/lanes.yaml.

They are the machinery and start unpaused: what decides about collecting are submissions and the sources' own DAGs.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, AssetWatcher

from collect_ops.lanes.rules import LaneRules, lane_rules
from collect_ops.lanes.runs import collect_dag_id, lane_dag_id
from collect_ops.operators.lane import (
    ClaimLaneOperator,
    PlanRunOperator,
    SettleRunOperator,
    ShardGroupOperator,
)
from collect_ops.operators.machinery import OWNER, machinery
from collect_ops.triggers.lane import LaneTrigger

# Control tasks go before shard groups whatever their priority: a claim that waits holds up a lane.
CONTROL = {"priority_weight": 100_000, "weight_rule": "absolute", "retries": 0}


def lane_dag(lane: str, rules: LaneRules) -> DAG:
    """Claims from a lane. Woken by who published, by the queue's watcher, by the sweep; one run at a time."""
    low, high = rules.lanes[lane].priorities
    queue = Asset(
        name=f"collect.lane.{lane}",
        uri=f"collect://lane/{lane}",
        watchers=[AssetWatcher(name=f"queue_{lane}", trigger=LaneTrigger(lane=lane))],
    )
    with DAG(
        dag_id=lane_dag_id(lane),
        schedule=[queue],
        dagrun_timeout=timedelta(seconds=60),
        **machinery(f"Machinery: lane {lane}", f"Claims collect tasks of priority {low} to {high}", "lane"),
        doc_md=f"Claims collect tasks of priority {low} to {high} and starts their runs in `{collect_dag_id(lane)}`.",
    ) as dag:
        ClaimLaneOperator(task_id="claim", lane=lane, pool=rules.control.pool, **CONTROL)
    return dag


def collect_dag(lane: str, rules: LaneRules) -> DAG:
    """Runs the collect tasks of a lane: a run per task and attempt, started by the lane's claim."""
    slots = rules.lanes[lane].slots
    with DAG(
        dag_id=collect_dag_id(lane),
        schedule=None,
        catchup=False,
        max_active_runs=4 * slots,
        is_paused_upon_creation=False,
        max_active_tasks=16 * slots,
        dag_display_name=f"Collect: {lane}",
        description=f"Collects the tasks of lane {lane}, a run a task and attempt",
        default_args={"owner": OWNER},
        tags=["collect-ops", "collect"],
        doc_md="A run collects one collect task: count and split, shard groups, settle. Started by the lane's claim; "
        "to collect something yourself, trigger `collect_submit`.",
    ) as dag:
        control = {"pool": rules.control.pool, **CONTROL}
        plan = PlanRunOperator(task_id="plan", max_active_tis_per_dag=rules.control.plans, **control)
        # No Airflow retries: a shard group that is lost is placed again by the repair pass, as a new attempt.
        groups = ShardGroupOperator.partial(
            task_id="collect",
            pool=rules.pool(lane),
            weight_rule="absolute",
            retries=0,
            map_index_template="{{ task.group_label }}",
        ).expand_kwargs(plan.output)
        groups >> SettleRunOperator(task_id="settle", trigger_rule="all_done", **control)
    return dag


RULES = lane_rules()
for name in RULES.lanes:
    globals()[lane_dag_id(name)] = lane_dag(name, RULES)
    globals()[collect_dag_id(name)] = collect_dag(name, RULES)
