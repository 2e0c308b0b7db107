"""Liveness keys of nodes: each renews its own; whoever looks learns their ages, and whether keys can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.exceptions import RedisError

from collect_ops.coordination import keys
from collect_ops.coordination.client import connect
from collect_ops.kernel.errors import CollectOpsError, OwnOutage, Permanent

#: Renews the key of a node, unless another machine has it, or a later start of this node's agent.
#: KEYS: the node's key. ARGV: machine, boot id, lifetime in ms, 1 at the first time. Returns who has it, else nil.
_RENEW = """
local held = redis.call('GET', KEYS[1])
if held then
  local machine, boot = string.match(held, '^(%S+) (%S+)$')
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
            theirs = held.decode() if isinstance(held, bytes) else str(held)
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

    def boot_id(self, node_id: str) -> str | None:
        """The start of a node's agent that has its key; None when nobody has.

        Raises:
            LivenessUnknown: Redis is away.
        """
        try:
            held = cast("bytes | None", self._redis.get(keys.node(node_id)))
        except RedisError as error:
            raise LivenessUnknown(error) from error
        return None if held is None else held.decode().partition(" ")[2]

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
        return {
            node_id: max(0.0, (self._alive_ms - left_ms) / 1000)
            for node_id, left_ms in zip(node_ids, left, strict=True)
            if left_ms > 0
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
            since = int(cast("Any", self._redis.get(keys.NODES_WITNESS)) or seconds)
            uptime_s = int(self._redis.info("server")["uptime_in_seconds"])
        except RedisError as error:
            raise LivenessUnknown(error) from error
        return min(seconds - since, uptime_s) * 1000 < self._alive_ms
