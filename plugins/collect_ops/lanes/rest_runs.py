"""Airflow's runs over its REST API: for whoever is not inside an Airflow task, and for what tasks may not ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from collect_ops.lanes.runs import RunState, RunsUnavailable
from collect_ops.orchestrator.client import AirflowClient
from collect_ops.orchestrator.errors import AirflowRefused

__all__ = ["AirflowRefused", "RestRuns"]

_ENDED = frozenset({"success", "failed"})
#: States of a task instance that no executor has been given yet.
_NOT_SENT = frozenset({None, "scheduled", "deferred", "removed", "upstream_failed"})
#: The mapped task of collect DAGs.
GROUP_TASK_ID = "collect"


class RestRuns(AirflowClient):
    """`Runs` over Airflow's REST API, and what else people do to DAGs, pools and connections."""

    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """See `Runs.start`."""
        body = {"dag_run_id": run_id, "conf": conf, "logical_date": None}
        answer = self.request("POST", f"/dags/{quote(dag_id)}/dagRuns", body)
        if not answer.is_success and answer.status_code != httpx.codes.CONFLICT:
            raise RunsUnavailable(
                f"Airflow did not start {dag_id} {run_id}: {answer.status_code} {self.detail(answer)}"
            )

    def state(self, dag_id: str, run_id: str) -> RunState:
        """See `Runs.state`."""
        answer = self.request("GET", f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return RunState.MISSING
        if not answer.is_success:
            raise RunsUnavailable(
                f"Airflow did not tell {run_id}'s state: {answer.status_code} {self.detail(answer)}"
            )
        state = self.content_of(answer, f"show run {run_id}", lambda run: str(run["state"]))
        return RunState.ENDED if state in _ENDED else RunState.ACTIVE

    def group_states(self, dag_id: str, run_id: str) -> Mapping[int, str]:
        """See `Runs.group_states`."""
        path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances"
        answer = self.request("GET", f"{path}?task_id={GROUP_TASK_ID}&limit=1000")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        if not answer.is_success:
            raise RunsUnavailable(
                f"Airflow did not tell the groups of {run_id}: {answer.status_code} {self.detail(answer)}"
            )
        return self.content_of(
            answer,
            f"show the groups of {run_id}",
            lambda found: {
                int(each["map_index"]): str(each["state"])
                for each in found["task_instances"]
                if each["state"] not in _NOT_SENT
            },
        )

    def end(self, dag_id: str, run_id: str) -> None:
        """See `Runs.end`."""
        path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
        answer = self.request("PATCH", path, {"state": "failed"})
        if not answer.is_success and answer.status_code != httpx.codes.NOT_FOUND:
            raise RunsUnavailable(f"Airflow did not end {run_id}: {answer.status_code} {self.detail(answer)}")

    def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Pause or resume a DAG.

        Raises:
            AirflowRefused: It does not exist, or the user may not.
            RunsUnavailable: Airflow did not answer.
        """
        action = f"{'pause' if paused else 'resume'} DAG {dag_id}"
        self.demand("PATCH", f"/dags/{quote(dag_id, safe='')}", {"is_paused": paused}, action=action)

    def set_slots(self, pool: str, slots: int) -> None:
        """Give a pool so many slots; see `collect_ops.lanes.pools.Pools`.

        Raises:
            AirflowRefused: It does not exist, or the user may not.
            RunsUnavailable: Airflow did not answer.
        """
        body = {"pool": pool, "slots": slots, "include_deferred": False}
        self.demand("PATCH", f"/pools/{quote(pool, safe='')}", body, action=f"give pool {pool} {slots} slots")

    def connection(self, connection_id: str) -> Mapping[str, Any]:
        """A connection in the fields of Airflow's JSON form, less its password, which Airflow does not tell.

        Raises:
            AirflowRefused: It does not exist, or the user may not.
            RunsUnavailable: Airflow did not answer.
        """
        path = f"/connections/{quote(connection_id, safe='')}"
        action = f"show connection {connection_id}"
        names = ("conn_type", "host", "schema", "port", "login", "password", "extra")
        answer = self.demand("GET", path, action=action)
        return self.content_of(answer, action, lambda found: {name: found.get(name) for name in names})

    def save_connection(self, connection_id: str, fields: Mapping[str, Any], *, replace: bool) -> bool:
        """Define a connection; False when there is one of this id that was not to be replaced.

        Args:
            connection_id: Its id.
            fields: Those of Airflow's JSON form, `extra` as a mapping, and `description`.
            replace: Whether one of this id is replaced, its secret included.

        Raises:
            AirflowRefused: The user may not, or Airflow takes it for unfit; its secret is not in the message.
            RunsUnavailable: Airflow did not answer.
        """
        extra = fields.get("extra")
        body = {
            **fields,
            "connection_id": connection_id,
            "extra": orjson.dumps(extra).decode() if extra else None,
        }
        answer = self.request("POST", "/connections", body)
        if answer.status_code == httpx.codes.CONFLICT:
            if not replace:
                return False
            answer = self.request("PATCH", f"/connections/{quote(connection_id, safe='')}", body)
        if not answer.is_success:
            secrets = _texts([fields.get("password"), extra])
            raise self.refusal(f"save connection {connection_id}", answer, secrets=secrets)
        return True

    def paused(self, dag_ids: Sequence[str]) -> Mapping[str, bool]:
        """Which of some DAGs are paused; those that Airflow does not know are left out.

        Raises:
            AirflowRefused: The user may not.
            RunsUnavailable: Airflow did not answer.
        """
        found: dict[str, bool] = {}
        for dag_id in dag_ids:
            answer = self.request("GET", f"/dags/{quote(dag_id, safe='')}")
            if answer.status_code == httpx.codes.NOT_FOUND:
                continue
            action = f"show DAG {dag_id}"
            if not answer.is_success:
                raise self.refusal(action, answer)
            found[dag_id] = self.content_of(answer, action, lambda dag: bool(dag["is_paused"]))
        return found


def _texts(value: object) -> Iterator[str]:
    """The texts and numbers within a value."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
