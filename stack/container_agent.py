"""Whether the agent of a node container says that it lives: exit status 0 when it does."""

from __future__ import annotations

import os
import sys

from collect_ops.coordination import keys
from collect_ops.coordination.client import RedisError, connect
from stack.env_files import addresses


def main(arguments: list[str]) -> int:
    """Ask Redis for the sign of life that the agent renews."""
    (node_id,) = arguments
    try:
        with connect(addresses(os.environ)["COLLECT_REDIS_URL"]) as client:
            alive = bool(client.exists(keys.node(node_id)))
    except RedisError as error:
        print(f"Redis did not say whether the agent of {node_id} lives: {error}", file=sys.stderr)
        return 1
    if not alive:
        print(f"the agent of {node_id} does not say that it lives", file=sys.stderr)
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
