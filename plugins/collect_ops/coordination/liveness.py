"""Liveness keys of nodes: each renews its own; whoever looks learns their ages, and whether keys can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.exceptions import RedisError, ResponseError

from collect_ops.coordination import keys
from collect_ops.coordination.client import connect
from collect_ops.coordination.reading import ignored, text, whole_number
from collect_ops.kernel.errors import CollectOpsError, OwnOutage, Permanent

#: Renews the key of a node, unless another machine has it, or a later start of this node's agent.
#: KEYS: the node's key. ARGV: machine, boot id, lifetime in ms, 1 at the first time. Returns who has it, else nil.
#: What no agent has written (another type, another form, a key that does not end) is nobody's, and is overwritten.
_RENEW = """
local held = redis.call('TYPE', KEYS[1]).ok == 'string' and redis.call('GET', KEYS[1])
local machine, boot = string.match(held or '', '^(%S+) (%S+)$')
if machine and redis.call('PTTL', KEYS[1]) > 0 then
  if machine ~= ARGV[1] or (boot ~= ARGV[2] and ARGV[4] == '0') then return held end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return false
"""
#: Deletes the key if it is this start's.
_LEAVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] .. ' ' .. ARGV[2] then return redis.call('DEL', KEYS[1]) end
return 0
"""


#: How long a key may live, in lifetimes of ours and at least in ms: agents and registry may have read different rules.
LONGEST_LIVES: Final = 10
LONGEST_LIFE_MS: Final = 600_000


class LivenessUnknown(CollectOpsError, OwnOutage):
    """Redis did not answer."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"Redis does not tell which nodes live: {reason!r}")


class NodeIdTaken(CollectOpsError, Permanent):
    """A node that lives on another machine has this id."""

    def __init__(self, node_id: str) -> None:
        super().__init__(
            f"node id {node_id} belongs to a node that lives on another machine; give this one another "
            "(--node-id, COLLECT_NODE_ID)"
        )


class AgentSuperseded(CollectOpsError, Permanent):
    """Another agent has been started for this node."""

    def __init__(self, node_id: str) -> None:
        super().__init__(f"another agent has been started for node {node_id}; this one ends")


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """What a renewal tells.

    Args:
        redis_time_s: Redis' clock, seconds since 1970.
    """

    redis_time_s: float


class Liveness:
    """The keys.

    Args:
        redis_url: Where Redis is.
        alive_s: How long a key lives that is not renewed.
    """

    def __init__(self, redis_url: str, alive_s: float) -> None:
        self._redis = connect(redis_url)
        self._alive_ms = int(alive_s * 1000)
        self._renew = self._redis.register_script(_RENEW)
        self._leave = self._redis.register_script(_LEAVE)

    def renew(self, node_id: str, machine: str, boot_id: str, *, first: bool) -> Renewed:
        """Say that a node lives.

        Args:
            node_id: The node.
            machine: Tells its machine from others.
            boot_id: Tells this start of its agent from others.
            first: Whether this start has not said so before: then it takes the key over from an earlier start.

        Raises:
            NodeIdTaken: The key is alive, and another machine's.
            AgentSuperseded: A later start has taken it over.
            LivenessUnknown: Redis is away.
        """
        try:
            held = self._renew(keys=[keys.node(node_id)], args=[machine, boot_id, self._alive_ms, int(first)])
            seconds, micros = self._redis.time()
        except RedisError as error:
            raise LivenessUnknown(error) from error
        if held is not None:
            theirs = text(held)
            other_machine = theirs.partition(" ")[0] != machine
            raise NodeIdTaken(node_id) if other_machine else AgentSuperseded(node_id)
        return Renewed(redis_time_s=seconds + micros / 1e6)

    def leave(self, node_id: str, machine: str, boot_id: str) -> None:
        """Give the key up, if it is this start's.

        Raises:
            LivenessUnknown: Redis is away; the key expires by itself.
        """
        try:
            self._leave(keys=[keys.node(node_id)], args=[machine, boot_id])
        except RedisError as error:
            raise LivenessUnknown(error) from error

    def announce(self) -> None:
        """Say that a heartbeat tells something new, so that it is taken in at once.

        Raises:
            LivenessUnknown: Redis is away; it is taken in with the others.
        """
        try:
            self._redis.set(keys.NODES_NEWS, "1", ex=keys.NODES_NEWS_LIFETIME_S)
        except RedisError as error:
            raise LivenessUnknown(error) from error

    def has_news(self) -> bool:
        """Whether `announce` was called since the last `take_news`.

        Raises:
            LivenessUnknown: Redis is away.
        """
        try:
            return bool(self._redis.exists(keys.NODES_NEWS))
        except RedisError as error:
            raise LivenessUnknown(error) from error

    def take_news(self) -> None:
        """What was announced is being taken in.

        Raises:
            LivenessUnknown: Redis is away.
        """
        try:
            self._redis.delete(keys.NODES_NEWS)
        except RedisError as error:
            raise LivenessUnknown(error) from error

    def boot_id(self, node_id: str) -> str | None:
        """The start of a node's agent that has its key; None when nobody has.

        Raises:
            LivenessUnknown: Redis is away.
        """
        try:
            held = cast("bytes | None", self._redis.get(keys.node(node_id)))
        except ResponseError as error:  # of another type
            ignored(keys.node(node_id), error)
            return None
        except RedisError as error:
            raise LivenessUnknown(error) from error
        if held is None:
            return None
        machine, _, boot = text(held).partition(" ")
        if not machine or not boot:
            ignored(keys.node(node_id), held)
            return None
        return boot

    def ages(self, node_ids: Sequence[str]) -> dict[str, float]:
        """Seconds since each node has renewed its key; nodes without a key are left out. One round trip.

        Raises:
            LivenessUnknown: Redis is away.
        """
        if not node_ids:
            return {}
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for node_id in node_ids:
                    pipeline.pttl(keys.node(node_id))
                left = cast("list[int]", pipeline.execute())
        except RedisError as error:
            raise LivenessUnknown(error) from error
        longest_ms = max(LONGEST_LIVES * self._alive_ms, LONGEST_LIFE_MS)
        return {
            node_id: max(0.0, (self._alive_ms - left_ms) / 1000)
            for node_id, left_ms in zip(node_ids, left, strict=True)
            # One that lives far longer than any agent makes its own live was not written by one.
            if 0 < left_ms <= longest_ms
        }

    def keys_lost(self) -> bool:
        """Whether Redis has been started or flushed within a key's lifetime, so that a missing key says nothing.

        A key without an expiry is the witness: it is missing only after a flush, or a start without its data.

        Raises:
            LivenessUnknown: Redis is away.
        """
        try:
            seconds = int(self._redis.time()[0])
            self._redis.set(keys.NODES_WITNESS, seconds, nx=True)
            since = self._witness(seconds)
            uptime_s = int(self._redis.info("server")["uptime_in_seconds"])
        except RedisError as error:
            raise LivenessUnknown(error) from error
        return min(seconds - since, uptime_s) * 1000 < self._alive_ms

    def _witness(self, now_s: int) -> int:
        """Since when no key was lost; one that is no time in the past is written anew."""
        try:
            value: Any = self._redis.get(keys.NODES_WITNESS)
        except ResponseError as error:  # of another type
            value = error
        since = None if value is None else whole_number(keys.NODES_WITNESS, value, least=0, most=now_s)
        if since is None:
            self._redis.set(keys.NODES_WITNESS, now_s)
        return now_s if since is None else since
