"""Links from Airflow's pages to what belongs together."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf


def runs_of_source(source: str) -> str:
    """The page of all runs that are about a source: submissions, and the collect runs of its tasks.

    Their conf names it. A path, below the one that Airflow itself is served under.
    """
    root = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    return f"{root}/dag_runs?conf_contains={quote(json.dumps(source))}"


class SourceRunsLink(BaseOperatorLink):
    """From a submitting task to the runs of its source."""

    name = "Runs of this source"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The link of a task instance."""
        return runs_of_source(operator.source)
