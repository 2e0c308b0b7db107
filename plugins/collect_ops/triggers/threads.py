"""Looks that block, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(look: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`, but a cancellation waits for the thread: what it opens is then there to be closed."""
    looking = asyncio.ensure_future(asyncio.to_thread(look))
    try:
        return await asyncio.shield(looking)
    except asyncio.CancelledError:
        await asyncio.wait([looking])
        if not looking.cancelled():
            looking.exception()  # it is told to nobody: nobody waits for the look any more
        raise
