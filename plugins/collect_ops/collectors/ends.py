"""Whether an answer says that there are no more rows. Pure.

A status says so only where the source declares it, or where a total confirms it: the same status means elsewhere that a
path is wrong or a cursor has expired.
"""

from __future__ import annotations

from typing import Final

from collect_ops.collectors import json_body
from collect_ops.collectors.answer import Answer, says_more
from collect_ops.collectors.conditions import body_expressions, first_met, named_statuses
from collect_ops.collectors.errors import ExpressionFailed
from collect_ops.collectors.page import Json
from collect_ops.sources.expressions import ExpressionFails
from collect_ops.sources.model import Source

#: Statuses by which servers answer a page behind the last one, and a cursor that they do not know any more.
NOTHING_THERE: Final = frozenset({400, 404, 409, 410, 412, 416, 422})


class Ends:
    """What a source says the end by.

    Args:
        source: Its `end`.

    Attributes:
        by_header: Whether a header may say it.
    """

    def __init__(self, source: Source) -> None:
        self._conditions = source.end
        self._max_depth = source.limits.max_depth
        self._statuses = named_statuses(source.end)
        self.by_header = any(condition.headers for condition in source.end)

    def may_be(self, answer: Answer) -> bool:
        """Whether the status of a refusal can have anything to do with the end."""
        return answer.status in NOTHING_THERE or answer.status in self._statuses

    def refuses(self, answer: Answer) -> bool:
        """Whether a refusal is declared to mean that there are no more rows.

        Raises:
            ExpressionFailed: A condition cannot be applied to its body.
        """
        if answer.status not in self._statuses:
            return False
        try:
            document = json_body.parse(answer.body, max_depth=self._max_depth)
        except (json_body.Unreadable, json_body.Truncated, json_body.TooDeep):
            document = None  # most refusals are for people; a condition on the body is not met then
        return self._meets(answer, document)

    def closes(self, answer: Answer, document: Json) -> bool:
        """Whether a page says that it is the last one.

        Raises:
            ExpressionFailed: A condition cannot be applied to its body.
        """
        return says_more(document) is False or self._meets(answer, document)

    def _meets(self, answer: Answer, document: Json) -> bool:
        try:
            met = first_met(self._conditions, status=answer.status, headers=answer.headers, document=document)
        except ExpressionFails as error:
            expressions = " ; ".join(body_expressions(self._conditions))
            raise ExpressionFailed(answer.shown, "end", expressions, str(error)) from error
        return met is not None
