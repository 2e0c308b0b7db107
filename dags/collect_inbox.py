"""The AMQP inbox: admits what any producer publishes to the exchange collect.inbox (docs/inbox.md).

Woken by the queue's watcher and by the sweep, one run at a time; a run ends within seconds.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, AssetWatcher

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.inbox import AdmitInboxOperator
from collect_ops.operators.machinery import machinery
from collect_ops.triggers.inbox import InboxTrigger

INBOX = Asset(
    name="collect.inbox",
    uri="collect://inbox",
    watchers=[AssetWatcher(name="queue_inbox", trigger=InboxTrigger())],
)

with DAG(
    dag_id="collect_inbox",
    schedule=[INBOX],
    dagrun_timeout=timedelta(minutes=3),
    **machinery("Machinery: inbox", "Admits submissions that producers publish over AMQP", "submit"),
    doc_md="Admits submissions that producers publish to the exchange `collect.inbox`, and answers to `reply_to`.",
):
    AdmitInboxOperator(
        task_id="admit",
        pool=lane_rules().control.pool,
        priority_weight=100_000,
        weight_rule="absolute",
        retries=0,
    )
