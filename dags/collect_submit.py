"""Submit a collect task: a form in the UI, validated `conf` over REST."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.forms import optional
from collect_ops.operators.submit import MAX_BATCH, CollectSubmitOperator
from collect_ops.sources.load import source_names

with DAG(
    dag_id="collect_submit",
    schedule=None,
    catchup=False,
    max_active_runs=32,
    is_paused_upon_creation=False,
    tags=["collect-ops", "submit"],
    doc_md="Admits one collect task, or a batch. XCom of `submit`: `task_id`, `status`, `duplicate_of`, `merged_into`, "
    "`message`; of a batch counts, and these in `tasks`; of a dry run what would be done, in `would`; of what is "
    "rejected `error` and `faults`.",
    params={
        "source": Param(
            None,
            type="string",
            enum=source_names(),
            title="Source",
            description="A file of include/sources, without .yaml",
        ),
        "params": optional(
            "object",
            {},
            title="Parameters",
            description="Values for the parameters that the source declares, as JSON; the form of the DAG source_NAME "
            "has a field for each",
        ),
        "path": optional(
            "string",
            title="Path",
            description="Instead of the source's path, relative to its connection",
        ),
        "priority": optional(
            "integer",
            minimum=0,
            maximum=10,
            title="Priority",
            description="0 to 10; empty takes the source's",
        ),
        "emergency": optional(
            "boolean",
            default=False,
            title="Emergency",
            description="Raises the priority, by 3 as shipped",
        ),
        "force": optional(
            "boolean",
            default=False,
            title="Force",
            description="Admit even when an equal task is under way or was collected within the source's window",
        ),
        "deadline": optional(
            "string",
            format="date-time",
            title="Deadline",
            description="When the rows are needed at the latest, with an offset from UTC",
        ),
        "batch": optional(
            "array",
            [],
            items={"type": "object"},
            maxItems=MAX_BATCH,
            title="Batch",
            description="Several submissions at once: a list of objects like Parameters, instead of it",
        ),
        "dry_run": optional(
            "boolean",
            default=False,
            title="Dry run",
            description="Tell what would be duplicate, merged or admitted, and at which priority; change nothing",
        ),
    },
) as dag:
    CollectSubmitOperator(
        task_id="submit",
        # As text, objects as JSON: rendered natively, a path `123` would be a number.
        source="{{ params.source }}",
        collect_params="{{ (params.params or {}) | tojson }}",
        path="{{ params.path }}",
        priority="{{ params.priority }}",
        emergency="{{ params.emergency }}",
        force="{{ params.force }}",
        deadline="{{ params.deadline }}",
        batch="{{ (params.batch or []) | tojson }}",
        preview="{{ params.dry_run }}",
        submitted_via="dag",
        conf_keys=list(dag.params),
        pool=lane_rules().control.pool,
        priority_weight=100_000,
        weight_rule="absolute",
        # A database or a broker that restarts is back within seconds; what can never be admitted is not tried again.
        retries=5,
        retry_delay=timedelta(seconds=5),
    )
