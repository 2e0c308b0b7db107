"""A Redis server of a test's own, to be killed, frozen and started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from stack import servers
from stack.ports import is_free
from tests.plugins.integration.regressions.waiting import until


class OwnRedis:
    """Keeps nothing on disk: started again it is empty.

    Args:
        folder: Where it works.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = next(port for port in random.sample(range(20_000, 32_000), 100) if is_free(port))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {"port": str(self._port), "bind": "127.0.0.1", "save": "", "dir": str(self._folder)}
        tree = os.environ.get(servers.VARIABLE)
        command = [
            "redis-server" if tree is None else "/usr/bin/redis-server",
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ]
        self._process = subprocess.Popen(servers.inside(tree, command), stdout=subprocess.DEVNULL)
        until(self._answers, "Redis answers")

    def kill(self) -> None:
        """End it at once, frozen or not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing more."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _answers(self) -> bool:
        client = redis.Redis.from_url(self.url, socket_timeout=1, retry=None)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()
