"""What stands between a collector and its host: who may send a request when, and who is told what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from collect_ops.collectors.errors import CollectorError, HostHeld
from collect_ops.collectors.pacing import Pacer


class Turn(Protocol):
    """One request's right to be sent."""

    def may_be_cut(self, timer: asyncio.Timeout) -> None:
        """The request is under this timer: it is cut off when the host turns out to be held."""

    async def again(self) -> None:
        """The same turn sends one more request, after a redirect: it counts for rate and quota.

        Raises:
            HostHeld: Nothing may be sent to the host for longer than a request waits.
        """

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The host has answered, with whatever status, and may have said what it has left."""

    async def failed(self, error: CollectorError, /) -> HostHeld | None:
        """The request has failed; returns the host's own state when that is held now."""


class Gate(Protocol):
    """Gives out turns."""

    @property
    def held(self) -> str | None:
        """Why nothing may be sent to the host; None while something may."""

    def turn(self, shown: str, /) -> AbstractAsyncContextManager[Turn]:
        """Wait for a turn, and have it.

        Args:
            shown: The masked URL, for messages.

        Raises:
            HostHeld: Nothing may be sent to the host for longer than a request waits.
        """

    async def hold(self, seconds: float, reason: str, /) -> None:
        """The host asked for patience: send nothing for so long."""

    async def rest(self, seconds: float) -> None:
        """Wait before a request is sent again; not longer than it takes to learn that the host is held."""


class LocalTurn:
    """A turn that nobody is told about.

    Args:
        pacer: For requests after redirects.
    """

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer

    def may_be_cut(self, timer: asyncio.Timeout) -> None:
        """Nobody cuts it."""

    async def again(self) -> None:
        """At its rate."""
        await self._pacer.turn()

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Nobody is told."""

    async def failed(self, _error: CollectorError, /) -> HostHeld | None:
        """Nobody is told."""
        return None


class LocalGate:
    """Limits of this collector alone: for looking at a source, where nothing is shared.

    Args:
        concurrency: Requests at once.
        requests_per_s: Requests a second at most; None for any number.
    """

    def __init__(self, concurrency: int, requests_per_s: float | None) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._pacer = Pacer(requests_per_s)

    @property
    def held(self) -> str | None:
        """Nobody holds it."""
        return None

    @contextlib.asynccontextmanager
    async def turn(self, _shown: str, /) -> AsyncIterator[Turn]:
        """Wait for a turn, and have it."""
        async with self._slots:
            await self._pacer.turn()
            yield LocalTurn(self._pacer)

    async def hold(self, seconds: float, _reason: str, /) -> None:
        """Send nothing for so long: one answer of 429 speaks for all requests to the host."""
        self._pacer.hold(seconds)

    async def rest(self, seconds: float) -> None:
        """Wait before a request is sent again."""
        await asyncio.sleep(seconds)
