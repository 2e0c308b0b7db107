"""Dead letters from DAGs and over REST."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from airflow.sdk import BaseOperator, Context

from collect_ops.delivery import redrive
from collect_ops.delivery.dead_letters import DeadLetters
from collect_ops.delivery.dead_model import RedriveProgress, Selection, edit_of, selection_of
from collect_ops.hooks.backends import backends
from collect_ops.hooks.task_runs import TaskRuns
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import CollectOpsError, Fault, ValidationFailed
from collect_ops.lanes.rules import lane_rules
from collect_ops.lanes.waking import wake_waiting
from collect_ops.operators.actor import actor_of
from collect_ops.operators.conf import NOTHING, refuse_unknown, rendered
from collect_ops.operators.refusal import refuse

#: How many letters or groups are told when nobody says how many.
USUAL_LIMIT = 50
#: Seconds for which a task drives a redrive; the sweep goes on with what is left.
DRIVE_S = 40.0
ACTIONS = ("list", "groups", "show", "edit", "redrive", "discard", "take_back", "status", "cancel")


class DeadLettersOperator(BaseOperator):
    """Looks at dead letters, edits, redrives, discards or takes them back.

    Args:
        action: One of `ACTIONS`.
        selection: Which dead letters: fields of `Selection`.
        edit: What to change first, fields of `Edit`: with the actions edit and redrive, of exactly one letter.
        rate_per_s: Of a redrive: letters a second at most; None for no limit.
        redrive_id: The redrive that status and cancel are about.
        reason: Why; needed for what changes something.
        limit: How many list, groups and status give at most.
        conf_keys: The keys that the run's conf may have; None does not look at it.
    """

    template_fields = ("action", "selection", "edit", "rate_per_s", "redrive_id", "reason", "limit")
    ui_color = "#f5d9d9"

    def __init__(
        self,
        *,
        action: str,
        selection: Mapping[str, Any] | str | None = None,
        edit: Mapping[str, Any] | str | None = None,
        rate_per_s: float | str | None = None,
        redrive_id: int | str | None = None,
        reason: str = "",
        limit: int | str | None = USUAL_LIMIT,
        conf_keys: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.action = action
        self.selection = selection
        self.edit = edit
        self.rate_per_s = rate_per_s
        self.redrive_id = redrive_id
        self.reason = reason
        self.limit = limit
        self.conf_keys = None if conf_keys is None else tuple(conf_keys)

    def execute(self, context: Context) -> Any:
        """Returns what was found or done, as JSON.

        Raises:
            AirflowFailException: What was asked for cannot be done: Airflow does not try again.
            CollectOpsError: It could not be done now.
        """
        try:
            if self.conf_keys is not None:
                refuse_unknown(context["dag_run"].conf, self.conf_keys, "dead letters")
            act = self._action()
            done = act(DeadLetters(backends(), lane_rules()), actor_of(context))
        except CollectOpsError as error:
            refuse(context, error)
        result = orjson.loads(orjson.dumps(done, default=str, option=orjson.OPT_NON_STR_KEYS))
        for line in result if isinstance(result, list) else [result]:
            self.log.info("%s", orjson.dumps(line).decode())
        return result

    def _action(self) -> Callable[[DeadLetters, str], Any]:
        if self.action not in ACTIONS:
            fault = Fault(field="action", value=self.action, problem="is not an action", allowed=ACTIONS)
            raise ValidationFailed("dead letters", (fault,))
        act: Callable[[DeadLetters, str], Any] = getattr(self, f"_{self.action}")
        return act

    def _list(self, letters: DeadLetters, _actor: str) -> Any:
        return letters.search(self._selected(), limit=self._most())

    def _groups(self, letters: DeadLetters, _actor: str) -> Any:
        return [asdict(group) for group in letters.groups(self._selected(), limit=self._most())]

    def _show(self, letters: DeadLetters, _actor: str) -> Any:
        return letters.show(self._only_letter())

    def _edit(self, letters: DeadLetters, actor: str) -> Any:
        changes = edit_of(_object("edit", self.edit))
        return asdict(letters.edit(self._only_letter(), changes, actor=actor, reason=self._why()))

    def _redrive(self, letters: DeadLetters, actor: str) -> Any:
        if _object("edit", self.edit):
            self._edit(letters, actor)
        begun = letters.begin_redrive(
            self._selected(), actor=actor, reason=self._why(), rate_per_s=_number(self.rate_per_s)
        )
        own, rules = backends(), lane_rules()
        progress = redrive.drive(
            begun.id,
            own,
            rules,
            actor=actor,
            time_limit_s=DRIVE_S,
            wake=lambda lanes: wake_waiting(lanes, own, rules, TaskRuns()),
        )
        return self._told(progress, own)

    def _discard(self, letters: DeadLetters, actor: str) -> Any:
        return asdict(letters.discard(self._selected(), actor=actor, reason=self._why()))

    def _take_back(self, letters: DeadLetters, actor: str) -> Any:
        return asdict(letters.take_back(self._selected(), actor=actor, reason=self._why()))

    def _status(self, _letters: DeadLetters, _actor: str) -> Any:
        own = backends()
        number = _number(self.redrive_id)
        if number is not None:
            return self._told(redrive.progress_of(int(number), own), own)
        return [asdict(progress) for progress in redrive.list_redrives(own, limit=self._most())]

    def _cancel(self, _letters: DeadLetters, actor: str) -> Any:
        number = _number(self.redrive_id)
        if number is None:
            fault = Fault(field="redrive_id", value=None, problem="must name the redrive")
            raise ValidationFailed("dead letters", (fault,))
        own = backends()
        return self._told(redrive.cancel(int(number), own, actor=actor), own)

    def _told(self, progress: RedriveProgress, own: Backends) -> dict[str, Any]:
        skipped = redrive.skipped_items(progress.id, own, limit=self._most())
        return {**asdict(progress), "message": progress.sentence(), "skipped_letters": skipped}

    def _most(self) -> int:
        return USUAL_LIMIT if self.limit in NOTHING else int(self.limit or USUAL_LIMIT)

    def _selected(self) -> Selection:
        return selection_of(_object("selection", self.selection))

    def _why(self) -> str:
        return str(rendered(self.reason) or "")

    def _only_letter(self) -> int:
        ids = self._selected().ids or ()
        if len(ids) != 1:
            fault = Fault(
                field="ids", value=list(ids), problem=f"must name one dead letter to {self.action} it"
            )
            raise ValidationFailed("dead letters", (fault,))
        return ids[0]


def _object(field: str, value: object) -> dict[str, Any]:
    """A JSON object without what was left empty; without native rendering a template gives it as text."""
    try:
        found = orjson.loads(value) if isinstance(value, str) and value.strip() not in ("", "None") else value
    except orjson.JSONDecodeError as error:
        fault = Fault(field=field, value=value, problem=f"must be a JSON object: {error}")
        raise ValidationFailed("dead letters", (fault,)) from error
    if found in (None, "", "None"):
        return {}
    if not isinstance(found, Mapping):
        fault = Fault(field=field, value=value, problem="must be a JSON object")
        raise ValidationFailed("dead letters", (fault,))
    return {str(name): item for name, item in found.items() if item not in (None, "None")}


def _number(value: object) -> float | None:
    try:
        return None if value in (None, "", "None") else float(str(value))
    except ValueError as error:
        fault = Fault(field="rate_per_s", value=value, problem="must be a number")
        raise ValidationFailed("dead letters", (fault,)) from error
