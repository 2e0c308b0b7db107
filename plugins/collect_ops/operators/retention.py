"""Retention as an Airflow task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.configuration import conf

from collect_ops.hooks.backends import backends
from collect_ops.kernel.errors import CollectOpsError
from collect_ops.operators.conf import as_bool, refuse_unknown, rendered
from collect_ops.operators.refusal import refuse


class RetentionOperator(BaseOperator):
    """Deletes what has ended and is not kept any longer, as `include/rules/retention.yaml` says; old logs here, too.

    Args:
        count_only: Delete nothing: a dry run. (`dry_run` is a method of every operator.)
        time_limit_s: Seconds that the pass may take; None as the rules say.
        conf_keys: The keys that the run's conf may have; None does not look at it.
    """

    template_fields = ("count_only", "time_limit_s")
    ui_color = "#e5e5e5"

    def __init__(
        self,
        *,
        count_only: bool | str = False,
        time_limit_s: float | str | None = None,
        conf_keys: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.count_only = count_only
        self.time_limit_s = time_limit_s
        self.conf_keys = None if conf_keys is None else tuple(conf_keys)

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns `{"dry_run", "complete", "deleted", "kept", "seconds", "logs"}`: rows by kind, tasks by the reason.

        Raises:
            AirflowFailException: The rules, or what was asked for, have faults.
            CollectOpsError: It could not be done now.
        """
        from collect_ops.maintenance.airflow_records import delete_logs
        from collect_ops.maintenance.retention import run_once
        from collect_ops.maintenance.retention_rules import retention_rules

        try:
            if self.conf_keys is not None:
                refuse_unknown(context["dag_run"].conf, self.conf_keys, "retention")
            limit_s = rendered(self.time_limit_s)
            rules = retention_rules().within(None if limit_s is None else float(limit_s))
            done = run_once(backends(), rules, dry_run=as_bool("dry_run", rendered(self.count_only) or False))
        except CollectOpsError as error:
            refuse(context, error)
        logs = delete_logs(
            Path(conf.get("logging", "base_log_folder")), rules.airflow.logs, dry_run=done.dry_run
        )
        for line in done.lines():
            self.log.info("%s", line)
        if logs.failed:
            self.log.warning("%s log files could not be deleted: %s", logs.failed, "; ".join(logs.failures))
        return {**done.as_json(), "logs": logs.as_json()}
