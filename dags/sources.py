"""One DAG a source: its schedule; admit, wait without a worker slot. And the landing tables as assets.

A table's asset event comes with its rows, whatever the way in: settling writes it, the sweep sends it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset, get_parsing_context

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.catalog import LandingTablesOperator
from collect_ops.operators.forms import source_params
from collect_ops.operators.links import runs_of_source
from collect_ops.operators.machinery import machinery
from collect_ops.operators.submit import CollectSubmitOperator
from collect_ops.sources.asset import table_asset
from collect_ops.sources.load import load_sources
from collect_ops.sources.model import Source

log = logging.getLogger(__name__)

CATALOG = "landing_tables"
#: A run that somebody triggered has no interval, and then the name is not even defined.
INTERVAL = (
    "{{ data_interval_start | string if data_interval_start is defined and data_interval_start else run_id }}"
)


#: When a run is: what its parameters' relative defaults count from, the same at each try.
MOMENT = (
    "{{ (data_interval_end if data_interval_end is defined and data_interval_end else dag_run.run_after) "
    "| string }}"
)


def source_dag(source: Source) -> DAG:
    """The DAG of a source; its form has a field for each of the source's parameters."""
    described = source.description or f"Collects {source.name} into landing.{source.target.table}."
    with DAG(
        dag_id=f"source_{source.name}",
        schedule=source.schedule,
        start_date=pendulum.datetime(2026, 1, 1, tz=source.timezone or "UTC"),
        catchup=False,
        max_active_runs=source.max_active_tasks or 4,
        render_template_as_native_obj=True,
        tags=["collect-ops", "source"],
        doc_md=f"{described}\n\n[Runs of this source]({runs_of_source(source.name)}), whatever the way in.",
        params=source_params(source),
    ) as dag:
        CollectSubmitOperator(
            task_id="collect",
            source=source.name,
            # What is left empty takes the source's default.
            collect_params="{{ dict(params) }}",
            conf_keys=list(source.request.params),
            submitted_via="schedule",
            # A scheduled run is another submission than its neighbours: its data interval counts for dedup.
            identity={"data_interval": INTERVAL},
            as_of=MOMENT,
            wait_for_completion=True,
            pool=lane_rules().control.pool,
            # Safe to repeat: the same run gets the first answer again. A task that ended badly is not tried again here.
            retries=5,
            retry_delay=timedelta(seconds=10),
        )
    return dag


def landing_tables(sources: Iterable[Source]) -> DAG:
    """A DAG that never collects: it makes the landing tables known to Airflow as assets."""
    assets = [table_asset(table) for table in sorted({source.target.table for source in sources})]
    with DAG(
        dag_id=CATALOG,
        schedule=None,
        **machinery(
            "Machinery: landing tables", "Makes the landing tables known as assets; never runs", "source"
        ),
        doc_md="The tables that sources land in, as assets to schedule your own DAGs on. Never runs: a table's event "
        "comes with its rows, whatever the way in.",
    ) as dag:
        LandingTablesOperator(
            task_id="tables",
            outlets=[Asset(name=asset.name, uri=asset.uri) for asset in assets],
            pool=lane_rules().control.pool,
        )
    return dag


wanted = get_parsing_context().dag_id
loaded = load_sources()
for path, fault in loaded.faults.items():
    log.error("source file %s is left out: %s", path.name, fault)
for each in loaded.sources.values():
    if wanted in (None, f"source_{each.name}"):
        globals()[f"source_{each.name}"] = source_dag(each)
if wanted in (None, CATALOG):
    globals()[CATALOG] = landing_tables(loaded.sources.values())
