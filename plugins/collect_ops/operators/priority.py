"""Changing what waits, and cancelling, from DAGs and over REST."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import BaseOperator, Context

from collect_ops.delivery import intervene, priorities
from collect_ops.delivery.intervene import Intervened
from collect_ops.delivery.selection import Selection, find, selection_of
from collect_ops.hooks.backends import backends
from collect_ops.hooks.task_runs import TaskRuns
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import CollectOpsError, Fault, ValidationFailed
from collect_ops.lanes.rules import lane_rules
from collect_ops.lanes.waking import wake_waiting
from collect_ops.operators.actor import actor_of
from collect_ops.operators.conf import as_object, refuse_unknown, rendered
from collect_ops.operators.refusal import refuse

ACTIONS = ("adjust", "promote", "cancel")
#: Task ids in the result at most, a kind: it goes to XCom.
MOST_NAMED = 1000


class CollectPriorityOperator(BaseOperator):
    """Gives waiting tasks another priority, makes them emergencies, or cancels tasks.

    Example::

        CollectPriorityOperator(
            task_id="hurry", action="promote", selection={"source": "flights"}, reason="the board meets at ten"
        )

    Args:
        action: One of `ACTIONS`.
        selection: Which tasks: fields of `collect_ops.delivery.selection.Selection`, such as `ids` or `source`.
        priority: 0-10, of adjust.
        reason: Why, for the task log.
        conf_keys: The keys that the run's conf may have; None does not look at it.
    """

    template_fields = ("action", "selection", "priority", "reason")
    ui_color = "#e8e0f5"

    def __init__(
        self,
        *,
        action: str,
        selection: Mapping[str, Any] | str,
        priority: int | None = None,
        reason: str = "",
        conf_keys: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.action = action
        self.selection = selection
        self.priority = priority
        self.reason = reason
        self.conf_keys = None if conf_keys is None else tuple(conf_keys)

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns `{"moved", "left", "withdrawn", "landed"}`: numbers of tasks, and the tasks themselves in `tasks`.

        Raises:
            AirflowFailException: What was asked for cannot be done: Airflow does not try again.
            CollectOpsError: It could not be done now.
        """
        own = backends()
        try:
            if self.conf_keys is not None:
                refuse_unknown(context["dag_run"].conf, self.conf_keys, "priority")
            done = self._act(selection_of(as_object("selection", self.selection)), own, actor_of(context))
        except CollectOpsError as error:
            refuse(context, error)
        wake_waiting(done.lanes, own, lane_rules(), TaskRuns())
        self.log.info("%s: %d tasks, %d left as they are", self.action, len(done.moved), len(done.left))
        return {
            "moved": len(done.moved),
            "left": len(done.left),
            "withdrawn": len(done.withdrawn),
            "landed": sum(done.landed.values()),
            "tasks": {"moved": list(done.moved[:MOST_NAMED]), "left": list(done.left[:MOST_NAMED])},
        }

    def _act(self, selection: Selection, own: Backends, actor: str) -> Intervened:
        named = {"actor": actor, "reason": rendered(self.reason) or f"{self.action} by {actor}"}
        if self.action == "adjust":
            return priorities.batch_adjust(selection, rendered(self.priority), own, lane_rules(), **named)
        ids = find(selection, own)
        if self.action == "promote":
            return priorities.emergency_promote(ids, own, lane_rules(), **named)
        if self.action == "cancel":
            return intervene.cancel(ids, own, lane_rules(), **named)
        fault = Fault(field="action", value=self.action, problem="is not known", allowed=ACTIONS)
        raise ValidationFailed("priority", (fault,))
