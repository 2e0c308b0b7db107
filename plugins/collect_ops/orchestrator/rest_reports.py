"""Reporting to Airflow over its REST API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from collect_ops.orchestrator.client import AirflowClient
from collect_ops.orchestrator.errors import AirflowRefused
from collect_ops.orchestrator.port import KnownRun, RunOutcome

_OUTCOMES = {"success": RunOutcome.SUCCESS, "failed": RunOutcome.FAILED}
_PAGE = 100


class RestReports(AirflowClient):
    """`Reports` over REST."""

    def look(self, dag_id: str, run_id: str) -> KnownRun:
        """See `RunReports.look`."""
        answer = self.request("GET", _run_path(dag_id, run_id))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return KnownRun(outcome=RunOutcome.MISSING)
        action = f"show run {run_id}"
        if not answer.is_success:
            raise self.refusal(action, answer)
        return self.content_of(
            answer,
            action,
            lambda run: KnownRun(
                outcome=_OUTCOMES.get(run["state"], RunOutcome.ACTIVE), note=run.get("note") or ""
            ),
        )

    def write_note(self, dag_id: str, run_id: str, note: str) -> None:
        """See `RunReports.write_note`."""
        self.demand("PATCH", _run_path(dag_id, run_id), {"note": note}, action=f"write the note of {run_id}")

    def fail(self, dag_id: str, run_id: str, note: str) -> None:
        """See `RunReports.fail`."""
        body = {"state": "failed", "note": note}
        self.demand("PATCH", _run_path(dag_id, run_id), body, action=f"set run {run_id} failed")

    def report_change(self, name: str, uri: str, extra: Mapping[str, Any]) -> bool:
        """See `AssetReports.report_change`."""
        asset_id = self._asset_id(name, uri)
        if asset_id is None:
            return False
        body = {"asset_id": asset_id, "extra": dict(extra)}
        answer = self.request("POST", "/assets/events", body)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        if not answer.is_success:
            raise self.refusal(f"take an event of {name}", answer)
        return True

    def newest_scheduled(self, dag_id: str) -> frozenset[str]:
        """See `RunArchive.newest_scheduled`: by logical date, as Airflow's dag-processor finds it."""
        asked = {"run_type": "scheduled", "order_by": "-logical_date", "limit": 1}
        return frozenset(self._run_ids(dag_id, asked))

    def ended_well(self, dag_id: str, before: datetime, *, limit: int, offset: int = 0) -> list[str]:
        """See `RunArchive.ended_well`."""
        asked = {
            "state": "success",
            "end_date_lte": before.isoformat(),
            "order_by": "end_date",
            "limit": limit,
            "offset": offset,
        }
        return self._run_ids(dag_id, asked)

    def delete_runs(self, dag_id: str, run_ids: Sequence[str], *, limit_s: float) -> int:
        """See `RunArchive.delete_runs`: one call for all of them."""
        deletion = {"action": "delete", "entities": list(run_ids), "action_on_non_existence": "skip"}
        action = f"delete runs of {dag_id}"
        path = f"/dags/{quote(dag_id, safe='')}/dagRuns"
        with self.each_within(limit_s):
            answer = self.demand("PATCH", path, {"actions": [deletion]}, action=action)

        def read(content: Any) -> tuple[int, list[tuple[int, str]]]:
            deleted = content["delete"]
            refusals = [
                (int(each.get("status_code", 0)), self.quote(str(each.get("error"))))
                for each in deleted["errors"]
            ]
            return len(deleted["success"]), refusals

        runs, refusals = self.content_of(answer, action, read)
        if refusals:
            raise AirflowRefused(action, *refusals[0])
        return runs

    def _run_ids(self, dag_id: str, asked: Mapping[str, object]) -> list[str]:
        path = f"/dags/{quote(dag_id, safe='')}/dagRuns?{urlencode(asked)}"
        answer = self.request("GET", path)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return []
        action = f"list runs of {dag_id}"
        if not answer.is_success:
            raise self.refusal(action, answer)
        return self.content_of(
            answer, action, lambda found: [str(each["dag_run_id"]) for each in found["dag_runs"]]
        )

    def _asset_id(self, name: str, uri: str) -> int | None:
        """An active asset's number. Patterns match parts of names: what comes back is compared as a whole."""
        action, offset = f"find the asset {name}", 0
        while True:
            asked = urlencode({"name_pattern": name, "limit": _PAGE, "offset": offset, "order_by": "id"})
            answer = self.demand("GET", f"/assets?{asked}", action=action)
            assets = self.content_of(
                answer,
                action,
                lambda found: [(int(each["id"]), each["name"], each["uri"]) for each in found["assets"]],
            )
            for asset_id, *known in assets:
                if known == [name, uri]:
                    return asset_id
            if len(assets) < _PAGE:
                return None
            offset += _PAGE


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"
