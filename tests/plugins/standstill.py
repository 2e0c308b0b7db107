"""Whether an event loop went on while something worked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Turns:
    """When the loop had a turn, in seconds of this process's own processor time: a busy machine makes none longer."""

    at: list[float] = field(default_factory=list)

    @property
    def longest_s(self) -> float:
        """The longest time without a turn."""
        return max(later - earlier for earlier, later in zip(self.at, self.at[1:], strict=False))

    @property
    def total_s(self) -> float:
        """The whole time."""
        return self.at[-1] - self.at[0]


@asynccontextmanager
async def turns() -> AsyncIterator[Turns]:
    """Counts the loop's turns, one in some milliseconds."""
    found = Turns()

    async def count() -> None:
        while True:
            found.at.append(time.process_time())
            await asyncio.sleep(0.005)

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    try:
        yield found
    finally:
        counting.cancel()
        found.at.append(time.process_time())
