"""A proxy in front of the data server that takes its time, so that a run has a middle in which to kill something."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

import aiohttp
from aiohttp import web

from demo.server import serve_address


class SlowProxy:
    """Passes requests on to `upstream`, each after a pause. Runs in a thread of its own, where workers reach it.

    Args:
        upstream: Base URL, no slash at the end.
        delay_s: The pause before each request, in seconds.
    """

    def __init__(self, upstream: str, *, delay_s: float) -> None:
        self._upstream = upstream
        self._host = serve_address()
        self._delay_s = delay_s
        self.port = 0
        self.requests = 0
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="slow-proxy", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://{self._host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the proxy did not start within 10 s"
        if self._failed:
            raise self._failed
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failed = error
            raise
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with aiohttp.ClientSession(auto_decompress=False) as session:

            async def passed_on(request: web.Request) -> web.Response:
                self.requests += 1
                await asyncio.sleep(self._delay_s)
                async with session.get(f"{self._upstream}{request.path_qs}") as answer:
                    body = await answer.read()
                    return web.Response(
                        body=body, status=answer.status, content_type=answer.content_type or "text/plain"
                    )

            app = web.Application()
            app.router.add_get("/{path:.*}", passed_on)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
            await runner.setup()
            try:
                await web.TCPSite(runner, self._host, 0).start()
                self.port = runner.addresses[0][1]
                self._ready.set()
                await self._stop.wait()
            finally:
                await runner.cleanup()
