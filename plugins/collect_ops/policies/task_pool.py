"""Celery's pool of processes, which a lost connection to the broker does not make forget who works.

Up to 5.6, `AsynPool.flush` forgets it, and flushes at each reconnection: the next task may be given to a process that
is busy for an hour, and waits there while others are idle (celery/celery, pull request 10346). Named as `worker_pool`
in `[celery] extra_celery_config` (config/airflow.env).
"""

from __future__ import annotations

from celery.concurrency.asynpool import AsynPool  # type: ignore[import-untyped]
from celery.concurrency.prefork import TaskPool as PreforkPool  # type: ignore[import-untyped]


class RememberingPool(AsynPool):
    """Knows its busy processes by the descriptors that tasks are written to."""

    def flush(self) -> None:
        """Drop what has not begun, as Celery does, and keep in mind what has."""
        # Of these nothing is ever written, so that nothing will say that the process is free again.
        unwritten = {
            job._scheduled_for.inqW_fd  # noqa: SLF001 - as the pool itself reads it
            for job in self._cache.values()
            if job._scheduled_for is not None and job._write_to is None  # noqa: SLF001
        }
        busy = self._busy_workers - unwritten
        super().flush()
        self._busy_workers.update(busy & self._all_inqueues)


class TaskPool(PreforkPool):
    """Celery's `prefork` with a pool that remembers."""

    Pool = RememberingPool
