"""Ended runs of the machinery go after an hour; people's runs, failed ones and each DAG's newest scheduled one stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from collect_ops.delivery import ended_runs
from collect_ops.delivery.ended_runs import machinery_dag_ids, run_once
from collect_ops.orchestrator.errors import AirflowRefused, AirflowUnavailable
from tests.plugins.integration.world import World

MOST_LISTED = 100  # Airflow's [api] maximum_page_limit
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@dataclass
class Archive:
    """Runs by DAG and id: when they ended well, in minutes before now."""

    ended: dict[str, dict[str, float]] = field(default_factory=dict)
    scheduled: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    away: bool = False
    stuck: dict[str, AirflowUnavailable] = field(default_factory=dict)
    unlisted: dict[str, AirflowUnavailable] = field(default_factory=dict)
    calls: int = 0

    def newest_scheduled(self, dag_id: str) -> frozenset[str]:
        self.calls += 1
        if self.away:
            raise AirflowUnavailable("away")
        return frozenset({self.scheduled[dag_id]} if dag_id in self.scheduled else ())

    def ended_well(self, dag_id: str, before: datetime, *, limit: int, offset: int = 0) -> list[str]:
        self.asked.append(dag_id)
        if dag_id in self.unlisted:
            raise self.unlisted[dag_id]
        old = [
            (minutes, run_id)
            for run_id, minutes in self.ended.get(dag_id, {}).items()
            if NOW - timedelta(minutes=minutes) <= before
        ]
        return [run_id for _, run_id in sorted(old, reverse=True)][offset : offset + min(limit, MOST_LISTED)]

    def delete_runs(self, dag_id: str, run_ids: Sequence[str], *, limit_s: float) -> int:
        """One run that sticks fails the call, as a server that answers 500 does."""
        assert limit_s <= ended_runs.CALL_LIMIT_S
        self.calls += 1
        if self.away:
            raise AirflowUnavailable("away")
        for run_id in run_ids:
            if run_id in self.stuck:
                raise self.stuck[run_id]
        return sum(self.ended[dag_id].pop(run_id, None) is not None for run_id in run_ids)


@pytest.fixture(autouse=True)
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes begin anywhere; but for one test, here they begin where they always did."""
    monkeypatch.setattr(ended_runs.random, "shuffle", lambda _: None)


def remove(
    world: World, archive: Archive, logs: Path | None = None, every_s: float = 0.0
) -> ended_runs.Removed:
    return run_once(world.backends, world.rules, lambda: archive, logs, every_s=every_s, now=NOW)


def test_what_ended_an_hour_ago_goes_but_the_newest_scheduled_run(world: World, tmp_path: Path) -> None:
    for run_id in ("old", "newest", "young"):
        (tmp_path / "dag_id=collect_sweep" / f"run_id={run_id}").mkdir(parents=True)
    archive = Archive(
        ended={"collect_sweep": {"old": 61, "newest": 180, "young": 59}, "collect_bulk": {"task-1": 500}},
        scheduled={"collect_sweep": "newest"},
    )
    removed = remove(world, archive, tmp_path)
    assert (removed.runs, removed.logs, removed.more) == (1, 1, False)
    assert archive.ended == {"collect_sweep": {"newest": 180, "young": 59}, "collect_bulk": {"task-1": 500}}
    assert sorted(path.name for path in (tmp_path / "dag_id=collect_sweep").iterdir()) == [
        "run_id=newest",
        "run_id=young",
    ]


def test_only_the_machinerys_dags_are_asked_for(world: World) -> None:
    lanes = {f"lane_{lane}" for lane in world.rules.lanes}
    assert set(machinery_dag_ids(world.rules)) == lanes | {
        "collect_sweep",
        "heartbeat_ingest",
        "collect_backlog",
        "collect_inbox",
    }
    archive = Archive()
    remove(world, archive)
    assert set(archive.asked) == set(machinery_dag_ids(world.rules))


def test_more_than_a_call_takes_goes_in_several(world: World) -> None:
    archive = Archive(ended={"lane_urgent": {f"wake.{number}": 61 + number for number in range(250)}})
    assert remove(world, archive).runs == 250
    assert archive.ended == {"lane_urgent": {}}


def test_the_rest_waits_when_the_time_is_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_runs, "TIME_LIMIT_S", -1.0)
    archive = Archive(ended={"lane_urgent": {f"wake.{number}": 61 + number for number in range(250)}})
    removed = remove(world, archive)
    assert (removed.runs, removed.more) == (100, True)


def test_it_has_a_turn_once_an_interval(world: World) -> None:
    archive = Archive(ended={"lane_bulk": {"a": 61}})
    assert remove(world, archive, every_s=600).runs == 1
    archive.ended["lane_bulk"]["b"] = 61
    assert remove(world, archive, every_s=600).runs == 0
    assert remove(world, archive, every_s=0).runs == 1


SILENT = AirflowUnavailable("did not answer within 10 s")
REFUSED = AirflowRefused("delete runs", 500, "Internal Server Error")


@pytest.mark.parametrize("error", [SILENT, REFUSED], ids=["time-out", "500"])
@pytest.mark.parametrize("count", [1, 8, 250])
def test_a_run_that_cannot_be_removed_keeps_no_other(
    world: World, error: AirflowUnavailable, count: int
) -> None:
    ended = {dag_id: {f"{dag_id}.{number}": 61 + number for number in range(count)}
             for dag_id in ("lane_bulk", "collect_sweep")}  # fmt: skip
    oldest = f"lane_bulk.{count - 1}"
    archive = Archive(ended=ended, stuck={oldest: error})
    with pytest.raises(ExceptionGroup) as raised:
        remove(world, archive)
    assert raised.value.exceptions == (error,)
    assert archive.ended == {"lane_bulk": {oldest: 60 + count}, "collect_sweep": {}}
    archive.stuck.clear()
    assert (remove(world, archive).runs, archive.ended["lane_bulk"]) == (1, {})


@pytest.mark.parametrize("error", [SILENT, REFUSED], ids=["time-out", "500"])
def test_many_runs_that_cannot_be_removed_hold_up_the_others_for_some_passes_only(
    world: World, error: AirflowUnavailable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of a DAG are bad, more than Airflow lists at once."""
    monkeypatch.setattr(ended_runs.random, "shuffle", Random(7).shuffle)
    runs = {f"{number}": 1000.0 - number for number in range(300)}
    bad = dict.fromkeys(list(runs)[:150], error)
    archive = Archive(ended={"lane_bulk": dict(runs), "collect_sweep": {"b": 61}}, stuck=bad)
    for _ in range(20):
        with pytest.raises(ExceptionGroup):
            remove(world, archive)
        if archive.ended["lane_bulk"].keys() == bad.keys():
            break
    assert archive.ended["lane_bulk"].keys() == bad.keys()
    assert archive.ended["collect_sweep"] == {}


def test_logs_of_many_runs_that_cannot_be_removed_keep_no_other_run(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(logs: Path, dag_id: str, run_ids: Sequence[str]) -> int:
        if int(run_ids[0]) < 150:
            raise PermissionError(13, "Permission denied")
        return 0

    monkeypatch.setattr(ended_runs, "remove_run_logs", refuse)
    archive = Archive(ended={"lane_bulk": {f"{number}": 1000.0 - number for number in range(300)}})
    with pytest.raises(ExceptionGroup):
        remove(world, archive, tmp_path)
    assert len(archive.ended["lane_bulk"]) == 150


def test_a_dag_whose_runs_cannot_be_listed_keeps_no_other(world: World) -> None:
    dag_ids = machinery_dag_ids(world.rules)
    archive = Archive(ended={dag_id: {"a": 61} for dag_id in dag_ids}, unlisted={dag_ids[0]: SILENT})
    with pytest.raises(ExceptionGroup):
        remove(world, archive)
    assert [dag_id for dag_id in dag_ids if archive.ended[dag_id]] == dag_ids[:1]


def test_logs_that_cannot_be_removed_keep_their_own_run_only(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id in ("bad", "good"):
        (tmp_path / "dag_id=lane_bulk" / f"run_id={run_id}").mkdir(parents=True)
    really = ended_runs.remove_run_logs

    def refuse(logs: Path, dag_id: str, run_ids: Sequence[str]) -> int:
        if "bad" in run_ids:
            raise PermissionError(13, "Permission denied")
        return really(logs, dag_id, run_ids)

    monkeypatch.setattr(ended_runs, "remove_run_logs", refuse)
    archive = Archive(ended={"lane_bulk": {"bad": 90, "good": 80}})
    with pytest.raises(ExceptionGroup, match="1 ended runs"):
        remove(world, archive, tmp_path)
    assert archive.ended == {"lane_bulk": {"bad": 90}}
    assert [path.name for path in (tmp_path / "dag_id=lane_bulk").iterdir()] == ["run_id=bad"]


def test_an_airflow_that_refuses_everything_is_not_asked_for_ever(world: World) -> None:
    runs = {f"a{number}": 61 + number for number in range(250)}
    archive = Archive(ended={"lane_bulk": dict(runs), "collect_sweep": {"b": 61}})
    archive.stuck = {run_id: AirflowRefused("delete runs", 403, "Forbidden") for run_id in (*runs, "b")}
    with pytest.raises((AirflowRefused, ExceptionGroup)):
        remove(world, archive)
    assert archive.calls <= 2 * ended_runs.MOST_IN_A_ROW


def test_a_search_for_a_bad_run_ends_when_the_time_is_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended_runs, "SEARCH_LIMIT_S", -1.0)
    runs = {f"a{number}": 61 + number for number in range(100)}
    archive = Archive(ended={"lane_bulk": dict(runs)}, stuck={"a99": SILENT})
    with pytest.raises(ExceptionGroup):
        remove(world, archive)
    assert archive.calls < 20


def test_an_airflow_that_is_away_is_told(world: World) -> None:
    archive = Archive(ended={"lane_bulk": {"a": 61}}, away=True)
    with pytest.raises(AirflowUnavailable):
        remove(world, archive)
    assert archive.calls <= 2
