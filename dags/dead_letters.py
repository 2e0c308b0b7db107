"""Dead letters: a form in the UI, validated `conf` over REST (docs/operations.md)."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.dead_letters import ACTIONS, USUAL_LIMIT, DeadLettersOperator
from collect_ops.operators.forms import choice, optional, source_filter

_STATES = ["OPEN", "REDRIVEN", "SETTLED", "FAILED", "DISCARDED"]
# As JSON: what is a text stays one, also when it reads like a number.
_SELECTED = (
    "{{ dict(ids=params.ids, fingerprint=params.fingerprint, source=params.source, task_id=params.task_id, "
    "text=params.text, since=params.since, until=params.until, state=params.state, "
    "redrive_id=none if params.action in ('status', 'cancel') else params.redrive_id) | tojson }}"
)

with DAG(
    dag_id="dead_letters",
    schedule=None,
    catchup=False,
    max_active_runs=8,
    is_paused_upon_creation=False,
    tags=["collect-ops", "dead letters"],
    doc_md="Lists, groups, edits, redrives, discards dead letters. XCom of `act` has what was found or done.",
    params={
        "action": Param(
            "groups",
            type="string",
            enum=list(ACTIONS),
            title="Action",
            description="groups: the same fault in a line; redrive: send again; take_back: undo what was not claimed",
        ),
        "ids": optional(
            "array",
            [],
            items={"type": "integer", "minimum": 1},
            title="Dead letters",
            description="Their numbers, as a JSON list; empty: those that the fields below choose",
        ),
        "fingerprint": optional("string", pattern="^[0-9a-f]{16}$", title="Group", description="See groups"),
        "source": source_filter(),
        "task_id": optional("integer", minimum=1, title="Collect task"),
        "text": optional("string", title="Text", description="In the error, or in a message's body"),
        "since": optional("string", format="date-time", title="Failed since"),
        "until": optional("string", format="date-time", title="Failed before"),
        "state": choice(
            *_STATES,
            empty="those that the action is for",
            title="State",
            description="Empty: open ones; with take_back those that were redriven or discarded",
        ),
        "edit": optional(
            "object",
            {},
            title="Edit",
            description='Before a redrive of one letter: {"params": {}, "path": "", "priority": 5, "redeclare": true}; '
            "of a message without a task: body, exchange, routing_key",
        ),
        "rate_per_s": optional(
            "number",
            exclusiveMinimum=0,
            title="Rate",
            description="Letters a second at most",
        ),
        "redrive_id": optional(
            "integer",
            minimum=1,
            title="Redrive",
            description="For status and cancel; with the others: letters that are part of it",
        ),
        # Null, not "": the form takes an empty text for a missing one, and lets nobody trigger.
        "reason": optional("string", title="Reason", description="Needed for all that changes something"),
        "limit": optional(
            "integer", USUAL_LIMIT, minimum=1, maximum=1000, title="Limit", description="Lines at most"
        ),
    },
) as dag:
    DeadLettersOperator(
        task_id="act",
        action="{{ params.action }}",
        selection=_SELECTED,
        edit="{{ params.edit | tojson }}",
        rate_per_s="{{ params.rate_per_s }}",
        redrive_id="{{ params.redrive_id }}",
        reason="{{ params.reason }}",
        limit="{{ params.limit }}",
        conf_keys=list(dag.params),
        pool=lane_rules().control.pool,
        priority_weight=100_000,
        weight_rule="absolute",
        # What an action changed stays changed, and the sweep goes on with a redrive.
        retries=0,
    )
