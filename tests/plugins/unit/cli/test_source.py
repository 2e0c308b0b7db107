from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collect_ops.cli import main

PLUGINS = Path(__file__).resolve().parents[4] / "plugins"
GOOD = "name: good\ndescription: Fine.\nconnection: api\ntarget: {table: good}\n"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLLECT_OPS_INCLUDE", str(tmp_path))
    for name in (
        "COLLECT_AIRFLOW_URL",
        "COLLECT_AIRFLOW_USER",
        "COLLECT_AIRFLOW_PASSWORD",
        "AIRFLOW_CONN_API",
    ):
        monkeypatch.delenv(name, raising=False)
    directory = tmp_path / "sources"
    directory.mkdir()
    (directory / "good.yaml").write_text(GOOD)
    return directory


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["collect-ops", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_help_names_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "source", "--help") == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("list", "check", "show", "preview", "pause", "resume"))


def test_list(sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (sources / "bad.yaml").write_text("name: [")
    assert run(monkeypatch, "source", "list") == 0
    printed = capsys.readouterr()
    assert "landing.good" in printed.out
    assert "bad.yaml" in printed.err
    assert run(monkeypatch, "source", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed["sources"]] == ["good"]
    assert list(listed["faulty"]) == [str(sources / "bad.yaml")]


def test_check(sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "source", "check", "good") == 0
    assert capsys.readouterr().out.splitlines()[0] == "ok  good"
    bad = sources / "bad.yaml"
    bad.write_text(GOOD.replace("good", "bad") + "priority: 11\nscedule: '@daily'\n")
    assert run(monkeypatch, "source", "check") == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "ok  good"
    assert "ok  bad" not in printed.out
    assert "priority" in printed.err
    assert "did you mean 'schedule'?" in printed.err
    assert run(monkeypatch, "source", "check", str(bad), "--json") == 2
    verdicts = json.loads(capsys.readouterr().out)
    assert [one["field"] for one in verdicts[0]["faults"]] == ["priority", "scedule"]


@pytest.mark.parametrize("command", ["check", "show", "preview", "pause", "resume"])
def test_an_unknown_source_is_bad_input(
    sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, "source", command, "godo") == 2
    assert "did you mean 'good'?" in capsys.readouterr().err


def test_a_missing_file_is_bad_input(
    sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "source", "check", str(sources / "none.yaml")) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_show(sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "source", "show", "good") == 0
    assert "batch_size: 1000" in capsys.readouterr().out
    assert run(monkeypatch, "source", "show", "good", "--json") == 0
    assert json.loads(capsys.readouterr().out)["target"]["disposition"] == "append"


def test_preview_says_where_the_connection_is_looked_for(
    sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("COLLECT_OPS_STACK", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"):
        monkeypatch.delenv(name, raising=False)
    assert run(monkeypatch, "source", "preview", "good") == 2
    assert "AIRFLOW_CONN_API: is not set" in capsys.readouterr().err
    assert run(monkeypatch, "source", "preview", "good", "-p", "x") == 2
    assert "must be NAME=VALUE" in capsys.readouterr().err
    assert run(monkeypatch, "source", "preview", "good", "-p", "x=1") == 2
    assert "params.x: is not a parameter" in capsys.readouterr().err
    monkeypatch.setenv("AIRFLOW_CONN_API", "http://u:hush@h")
    assert run(monkeypatch, "source", "preview", "good") == 2
    printed = capsys.readouterr().err
    assert "must be a JSON object" in printed
    assert "hush" not in printed


def test_pause_says_what_it_needs(
    sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "source", "pause", "good") == 2
    assert "COLLECT_AIRFLOW_PASSWORD" in capsys.readouterr().err
    monkeypatch.setenv("COLLECT_AIRFLOW_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COLLECT_AIRFLOW_USER", "admin")
    monkeypatch.setenv("COLLECT_AIRFLOW_PASSWORD", "hush")
    assert run(monkeypatch, "source", "pause", "good") == 1
    printed = capsys.readouterr().err
    assert "http://127.0.0.1:1 did not answer" in printed
    assert "hush" not in printed


def test_schemas(sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "schemas", "--check") == 1
    assert "out of date" in capsys.readouterr().err
    assert run(monkeypatch, "schemas") == 0
    assert run(monkeypatch, "schemas", "--check") == 0
    assert (sources / "source.schema.json").exists()


def test_check_asks_whether_the_function_is_there(
    sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = "shards: {by: entry_point, entry_point: 'json:%s'}\n"
    (sources / "good.yaml").write_text(GOOD + shards % "loads")
    assert run(monkeypatch, "source", "check", "good") == 0
    (sources / "good.yaml").write_text(GOOD + shards % "lods")
    assert run(monkeypatch, "source", "check", "good") == 2
    printed = capsys.readouterr().err
    assert "shards.entry_point: cannot be imported: AttributeError" in printed
    assert "json:lods" in printed
    assert run(monkeypatch, "source", "list", "--json") == 0, "loading imports nothing"
    assert json.loads(capsys.readouterr().out)["sources"][0]["shards"] == "entry_point"


HANGING = (
    "request: {params: {from-date: {type: string}}}",
    'target: {table: a, key: ["a b"]}',
    "target: {table: a, key: [Id]}",
    'description: "\\UFFFFFFFF"',
    "request: {params: {p: {pattern: 'a{99999999999999999999}'}}}",
    "records: '" + "[" * 3000 + "'",
)


@pytest.mark.parametrize("command", ["check", "list"])
def test_a_faulty_file_ends_as_a_fault_and_the_others_are_looked_at(sources: Path, command: str) -> None:
    for number, text in enumerate(HANGING):
        target = "" if "target:" in text else "target: {table: a}\n"
        (sources / f"bad{number}.yaml").write_text(f"name: bad{number}\nconnection: a\n{target}{text}\n")
    (sources / "last.yaml").write_text(GOOD.replace("good", "last"))
    done = subprocess.run(
        [sys.executable, "-m", "collect_ops.cli", "source", command, "--json"],
        env={**os.environ, "COLLECT_OPS_INCLUDE": str(sources.parent), "PYTHONPATH": str(PLUGINS)},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    printed = json.loads(done.stdout)
    if command == "check":
        assert done.returncode == 2
        assert [Path(one["file"]).stem for one in printed if one["ok"]] == ["good", "last"]
    else:
        assert [one["name"] for one in printed["sources"]] == ["good", "last"]
        assert len(printed["faulty"]) == len(HANGING)


def test_check_warns_of_what_is_taken_and_slow(
    sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = "request: {query: {q: '{p}'}, params: {p: {pattern: '(?!x)[a-z]+'}}}\n"
    (sources / "good.yaml").write_text(GOOD + params)
    assert run(monkeypatch, "source", "check") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "ok  good"
    assert "request.params.p.pattern" in printed.err
    assert run(monkeypatch, "source", "check", "--json") == 0
    (verdict,) = json.loads(capsys.readouterr().out)
    assert verdict["ok"]
    assert [one["field"] for one in verdict["warnings"]] == ["request.params.p.pattern"]
