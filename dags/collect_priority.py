"""Priorities and cancelling: a form in the UI, validated `conf` over REST (docs/operations.md)."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.forms import choice, optional, source_filter
from collect_ops.operators.priority import ACTIONS, CollectPriorityOperator

# As JSON: what is a text stays one, also when it reads like a number. Empty lists mean nothing.
_SELECTED = (
    "{{ dict(ids=params.ids or none, source=params.source, lane=params.lane, status=params.status or none, "
    "priority_min=params.priority_min, priority_max=params.priority_max, submitted_by=params.submitted_by, "
    "older_than_s=params.older_than_s, params=params.params or none) | tojson }}"
)
_WAITING = ["QUEUED", "HELD", "RETRYING", "MERGED", "CLAIMED", "DISPATCHED", "RUNNING"]

with DAG(
    dag_id="collect_priority",
    schedule=None,
    catchup=False,
    max_active_runs=8,
    is_paused_upon_creation=False,
    tags=["collect-ops", "priority"],
    doc_md="Gives waiting collect tasks another priority, makes them emergencies, or cancels tasks: those with the "
    "given ids, or all that match what is given. XCom of `act` says how many, and which were left as they are.",
    params={
        "action": Param(
            "adjust",
            type="string",
            enum=list(ACTIONS),
            title="Action",
            description="adjust: set the priority; promote: make it an emergency; cancel: nothing lands any more",
        ),
        "ids": optional(
            "array",
            [],
            items={"type": "integer", "minimum": 1},
            title="Collect tasks",
            description="Their numbers, as a JSON list; empty: those that the fields below choose",
        ),
        "source": source_filter(),
        "lane": choice(*lane_rules().lanes, empty="every lane", title="Lane"),
        "status": optional(
            "array",
            [],
            items={"type": "string", "enum": _WAITING},
            examples=_WAITING,
            title="In these states",
            description="Empty: in every state of a task that waits or runs",
        ),
        "priority_min": optional("integer", minimum=0, maximum=10, title="Of this priority or above"),
        "priority_max": optional("integer", minimum=0, maximum=10, title="Of this priority or below"),
        "submitted_by": optional("string", title="Submitted by"),
        "older_than_s": optional("number", minimum=0, title="Waiting for longer than", description="Seconds"),
        "params": optional("object", {}, title="Parameters", description="Tasks with these among theirs"),
        "priority": optional(
            "integer",
            minimum=0,
            maximum=10,
            title="Priority",
            description="0 to 10, for adjust: 8-10 urgent, 4-7 normal, 0-3 bulk",
        ),
        # Null, not "": the form takes an empty text for a missing one, and lets nobody trigger.
        "reason": optional("string", title="Reason", description="Kept in the log of each task"),
    },
) as dag:
    CollectPriorityOperator(
        task_id="act",
        action="{{ params.action }}",
        selection=_SELECTED,
        priority="{{ params.priority }}",
        reason="{{ params.reason }}",
        conf_keys=list(dag.params),
        pool=lane_rules().control.pool,
        priority_weight=100_000,
        weight_rule="absolute",
        # What an action changed stays changed.
        retries=0,
    )
