"""Tokens of this process: asked for once, shared by all requests that need them, renewed before they end.

A token lives in this process's memory alone: neither PostgreSQL nor Redis nor a file ever holds one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias
from weakref import WeakKeyDictionary

from collect_ops.collectors.errors import CollectorError
from collect_ops.collectors.tokens import Token, TokenAsk

AskFor: TypeAlias = Callable[[TokenAsk], Awaitable[Token]]
"""Sends a token request."""


@dataclass(slots=True)
class _Renewal:
    """Who renews within one event loop: one at a time, the others wait and take what came of it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: int = 0
    failure: CollectorError | None = None


_tokens: dict[TokenAsk, Token] = {}
_renewals: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[TokenAsk, _Renewal]] = WeakKeyDictionary()


class TokenKeeper:
    """Gives out the token of one client at one endpoint.

    Args:
        ask: What is asked for.
        ask_for: Sends the request.
    """

    def __init__(self, ask: TokenAsk, ask_for: AskFor) -> None:
        self._ask = ask
        self._ask_for = ask_for

    async def current(self) -> str:
        """A token that is good for a while.

        Raises:
            CollectorError: There was none, and none was given out.
        """
        return (self._fresh() or await self._renewed()).text

    async def instead_of(self, refused: str) -> str:
        """Another token than one that a server has refused, though its time was not up.

        Raises:
            CollectorError: None was given out.
        """
        token = _tokens.get(self._ask)
        if token is not None and token.text == refused:
            del _tokens[self._ask]
        return await self.current()

    def _fresh(self) -> Token | None:
        token = _tokens.get(self._ask)
        return token if token is not None and time.monotonic() < token.renew_at else None

    async def _renewed(self) -> Token:
        renewal = _renewals.setdefault(asyncio.get_running_loop(), {}).setdefault(self._ask, _Renewal())
        before = renewal.ended
        async with renewal.lock:
            if token := self._fresh():
                return token
            if renewal.ended > before and renewal.failure is not None:
                raise renewal.failure  # who waited for a request that failed does not send the same again
            renewal.failure = None
            try:
                token = await self._ask_for(self._ask)
            except CollectorError as error:
                renewal.failure = error
                raise
            finally:
                renewal.ended += 1
            _tokens[self._ask] = token
            return token
