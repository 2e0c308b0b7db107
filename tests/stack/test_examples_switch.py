"""COLLECT_EXAMPLES is remembered by a stack, and given to whoever reads sources."""

from __future__ import annotations

from pathlib import Path

from stack import environment
from stack.layout import Layout
from stack.programs import programs
from stack.settings import load, load_or_create


def test_examples_are_off_until_asked_for_and_then_remembered(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / "home")
    plain = load_or_create(layout, {})
    assert plain.examples is False
    assert "COLLECT_EXAMPLES" not in environment.airflow(plain)
    asked = load_or_create(layout, {"COLLECT_EXAMPLES": "1"})
    assert environment.airflow(asked)["COLLECT_EXAMPLES"] == "1"
    assert load_or_create(layout, {}).examples is True
    assert load(layout).examples is True
    assert load_or_create(layout, {"COLLECT_EXAMPLES": "0"}).examples is False


def test_what_reads_sources_is_started_anew_when_it_changes(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / "home")
    off, on = load_or_create(layout, {}), load_or_create(layout, {"COLLECT_EXAMPLES": "1"})
    changed = {name for name, each in programs(off).items() if each.shape(off) != each.shape(on)}
    assert {"dag-processor", "worker", "api-server"} <= changed
    assert changed.isdisjoint({"postgres", "redis", "rabbitmq"})
