"""The agent of a machine deletes that machine's old task logs: nobody else can reach them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from collect_ops.kernel.backends import Backends


def test_an_agent_deletes_old_logs_and_goes_on(backends: Backends, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    paths = {name: logs / f"dag_id=collect_bulk/run_id={name}/1.log" for name in ("old", "young")}
    for path in paths.values():
        path.parent.mkdir(parents=True)
        path.write_text("a line\n")
    os.utime(paths["old"], (0, 0))
    environment = {
        **os.environ,
        "COLLECT_POSTGRES_DSN": backends.postgres_dsn,
        "COLLECT_REDIS_URL": backends.redis_url,
        "COLLECT_AMQP_URL": backends.amqp_url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
    }
    agent = subprocess.Popen(
        [sys.executable, "-m", "collect_ops.cli", "agent", "--node-id", "logs-of-a-node"],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while paths["old"].exists():
            assert agent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert paths["young"].exists()
        assert agent.poll() is None
    finally:
        agent.terminate()
        assert agent.wait(30) == 0
