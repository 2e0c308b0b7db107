"""The AMQP inbox: submissions that any producer publishes, admitted in blocks.

Messages are acked after their admission is committed and their sender is told. A message that comes again is answered
the same, by its request id. What is not admitted is told to its sender, or lies in the dead-letter queue with the
reason; nothing that one message holds stops the others.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pydantic

from collect_ops.admission.inbox_message import answered, decode, producer, readable, refused, submission_of
from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.service import AdmissionService, Answer
from collect_ops.broker.connection import BrokerRefused, BrokerUnavailable
from collect_ops.broker.consumer import Consumer, Delivery, QueueMissing
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import Runs, start_once
from collect_ops.sources.load import get_source
from collect_ops.sources.model import Source
from collect_ops.storage import errors

log = logging.getLogger(__name__)

INBOX_DAG_ID = "collect_inbox"
#: The inbox among the wake-up marks, beside the lanes.
WAKE_NAME = "inbox"
#: Messages of one transaction.
BLOCK = 500
#: Messages prefetched at once, and bytes of a block: a block of large messages must not fill the memory.
PREFETCH = 100
BLOCK_BYTES = 16 * 1024 * 1024
#: Seconds after which no further block is begun.
TIME_LIMIT_S = 5.0
#: Messages that wait for a transient refusal to pass, in one run; the blocks behind them are still taken.
WAITING_MAX = 5_000
#: Seconds that replies may take beyond their first attempt.
REPLY_LIMIT_S = 10.0
#: RabbitMQ's direct reply-to: no queue, so that a mandatory reply is delivered and comes back as unroutable.
_DIRECT_REPLY = "amq.rabbitmq.reply-to."


class AdmissionBroke(CollectOpsError, Permanent):
    """Admission failed at one submission in a way that nobody foresaw."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"admission failed at this message: {type(error).__name__}: {error}")


@dataclass(slots=True, kw_only=True)
class InboxRun:
    """What a run did, in messages.

    Args:
        admitted: Became tasks, the merged ones included.
        merged: Of those, merged into another task.
        duplicates: Have a task that was there before.
        repeated: Had been answered before, and were again.
        refused: Are submissions that admission refused.
        malformed: Are none.
        dead: Went to the dead-letter queue.
        replied: Were answered to their sender's queue.
        unanswered: Asked for a reply that no queue took.
        left: Are in the inbox again.
        more: There is more to do now.
    """

    admitted: int = 0
    merged: int = 0
    duplicates: int = 0
    repeated: int = 0
    refused: int = 0
    malformed: int = 0
    dead: int = 0
    replied: int = 0
    unanswered: int = 0
    left: int = 0
    more: bool = False

    def as_counts(self) -> dict[str, Any]:
        """As JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """A message and what became of it; `broken`: it is to be looked at, whoever hears of it."""

    delivery: Delivery
    answer: Answer
    broken: bool = False


def run_once(
    backends: Backends,
    rules: LaneRules,
    runs: Runs | None,
    *,
    sources: Callable[[str], Source] = get_source,
    time_limit_s: float = TIME_LIMIT_S,
) -> InboxRun:
    """Admit what is in the inbox, until it is empty or the time is up. Two of these do not disturb each other.

    Args:
        backends: Where the services are.
        rules: Lane rules.
        runs: Where lanes are woken; None leaves that to watchers and the sweep.
        sources: How a source is found by name.
        time_limit_s: Seconds after which no further block is begun.

    Raises:
        QueueMissing: The inbox is not declared.
        BrokerUnavailable: RabbitMQ went away; what was not acked comes again.
        DatabaseUnavailable: PostgreSQL did; likewise.
    """
    wakeups = Wakeups(backends.redis_url)
    wakeups.clear(WAKE_NAME)
    service = AdmissionService(backends, rules, runs, sources=sources)
    with Consumer(backends.amqp_url) as consumer, Publisher(backends.amqp_url) as publisher:
        run = _Run(rules, service, consumer, publisher)
        try:
            run.work(time.monotonic() + time_limit_s)
        except BaseException:
            wakeups.begin(WAKE_NAME)  # not again at once: the cause has to pass first
            raise
    if run.done.left:
        wakeups.begin(WAKE_NAME)
    log.info("inbox: %s", ", ".join(f"{name} {count}" for name, count in run.done.as_counts().items()))
    return run.done


def wake_inbox(backends: Backends, rules: LaneRules, runs: Runs) -> bool:
    """Start a run of the inbox's DAG when there are messages and none was started just now.

    What goes wrong here is logged and left to the queue's watcher and the next sweep: the work is in the broker.
    """
    try:
        with Consumer(backends.amqp_url) as consumer:
            waiting = consumer.depth(rules.broker.inbox) > 0
    except (BrokerUnavailable, BrokerRefused, QueueMissing) as error:
        log.warning("inbox not looked at, the next sweep will: %s", error)
        return False
    return waiting and start_once(WAKE_NAME, INBOX_DAG_ID, runs, Wakeups(backends.redis_url))


class _Run:
    """One run: blocks are taken, admitted, answered and acked one after the other."""

    def __init__(
        self, rules: LaneRules, service: AdmissionService, consumer: Consumer, publisher: Publisher
    ) -> None:
        self._rules = rules
        self._service = service
        self._consumer = consumer
        self._publisher = publisher
        # A producer must not make us write into queues that are ours: what it cannot publish to, we could.
        self._own_queues = {queue.name for queue in rules.topology().queues}
        self._waiting: list[int] = []
        self.done = InboxRun()

    def work(self, until: float) -> None:
        """Until the inbox is empty or `until` (of the monotonic clock) is past."""
        while len(self._waiting) < WAITING_MAX:
            block = self._take()
            if not block:
                break
            # Heartbeats: a batch may wait a minute for a lock.
            with self._consumer.kept_alive():
                outcomes = self._admitted(block)
                settled = self._told(outcomes)
            self._consumer.ack(settled)
            kept = {outcome.delivery.tag for outcome in outcomes}.difference(settled)
            self._waiting += sorted(kept)
            if time.monotonic() > until:
                self.done.more = self._consumer.depth(self._rules.broker.inbox) > 0
                break
        # Only now: given back at once they would be the head of the queue again, and all that we ever see.
        self._consumer.give_back(self._waiting)
        self.done.left = len(self._waiting)

    def _take(self) -> list[Delivery]:
        block: list[Delivery] = []
        while len(block) < BLOCK and sum(len(each.body) for each in block) < BLOCK_BYTES:
            taken = self._consumer.take(self._rules.broker.inbox, min(PREFETCH, BLOCK - len(block)))
            if not taken:
                break
            block += taken
        return block

    def _admitted(self, block: Sequence[Delivery]) -> list[_Answered]:
        outcomes: list[_Answered] = []
        read: list[tuple[Delivery, Submission]] = []
        for delivery in block:
            try:
                read.append((delivery, _read(delivery)))
            except CollectOpsError as error:
                self.done.malformed += 1
                outcomes.append(_Answered(delivery=delivery, answer=error, broken=True))
        answers = _admit(self._service, [submission for _, submission in read])
        for (delivery, _), answer in zip(read, answers, strict=True):
            self._count(answer)
            broken = isinstance(answer, AdmissionBroke)
            outcomes.append(_Answered(delivery=delivery, answer=answer, broken=broken))
        return outcomes

    def _count(self, answer: Answer) -> None:
        if isinstance(answer, CollectOpsError):
            self.done.refused += not isinstance(answer, Transient)
        elif answer.known:
            self.done.repeated += 1
        elif answer.duplicate_of is not None:
            self.done.duplicates += 1
        else:
            self.done.admitted += 1
            self.done.merged += answer.merged_into is not None

    def _told(self, outcomes: Sequence[_Answered]) -> list[int]:
        """Answer senders, bring the rest to the dead-letter queue; returns the tags of what is settled by that."""
        final = [outcome for outcome in outcomes if not isinstance(outcome.answer, Transient)]
        asking = [outcome for outcome in final if self._reply_queue(outcome.delivery)]
        replied = self._reply([_reply(outcome) for outcome in asking])
        heard = {asking[index].delivery.tag for index in replied}
        self.done.replied += len(heard)
        self.done.unanswered += len(asking) - len(heard)
        dead = [
            outcome
            for outcome in final
            if outcome.broken or (outcome.delivery.tag not in heard and not _is_admitted(outcome))
        ]
        confirmed = self._publisher.publish([_dead(outcome, self._rules) for outcome in dead]).confirmed
        self.done.dead += len(confirmed)
        unsettled = {each.delivery.tag for index, each in enumerate(dead) if index not in confirmed}
        return [each.delivery.tag for each in final if each.delivery.tag not in unsettled]

    def _reply_queue(self, delivery: Delivery) -> str | None:
        if delivery.reply_to in self._own_queues:
            log.warning("message %s wants its reply in %s: refused", delivery.message_id, delivery.reply_to)
            return None
        return delivery.reply_to or None

    def _reply(self, replies: Sequence[OutgoingMessage]) -> set[int]:
        """Publish replies; returns the indices of those that a queue took.

        A forged direct reply address makes RabbitMQ 3.10 close the connection, with the replies beside it unconfirmed.
        So those go apart from the others, and are tried again in halves, which leaves the culprit alone.
        """
        until = time.monotonic() + REPLY_LIMIT_S
        taken: set[int] = set()
        groups = [
            [index for index, reply in enumerate(replies) if reply.mandatory is mandatory]
            for mandatory in (False, True)
        ]
        while groups:
            group = groups.pop()
            result = self._publisher.publish([replies[index] for index in group])
            taken |= {group[place] for place in result.confirmed}
            answered_places = result.confirmed | result.unroutable
            unknown = [index for place, index in enumerate(group) if place not in answered_places]
            if len(unknown) > 1 and time.monotonic() < until:
                middle = len(unknown) // 2
                groups += [unknown[:middle], unknown[middle:]]
        return taken


def _read(delivery: Delivery) -> Submission:
    message = decode(delivery.body)
    try:
        return submission_of(message, delivery)
    except pydantic.ValidationError as error:
        raise AdmissionBroke(error) from error


def _admit(service: AdmissionService, submissions: Sequence[Submission]) -> list[Answer]:
    """Admit a batch; when one of it breaks admission, the others are admitted without it.

    Raises:
        CollectOpsError: A service is away: nothing of this batch, or of a part of it, was admitted.
    """
    if not submissions:
        return []
    try:
        return service.admit_batch(submissions)
    except Exception as error:
        if _passes(error):
            raise
        if len(submissions) == 1:
            log.exception("admission failed at request %s", ascii(submissions[0].request_id))
            return [AdmissionBroke(error)]
        middle = len(submissions) // 2
        return [*_admit(service, submissions[:middle]), *_admit(service, submissions[middle:])]


def _passes(error: Exception) -> bool:
    """Whether the cause is a service, not a submission. Class 54: a limit of PostgreSQL that a value exceeds."""
    if isinstance(error, errors.OperationalError):
        return not (error.sqlstate or "").startswith("54")
    return isinstance(error, Transient)


def _is_admitted(outcome: _Answered) -> bool:
    return isinstance(outcome.answer, Admission)


def _reply(outcome: _Answered) -> OutgoingMessage:
    answer, delivery = outcome.answer, outcome.delivery
    return OutgoingMessage(
        exchange="",
        routing_key=delivery.reply_to or "",
        body=answered(answer) if isinstance(answer, Admission) else refused(answer),
        correlation_id=delivery.correlation_id,
        mandatory=not (delivery.reply_to or "").startswith(_DIRECT_REPLY),
    )


def _dead(outcome: _Answered, rules: LaneRules) -> OutgoingMessage:
    delivery = outcome.delivery
    own = {
        "producer": producer(delivery),
        "original-routing-key": delivery.routing_key,
        "original-message-id": delivery.message_id,
        "original-correlation-id": delivery.correlation_id,
        "original-reply-to": delivery.reply_to,
    }
    headers: dict[str, str | int | float] = {
        "error-message": readable(str(outcome.answer)),
        "failed-time": int(time.time()),
        "retry-count": 0,
        **{name: value for name, value in own.items() if value},
    }
    return OutgoingMessage(
        exchange=rules.broker.dead_queue,
        routing_key=rules.broker.inbox,
        body=delivery.body,
        content_type="application/octet-stream",
        headers=headers,
        message_id=_dead_id(delivery),
    )


def _dead_id(delivery: Delivery) -> str:
    """The same for a message that comes again, as far as it can be told from its equals."""
    if not delivery.message_id:
        return f"inbox-{uuid.uuid4().hex}"
    identified = f"{producer(delivery)}\0{delivery.message_id}\0".encode() + delivery.body
    return f"inbox-{hashlib.sha256(identified).hexdigest()[:32]}"
