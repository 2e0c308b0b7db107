"""`collect-ops topology`: declared, compared, migrated, after somebody has changed include/rules/lanes.yaml."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collect_ops.broker import migration
from collect_ops.broker.management import Management
from collect_ops.kernel.paths import include_dir
from collect_ops.lanes.rules import lane_rules
from tests.plugins.integration.world import World

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def change_ttl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Changes the TTL of lane messages in this installation's rules."""
    shutil.copytree(include_dir(), tmp_path / "include")
    monkeypatch.setenv("COLLECT_OPS_INCLUDE", str(tmp_path / "include"))
    rules = tmp_path / "include/rules/lanes.yaml"
    shipped = rules.read_text()

    def change(seconds: int) -> None:
        rules.write_text(shipped.replace("message_ttl_s: 7200", f"message_ttl_s: {seconds}"))
        lane_rules.cache_clear()

    yield change
    lane_rules.cache_clear()


def test_a_changed_argument(
    world: World, collect_ops: Run, change_ttl: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "_FRESH_S", 0.1)
    held = {queue.name: 0 for queue in lane_rules().topology().queues}
    monkeypatch.setattr(Management, "depths", lambda _: held)
    assert collect_ops("topology", "--check")[0] == 0
    code, out, _ = collect_ops("topology", "--json")
    assert (code, json.loads(out)["queues"]) == (0, len(lane_rules().topology().queues))
    change_ttl(3600)
    code, _, err = collect_ops("topology")
    assert code == 1
    assert "queue collect.lane.urgent exists with other arguments" in err
    assert "collect-ops topology --migrate" in err
    code, out, err = collect_ops("topology", "--check")
    assert (code, out.count("different")) == (1, 3)
    assert "run: collect-ops topology --migrate" in err
    code, out, _ = collect_ops("topology", "--check", "--json")
    different = [each["name"] for each in json.loads(out) if each["state"] == "different"]
    assert (code, different) == (1, [f"collect.lane.{lane}" for lane in ("urgent", "normal", "bulk")])
    code, out, _ = collect_ops("topology", "--migrate")
    assert code == 0
    assert out.endswith("made anew: collect.lane.urgent, collect.lane.normal, collect.lane.bulk\n")
    assert "collect.lane.bulk: move messages back" in out
    assert collect_ops("topology", "--check")[0] == 0
    assert collect_ops("topology")[0] == 0
    change_ttl(7200)
    code, out, _ = collect_ops("topology", "--migrate", "--json")
    assert (code, len(json.loads(out)["made_anew"])) == (0, 3)


def test_contradictory_options(collect_ops: Run) -> None:
    code, _, err = collect_ops("topology", "--check", "--migrate")
    assert (code, err) == (2, "--check and --migrate exclude each other\n")
