"""Retention: once a day, or by a form with a dry run (docs/operations.md)."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.forms import optional
from collect_ops.operators.machinery import machinery
from collect_ops.operators.retention import RetentionOperator

with DAG(
    dag_id="retention",
    schedule="17 3 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    render_template_as_native_obj=True,
    dagrun_timeout=timedelta(hours=25),
    **machinery("Machinery: retention", "Deletes what has ended and is not kept any longer", "maintenance"),
    doc_md="Deletes what has ended and is not kept any longer, as include/rules/retention.yaml says. What is open "
    "stays, and so does what something open refers to; rows that landed are never touched. XCom of `delete` has the "
    "counts.",
    params={
        "dry_run": optional(
            "boolean",
            default=False,
            title="Dry run",
            description="Counts what would be deleted; deletes nothing",
        ),
        "time_limit_s": optional(
            "number",
            minimum=1,
            maximum=86_400,
            title="Time limit",
            description="Seconds; the next run goes on. Empty: as the rules say",
        ),
    },
) as dag:
    RetentionOperator(
        task_id="delete",
        count_only="{{ params.dry_run }}",
        time_limit_s="{{ params.time_limit_s }}",
        conf_keys=list(dag.params),
        pool=lane_rules().control.pool,
        # Nobody waits for it: whatever else waits in the pool goes first.
        priority_weight=1,
        weight_rule="absolute",
        retries=0,
    )
