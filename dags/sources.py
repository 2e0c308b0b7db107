"""One DAG a source: its schedule; admit, wait without a worker slot, emit the source's Asset."""

from __future__ import annotations

import logging
from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset, get_parsing_context

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.submit import CollectSubmitOperator
from collect_ops.sources.load import load_sources
from collect_ops.sources.model import Source

log = logging.getLogger(__name__)

#: A run that somebody triggered has no interval, and then the name is not even defined.
INTERVAL = (
    "{{ data_interval_start | string if data_interval_start is defined and data_interval_start else run_id }}"
)


def source_dag(source: Source) -> DAG:
    """The DAG of a source."""
    landed = Asset(name=f"landing.{source.target.table}", uri=f"collect://landing/{source.target.table}")
    with DAG(
        dag_id=f"source_{source.name}",
        schedule=source.schedule,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        catchup=False,
        max_active_runs=source.max_active_tasks or 4,
        render_template_as_native_obj=True,
        tags=["collect-ops", "source"],
        # Airflow opens what ends like the name of a Markdown file.
        doc_md=f"{source.description or f'Collects {source.name} into landing.{source.target.table}.'}\n",
    ) as dag:
        CollectSubmitOperator(
            task_id="collect",
            source=source.name,
            submitted_via="schedule",
            # A scheduled run is another submission than its neighbours: its data interval counts for dedup.
            identity={"data_interval": INTERVAL},
            wait_for_completion=True,
            outlets=[landed],
            pool=lane_rules().control.pool,
            # Safe to repeat: the same run gets the first answer again. A task that ended badly is not tried again here.
            retries=5,
            retry_delay=timedelta(seconds=10),
        )
    return dag


wanted = get_parsing_context().dag_id
loaded = load_sources()
for path, fault in loaded.faults.items():
    log.error("source file %s is left out: %s", path.name, fault)
for each in loaded.sources.values():
    if wanted in (None, f"source_{each.name}"):
        globals()[f"source_{each.name}"] = source_dag(each)
