"""The landing tables as assets that Airflow knows, though no task of Airflow's has them as its outlet."""

from __future__ import annotations

from typing import NoReturn

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException


class LandingTablesOperator(BaseOperator):
    """Its outlets are the landing tables. Never succeeds, since that would say that they have new rows.

    Airflow keeps an asset active as long as a DAG refers to it, and takes events for active ones only.
    """

    ui_color = "#f0f0f0"

    def execute(self, context: Context) -> NoReturn:
        """Skipped: settling says which tables have new rows.

        Raises:
            AirflowSkipException: Always.
        """
        raise AirflowSkipException(
            "nothing to run: a table's event comes with its rows; to collect some, trigger the DAG source_NAME"
        )
